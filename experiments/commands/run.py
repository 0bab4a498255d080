"""The commands that make results: run, whose other name is sweep, and correlate."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from experiments.commands.options import FAILED, ConfigFile, Json, Quiet, Set, arguments, print_json

if TYPE_CHECKING:
    from experiments.config.experiment import Experiment
    from experiments.report.make import Report
    from experiments.run.result import Result
    from orchestration.tracking.tracker import Tracker

_log = logging.getLogger(__name__)
Concurrent = Annotated[
    int | None, typer.Option(min=1, help="Drivers at once; by default as many as find work.")
]


def run(
    config: ConfigFile,
    overrides: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    max_concurrent: Concurrent = None,
) -> None:
    """Run an experiment: a cell, a sweep, a correlation study or a detector, as CONFIG says.

    A cell is supernet, search and retraining, and a random baseline beside it. What an earlier
    command has finished is not done again; what fails leaves the rest running.
    """
    from experiments.config.load import load_experiment

    experiment = load_experiment(config, overrides or [])
    run_and_print(experiment, arguments(config, overrides), json, quiet, max_concurrent)


def correlate(
    config: ConfigFile,
    overrides: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    max_concurrent: Concurrent = None,
) -> None:
    """Retrain random architectures, and see how well indicators predict their order.

    As 'run', but the file of one cell becomes the study of its supernet.
    """
    from experiments.config.load import load_experiment

    experiment = load_experiment(config, overrides or [], as_study=True)
    run_and_print(experiment, arguments(config, overrides), json, quiet, max_concurrent)


def run_and_print(
    experiment: Experiment,
    named: list[str],
    json: bool,
    quiet: bool,
    max_concurrent: int | None = None,
) -> None:
    """Run an experiment and say what it found; `named` are the arguments that name it."""
    from experiments.config.places import open_tracker
    from experiments.plan.graph import plan_experiment
    from experiments.run.display import Display
    from experiments.run.engine import run_experiment

    start_s = time.perf_counter()
    plan = plan_experiment(experiment)
    tracker = open_tracker(experiment.shared)
    display = Display(Console(stderr=True), quiet=quiet or json)
    result = run_experiment(plan, tracker, display, num_at_once=max_concurrent)
    _raise_failure(result)
    page = _report(
        result, tracker, None if json else Console(), time.perf_counter() - start_s, named
    )
    if json:
        print_json({**result.to_json(), "report": page and str(page)})
    if result.failures:
        raise typer.Exit(FAILED)


def _raise_failure(result: Result) -> None:
    """A cell or a detector that failed leaves nothing to show."""
    from orchestration.jobs.failure import JobError

    first = result.chains[0]
    if result.is_single and not first.records:
        if first.is_wrong_request:
            raise ValueError(first.error)
        raise JobError(str(first.error), first.details)


def _report(
    result: Result, tracker: Tracker, console: Console | None, elapsed_s: float, named: list[str]
) -> Path | None:
    """Print what was found; returns the path of the page, None where it could not be made."""
    from experiments.config.places import report_folder, where_to_look
    from experiments.report.make import build_report, keep_report
    from experiments.report.run_table import Runs
    from experiments.report.terminal import print_report
    from experiments.run.tracked import tracked_runs

    in_hand = tracked_runs(result, tracker)
    report = build_report(Runs(tracker.experiment, in_hand.runs, 0, in_hand))
    config = result.plan.experiment.shared
    folder = report_folder(config.storage, result.name)
    registered = result.registered
    # A detector's only run is that of its last stage.
    run_ids = [result.run_id, *(stage.mlflow_run_id for stage in result.chains[-1].stages)]
    run_id = run_ids[0] or run_ids[-1]
    page = keep_report(report, folder, tracker, run_id)
    if page is not None:
        _keep_figure(report, page, result, tracker)
    if console is not None:
        print_report(
            report,
            console,
            kind=result.kind,
            elapsed_s=elapsed_s,
            page=None if page is None else _place(page, config.storage.path, run_id),
            storage=config.storage.path,
            mlflow=_pages(result, tracker, where_to_look(config, named)),
            registered=None if registered is None else registered.chain.name,
            failures=result.failures,
            num_executed=len(result.executed),
            num_cached=len(result.cached),
        )
    return page


def _pages(result: Result, tracker: Tracker, where: str) -> str:
    """A server's address is that of the page which compares what was made, where there is one."""
    page = result.compare_page(tracker) if where.startswith("http") else None
    return where if page is None else where.rstrip("/") + page


def _place(page: Path, storage: str, run_id: str | None) -> str:
    """Where whoever gave the command finds the report's page."""
    from experiments.config.places import is_submitted

    if not is_submitted():
        return os.path.relpath(page)
    if "://" in storage:
        return f"report/{page.name}, an artifact of the run {run_id}"
    return str(page)


def _keep_figure(report: Report, page: Path, result: Result, tracker: Tracker) -> None:
    """Put the figure of a sweep or a study beside its configs, and attach it to its run."""
    name = result.figure_section
    if name is None:
        return
    drawn = [page.parent / "figures" / f"{own.name}.png" for own in report.section(name).pictures]
    target = result.figures / f"{name}.png"
    if not drawn or not drawn[0].exists():
        return
    if target.exists() and target.read_bytes() == drawn[0].read_bytes():
        return
    shutil.copyfile(drawn[0], target)
    if result.run_id is not None:
        try:
            with tracker.session() as client:
                client.log_artifact(result.run_id, str(target))
        except Exception as error:  # noqa: BLE001  # every artifact store has errors of its own
            _log.warning("%s is not in MLflow: %s", target.name, error)
