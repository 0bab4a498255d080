"""Options that several commands share, and how each of them prints JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: supernet.epochs=30."),
]


def print_json(value: Any) -> None:
    """The one value on standard output, past whatever it was redirected to."""
    from orchestration import json_text

    typer.echo(json_text.dumps(value), file=sys.__stdout__)
