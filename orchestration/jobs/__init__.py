"""What runs: Ray Train and scoring jobs, trials of Ray Tune, and who has a stage or makes it."""
