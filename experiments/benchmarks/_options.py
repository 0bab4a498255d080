"""What the benchmarks that run an experiment are asked on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def read_options(
    description: str | None, config: Path, overrides: Sequence[str]
) -> argparse.Namespace:
    """`config`, `overrides` and `json`; the first two are the defaults where they are not given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", type=Path, default=config)
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.overrides is None:
        options.overrides = list(overrides)
    return options
