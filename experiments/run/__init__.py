"""Running what was planned."""
