"""A report in the terminal: the tables of the page that answer what was asked, and where it is."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from experiments.report.ablation import failures_table
from experiments.report.make import Report

# Kind of experiment → what the names of the tables begin with that it prints, by section; of all
# that is tracked the newest one each.
_TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "run": {"ablation": ("cells-",), "detection": ("detection-",)},
    "sweep": {"ablation": ("ablation-", "cells-"), "detection": ("detection-",)},
    "correlate": {"correlation": ("agreement-", "spread-")},
    "detect": {"detection": ("detection-",)},
    "report": {
        "ablation": ("ablation-",),
        "correlation": ("agreement-",),
        "detection": ("detection-",),
    },
}


def print_report(
    report: Report,
    console: Console,
    *,
    kind: str = "report",
    elapsed_s: float | None = None,
    storage: str | None = None,
    page: str | None = None,
    mlflow: str | None = None,
    registered: str | None = None,
    failures: Mapping[str, str] | None = None,
    num_executed: int | None = None,
    num_cached: int | None = None,
) -> None:
    """Print what was found, how sure that is, what it cost, what failed, and where to look.

    Args:
        report: of the experiment.
        console: to print to.
        kind: `run`, `sweep`, `correlate` or `detect`; `report` for all that is tracked.
        elapsed_s: how long the command took.
        storage: where results lie.
        page: where the report's is.
        mlflow: the command or the address that shows the runs.
        registered: the cell whose network is the newest version of the sweep's model in MLflow.
        failures: what failed, by name, and why.
        num_executed: stages that were made.
        num_cached: stages that were in the store.
    """
    for key, prefixes in _TABLES[kind].items():
        section = report.section(key)
        tables = [table for table in section.tables if table.name.startswith(prefixes)]
        for table in tables[:1] if kind == "report" else tables:
            console.print(table.rich())
        for sentence in section.summary:
            console.print(escape(sentence), highlight=False)
    for table in report.lineage.tables[:1]:
        console.print(table.rich())
    if failures:
        failed = failures_table(failures)
        console.print(failed.rich(style="red"))
        console.print(failed.note)
    if registered is not None:
        console.print(
            f"Registered in MLflow: the network of {escape(registered)}, the best on the "
            "search-validation images.",
            highlight=False,
        )
    if num_executed is not None:
        console.print(
            f"Stages    {num_executed} made, {num_cached} from the store", highlight=False
        )
    lines = {
        "Elapsed": None if elapsed_s is None else f"{elapsed_s:.0f} s",
        "Results": None if storage is None else escape(storage),
        "Report": None if page is None else f"[bold]{escape(page)}[/]",
        "MLflow": None if mlflow is None else f"[bold]{escape(mlflow)}[/]",
    }
    for name, text in lines.items():
        if text is not None:
            console.print(f"{name:9} {text}", highlight=False, soft_wrap=True)
