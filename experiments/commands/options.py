"""Options that several commands share, and how each of them prints JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: supernet.epochs=30."),
]

FAILED = 1  # exit status of a command of which a part failed
_KEPT: list[TextIO] = []


def arguments(config: Path, overrides: Sequence[str] | None) -> list[str]:
    """Those that name an experiment, for a command that is shown to people."""
    return [str(config), *(f"--set={override}" for override in overrides or [])]


def print_json(value: Any) -> None:
    """The one value on standard output."""
    from orchestration.store import json_text

    typer.echo(json_text.dumps(value), file=_KEPT[-1] if _KEPT else sys.stdout)


@contextlib.contextmanager
def json_alone() -> Iterator[None]:
    """Keep standard output for `print_json`; what libraries print goes to standard error."""
    _KEPT.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _KEPT.pop()
