"""`python -m experiments`: the command line where the script `bnnas` is not installed."""

from __future__ import annotations

from experiments.cli import main

if __name__ == "__main__":
    main()
