"""What `bnnas report` prints: which sections are there, what is missing, where the page lies."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.report.make import Written


def print_report(written: Written, console: Console) -> None:
    """A row for every section, and the page's path."""
    table = Table(title=f"report on {escape(written.report.title)}", title_justify="left")
    table.add_column("section", overflow="fold")
    for heading in ("figures", "tables"):
        table.add_column(heading, justify="right")
    table.add_column("missing", overflow="fold")
    for section in written.report.sections:
        table.add_row(
            escape(section.title.partition(":")[0]),
            str(len(section.pictures) or ""),
            str(len(section.tables) or ""),
            escape(" ".join(section.missing)),
        )
    console.print(table)
    for gap in written.report.gaps:
        console.print(f"[yellow]{escape(gap)}[/]", highlight=False)
    console.print(f"Page      [bold]{escape(os.path.relpath(written.page))}[/]", highlight=False)
