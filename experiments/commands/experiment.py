"""Commands that make results: run, sweep, correlate."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from experiments.commands.options import (
    ConfigFile,
    Json,
    Quiet,
    Set,
    arguments,
    print_json,
)


def run(
    config: ConfigFile, overrides: Set = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Run one cell: supernet, search, retrain, and the random baseline.

    What an earlier run has finished is not done again.
    """
    from experiments.config.load import load_config
    from experiments.config.places import open_tracker, report_folder, where_to_look
    from experiments.plan.cell import described, plan_cell
    from experiments.report.make import keep_report
    from experiments.report.result_table import print_result
    from experiments.run.display import Display
    from experiments.run.one import run_cell

    settings = load_config(config, overrides or [])
    start_s = time.perf_counter()
    plan = plan_cell(settings, described(settings.data))
    display = Display(Console(stderr=True), quiet=quiet or json)
    tracker = open_tracker(settings)
    result = run_cell(plan, tracker, display)
    page = keep_report(tracker, result.run_id, report_folder(settings.storage, settings.name))
    if json:
        print_json({**result.to_json(), "report": page and str(page)})
    else:
        print_result(
            result,
            Console(),
            elapsed_s=time.perf_counter() - start_s,
            page=page,
            mlflow=where_to_look(settings, arguments(config, overrides)),
        )


def sweep(
    config: ConfigFile,
    overrides: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Cells at once; by default as many as find work.")
    ] = None,
) -> None:
    """Run a grid of cells and the random baseline on a Ray cluster.

    Cells share what they have in common. What an earlier sweep or run has finished is not done
    again; a cell that fails leaves the others running.
    """
    from experiments.config.load import load_sweep
    from experiments.config.places import open_tracker, report_folder, where_to_look
    from experiments.plan.cell import described
    from experiments.plan.sweep import plan_sweep
    from experiments.report.make import keep_report
    from experiments.report.sweep_table import print_sweep
    from experiments.run.sweep import run_sweep
    from experiments.run.table_display import SweepDisplay

    settings = load_sweep(config, overrides or [])
    start_s = time.perf_counter()
    plan = plan_sweep(settings, described(settings.shared.data))
    display = SweepDisplay(Console(stderr=True), quiet=quiet or json)
    tracker = open_tracker(settings.shared)
    result = run_sweep(plan, tracker, display, num_at_once=max_concurrent)
    page = keep_report(tracker, result.run_id, report_folder(settings.storage, settings.name))
    if json:
        print_json({**result.to_json(), "report": page and str(page)})
    else:
        print_sweep(
            result,
            Console(),
            elapsed_s=time.perf_counter() - start_s,
            page=page,
            mlflow=where_to_look(settings.shared, arguments(config, overrides)),
        )
    if result.failures:
        raise typer.Exit(1)


def correlate(
    config: ConfigFile,
    overrides: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Drivers at once; by default as many as find work.")
    ] = None,
) -> None:
    """Retrain random architectures, and see how well indicators predict their order.

    `seeds` in CONFIG repeats supernets and retrainings. What an earlier command has finished is not
    done again.
    """
    from experiments.config.load import load_correlation
    from experiments.config.places import open_tracker, report_folder, where_to_look
    from experiments.plan.cell import described
    from experiments.plan.study import plan_correlation
    from experiments.report.correlation import print_correlation
    from experiments.report.make import keep_report
    from experiments.run.study import run_correlation
    from experiments.run.table_display import SweepDisplay

    settings = load_correlation(config, overrides or [])
    start_s = time.perf_counter()
    plan = plan_correlation(settings, described(settings.shared.data))
    display = SweepDisplay(Console(stderr=True), quiet=quiet or json)
    tracker = open_tracker(settings.shared)
    result = run_correlation(plan, tracker, display, num_at_once=max_concurrent)
    page = keep_report(tracker, result.run_id, report_folder(settings.storage, settings.name))
    if json:
        print_json({**result.to_json(), "report": page and str(page)})
    else:
        print_correlation(
            result,
            Console(),
            elapsed_s=time.perf_counter() - start_s,
            page=page,
            mlflow=where_to_look(settings.shared, arguments(config, overrides)),
        )
    if result.failures:
        raise typer.Exit(1)
