"""What `bnnas run` prints at the end: what was found, what it cost, and where it lies."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.figures.numbers import network_row, standard_error
from experiments.report.closing import print_closing
from experiments.report.detection_table import ap_table
from experiments.run.cell import CellResult
from orchestration.tracking.stage_runs import Done


def print_result(
    result: CellResult, console: Console, *, elapsed_s: float, mlflow: str, page: Path | None = None
) -> None:
    """The final table and the one command that opens the MLflow UI."""
    config = result.plan.config
    table = Table(title=f"{config.name}: what was found", title_justify="left")
    table.add_column("")
    table.add_column("architecture", overflow="fold")
    for heading in ("FLOPs", "params", "test top-1"):
        table.add_column(heading, justify="right")
    search = result.search.record.result
    metrics = result.retrained.record.metrics
    table.add_row(
        f"{config.search.indicator} + {config.search.searcher}",
        *network_row(result.retrained.record),
        style="bold",
    )
    if result.best_random is not None:
        table.add_row(
            f"best of {len(result.baseline)} random", *network_row(result.best_random.record)
        )
    console.print(table)
    console.print(
        f"On {metrics['num_test_images']:.0f} test images one standard error of top-1 is "
        f"±{100 * standard_error(metrics['top1'], metrics['num_test_images']):.2f} points.\n",
        highlight=False,
    )
    num_classes = result.plan.space.num_classes
    if metrics["top1"] <= 1 / num_classes + 2 * standard_error(
        1 / num_classes, metrics["num_test_images"]
    ):
        console.print(
            f"[yellow]That is chance for {num_classes} classes: train longer before reading "
            f"anything into it.[/]\n",
            highlight=False,
        )
    if metrics["num_skipped"]:
        console.print(
            f"[yellow]{metrics['num_skipped']:.0f} unreadable images were left out.[/]\n",
            highlight=False,
        )
    if result.detected is not None:
        console.print(ap_table(result.detected.record, "the detector: COCO's metrics, in percent"))
    console.print(_cost_table(result))
    others = [
        f"{name} stayed {100 * best['optimality_gap']:.2f} % below it with "
        f"{best['num_evaluated']:,} candidates"
        for name, best in search["found"].items()
        if name != "exact" and best.get("optimality_gap") is not None
    ]
    if others:
        console.print(
            f"Exact search proves the optimum of the {config.search.indicator} score; "
            f"{', '.join(others)}.",
            highlight=False,
        )
    print_closing(
        console,
        elapsed_s=elapsed_s,
        storage=config.storage.path,
        figures=result.figures,
        mlflow=mlflow,
        page=page,
    )


def _cost_table(result: CellResult) -> Table:
    table = Table(title="what it cost", title_justify="left")
    table.add_column("stage")
    for heading in ("epochs", "wall", "device time"):
        table.add_column(heading, justify="right")
    groups: list[tuple[str, tuple[Done, ...]]] = [
        (done.stage.kind, (done,)) for done in result.chain
    ]
    if result.detected is not None:
        groups.append((result.detected.stage.kind, (result.detected,)))
    if result.baseline:
        groups.append((f"random baseline, retrained: {len(result.baseline)}", result.baseline))
    for name, group in groups:
        # A search's history has a row for each generation.
        trained = [done for done in group if done.stage.kind != "search"]
        epochs = sum(len(done.record.history) for done in trained)
        cached = " (cached)" if all(done.cached for done in group) else ""
        table.add_row(
            name + cached,
            str(epochs) if epochs else "",
            f"{sum(done.record.wall_s for done in group):.1f} s",
            f"{3600 * sum(done.record.device_hours for done in group):.1f} s",
        )
    return table
