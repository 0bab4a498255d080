"""What `bnnas doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.doctor import Check

_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "missing": "[red]✗[/]"}


def print_diagnosis(checks: Sequence[Check], console: Console) -> None:
    """One line a check, and under it how to mend what is not as it should be."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        detail = escape(check.detail)
        if check.mend:
            detail += f"\n[dim]→ {escape(check.mend)}[/]"
        table.add_row(_MARKS[check.status], escape(check.name), detail)
    console.print(table)
    num_missing = sum(check.status == "missing" for check in checks)
    verdict = f"[red]{num_missing} missing.[/]" if num_missing else "[green]Ready to run.[/]"
    console.print(f"\n{verdict}")
