"""The last lines of every command that makes results: how long it took, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape


def print_closing(
    console: Console,
    *,
    elapsed_s: float,
    storage: str,
    figures: Path,
    mlflow: str,
    page: Path | None = None,
) -> None:
    """Time, storage, figures, the report's page, and the command that opens the MLflow UI."""
    lines = [
        ("Elapsed", f"{elapsed_s:.0f} s"),
        ("Results", escape(storage)),
        ("Figures", escape(os.path.relpath(figures))),
        *([] if page is None else [("Report", f"[bold]{escape(os.path.relpath(page))}[/]")]),
        ("MLflow", f"[bold]{escape(mlflow)}[/]"),
    ]
    for name, text in lines:
        console.print(f"{name:9} {text}", highlight=False, soft_wrap=True)
