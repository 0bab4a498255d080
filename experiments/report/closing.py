"""The last lines of every command that makes results: how long it took, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape


def print_closing(
    console: Console, *, elapsed_s: float, storage: str, figures: Path, mlflow: str
) -> None:
    """Time, storage, figures, and the command that opens the MLflow UI."""
    for name, text in (
        ("Elapsed", f"{elapsed_s:.0f} s"),
        ("Results", escape(storage)),
        ("Figures", escape(os.path.relpath(figures))),
        ("MLflow", f"[bold]{escape(mlflow)}[/]"),
    ):
        console.print(f"{name:9} {text}", highlight=False)
