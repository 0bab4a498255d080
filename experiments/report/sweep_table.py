"""What `bnnas sweep` prints at the end: the ablation, what it cost, what failed, where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.figures.numbers import network_row
from experiments.plan.cell import validation_top1
from experiments.report.ablation import Value, ablation_of
from experiments.report.closing import print_closing
from experiments.report.detection_table import ap_table
from experiments.run.sweep_result import SweepResult
from experiments.run.sweep_run import figures_folder


def print_sweep(
    result: SweepResult,
    console: Console,
    *,
    elapsed_s: float,
    mlflow: str,
    page: Path | None = None,
) -> None:
    """The final tables and the command that opens the MLflow UI."""
    console.print(_ablation_table(result))
    _print_baseline(result, console)
    console.print(_cells_table(result))
    if result.detected is not None:
        console.print(
            ap_table(result.detected, "detector on the winner: COCO's metrics, in percent")
        )
    console.print(_cost_table(result))
    if result.failures:
        console.print(failures_table(result.failures))
        console.print("The same command tries again what failed, and nothing else.")
    elif result.winner is not None:
        console.print(
            f"Registered in MLflow as {escape(result.plan.sweep.name)}: the network of "
            f"{result.winner.plan.config.name}, the best on the search-validation images.",
            highlight=False,
        )
    num_made, num_cached = len(result.executed), len(result.cached)
    console.print(f"Stages    {num_made} made, {num_cached} from the store", highlight=False)
    print_closing(
        console,
        elapsed_s=elapsed_s,
        storage=result.plan.sweep.storage.path,
        figures=figures_folder(result.plan.sweep),
        mlflow=mlflow,
        page=page,
    )


def _ablation_table(result: SweepResult) -> Table:
    """The paper's Fig. 5 as a table."""
    ablation = ablation_of(result)
    table = Table(
        title=f"{result.plan.sweep.name}: test top-1 of the retrained network, in percent",
        title_justify="left",
    )
    table.add_column("supernet trains")
    table.add_column("epochs", justify="right")
    for indicator in ablation.indicators:
        table.add_column(f"ranked by {indicator}", justify="right")
    for setting, row in ablation.values.items():
        table.add_row(
            setting.trainable,
            str(setting.epochs),
            *(_percent(row.get(indicator)) for indicator in ablation.indicators),
        )
    return table


def _percent(value: Value | None) -> str:
    if value is None:
        return "failed"
    return f"{100 * value.mean:.2f} ± {100 * value.spread:.2f}"


def _print_baseline(result: SweepResult, console: Console) -> None:
    seeds = len({cell.seed for cell in result.plan.sweep.cells})
    spread = "the standard deviation over seeds" if seeds > 1 else "one standard error"
    ablation = ablation_of(result)
    if ablation.baseline is not None:
        mean, std = (100 * each for each in ablation.baseline)
        over_seeds = f" ± {std:.2f}" if std > 0 else ""
        any_one = 100 * result.random_metrics["random_top1"]
        console.print(
            f"Random baseline, the best of {ablation.num_random}: "
            f"[bold]{mean:.2f}[/]{over_seeds}; the mean of all {any_one:.2f}. ± is {spread}.\n",
            highlight=False,
        )


def _cells_table(result: SweepResult) -> Table:
    table = Table(title="what was found", title_justify="left")
    table.add_column("cell", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    for heading in ("FLOPs", "params", "val top-1", "test top-1"):
        table.add_column(heading, justify="right")
    named = [(row.plan.config.name, row.retrained, "") for row in result.cells]
    named += [("random", row.retrained, "dim") for row in result.baseline]
    for name, retrained, style in named:
        if retrained is not None:
            *network, test_top1 = network_row(retrained)
            val_top1, _ = validation_top1(retrained)
            table.add_row(name, *network, f"{val_top1:.2%}", test_top1, style=style)
    return table


def _cost_table(result: SweepResult) -> Table:
    """Device time by kind of stage: stages that cells share count once."""
    table = Table(title="what it cost", title_justify="left")
    table.add_column("stage")
    table.add_column("made or found", justify="right")
    table.add_column("device time", justify="right")
    for kind in dict.fromkeys(record.kind for record in result.records):
        records = [record for record in result.records if record.kind == kind]
        seconds = 3600 * sum(record.device_hours for record in records)
        table.add_row(kind, str(len(records)), f"{seconds:.1f} s")
    return table


def failures_table(failures: Mapping[str, str]) -> Table:
    """What failed, by name, and why."""
    table = Table(title="what failed", title_justify="left", style="red")
    table.add_column("what", no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, error in failures.items():
        table.add_row(name, escape(error))
    return table
