"""The commands of `bnnas`, a file for each group; `experiments.cli` puts them together."""
