"""What `bnnas report` prints: which sections are there, what is missing, where the page lies."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.report.make import Written


def print_report(written: Written, console: Console) -> None:
    """A row for every section, what is missing, and the page's path."""
    report = written.report
    table = Table(title=f"report on {escape(report.title)}", title_justify="left")
    table.add_column("section")
    for heading in ("figures", "tables", "gaps"):
        table.add_column(heading, justify="right")
    for section in report.sections:
        numbers = (section.pictures, section.tables, section.missing)
        table.add_row(
            escape(section.title.partition(":")[0]), *(str(len(each) or "") for each in numbers)
        )
    console.print(table)
    for gap in (*report.gaps, *(gap for section in report.sections for gap in section.missing)):
        console.print(f"[yellow]–[/] {escape(gap)}", highlight=False)
    page = escape(os.path.relpath(written.page))
    console.print(f"Page      [bold]{page}[/]", highlight=False, soft_wrap=True)
