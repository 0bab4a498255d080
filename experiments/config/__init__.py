"""What is asked for: YAML read into frozen, validated values."""
