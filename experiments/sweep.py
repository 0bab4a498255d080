"""Run a sweep: every cell and every random architecture as a Ray Tune trial.

A cell whose stages are all in the store is shown from there, without a trial; when that is true of
everything, Ray is not started at all. What failed leaves the rest running.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from experiments.cell import finished_chain
from experiments.config import Config
from experiments.config_file import dump_config
from experiments.driver import drive
from experiments.plan import CellPlan
from experiments.provenance import provenance
from experiments.sweep_config import Sweep
from experiments.sweep_display import SweepDisplay
from experiments.sweep_plan import RandomPlan, SweepPlan
from experiments.sweep_result import CellRow, RandomRow, SweepResult
from experiments.tracking_uri import local_folder
from experiments.workbench import absolute, at_home, check_places, scaling, source_tags
from nas.space import Architecture, format_architecture
from orchestration import capacity, cluster
from orchestration.stage_store import StageStore
from orchestration.sweep import DRIVER_BYTES, Ended, max_concurrent, run_tasks
from orchestration.tracked_model import register_winner
from orchestration.tracking import CELL, STAGE, Tracker, TrackingError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """What one driver makes: a cell, or with `arch` a random architecture."""

    name: str
    plan: CellPlan
    arch: Architecture | None

    @property
    def label(self) -> str:
        """What people see."""
        return self.name if self.arch is None else f"random {format_architecture(self.arch)}"

    def is_there(self, store: StageStore) -> bool:
        if self.arch is None:
            return finished_chain(self.plan, store) is not None
        return store.get(self.plan.retrain(self.arch).fingerprint) is not None


def run_sweep(
    plan: SweepPlan, tracker: Tracker, display: SweepDisplay, *, num_at_once: int | None = None
) -> SweepResult:
    """Have or make everything that the sweep consists of.

    `num_at_once` drivers work at once; as many as the cluster has work for if not given. Raises
    ValueError (a wrong request) before anything is started where that can be known. A cell that
    fails is part of the result.
    """
    config = plan.sweep.shared
    check_places(config, tracker)
    store = StageStore(config.storage.path)
    tasks = [_Task(cell.config.name, cell, None) for cell in plan.cells]
    tasks += [_Task("random", random.cell, random.arch) for random in plan.baseline]
    missing = [not task.is_there(store) for task in tasks]
    with ExitStack() as stack:
        if any(missing):
            display.say("[dim]Connecting to Ray …[/]")
            stack.enter_context(cluster.cluster(config.cluster.address))
            capacity.require(scaling(config))
            capacity.check_storage_is_shared(absolute(config.storage.path))
            num_at_once = num_at_once or max_concurrent(
                capacity.num_jobs_at_once(scaling(config)),
                plan.sharing,
                capacity.driver_room(DRIVER_BYTES),
                sum(missing),
            )
        code = provenance()
        run_id = tracker.start_group(
            plan.sweep.name,
            tags={STAGE: "sweep", **source_tags(code)},
            params=plan.sweep.params,
            group=plan.group,
        )
        arguments = [
            {
                "plan": replace(task.plan, config=at_home(task.plan.config)),
                "arch": task.arch,
                "uri": tracker.uri,
                "experiment": tracker.experiment,
                "parent_run_id": run_id,
                "group": plan.group,
                "code": code,
                "tags": {CELL: task.name, **source_tags(code)},
            }
            for task in tasks
        ]
        try:
            with display.live(plan.sweep.name, [task.label for task in tasks]):
                ended = _run_all(arguments, missing, num_at_once or 1, config, display)
            result = _collect(plan, tasks, ended, store, run_id)
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            _finish(tracker, run_id, status)
            raise
        _show(result, tracker)
    return result


def _run_all(
    arguments: Sequence[dict[str, Any]],
    missing: Sequence[bool],
    num_at_once: int,
    config: Config,
    display: SweepDisplay,
) -> list[Ended]:
    """What is there is shown from here, the rest is made by drivers."""
    ended: dict[int, Ended] = {}
    for index, argument in enumerate(arguments):
        if not missing[index]:
            ended[index] = Ended(drive(argument, partial(display.event, index)), None)
            display.finished(index, ended[index])
    wanted = [index for index, is_missing in enumerate(missing) if is_missing]
    if wanted:
        found = run_tasks(
            drive,
            [arguments[index] for index in wanted],
            num_at_once=num_at_once,
            max_failures=config.cluster.max_failures,
            on_event=lambda number, event: display.event(wanted[number], event),
            on_end=lambda number, end: display.finished(wanted[number], end),
        )
        ended |= dict(zip(wanted, found, strict=True))
    for index, end in ended.items():
        stages = [] if end.value is None else end.value["stages"]
        if any(told["mlflow_run_id"] is None for told in stages):
            # A driver that found the tracking server away has stored its results all the same.
            shown = drive(arguments[index], lambda event: None)
            for told, again in zip(stages, shown["stages"], strict=True):
                told["mlflow_run_id"] = again["mlflow_run_id"]
    return [ended[index] for index in range(len(arguments))]


def _collect(
    plan: SweepPlan,
    tasks: Sequence[_Task],
    ended: Sequence[Ended],
    store: StageStore,
    run_id: str,
) -> SweepResult:
    """The rows of the result, from the store."""
    cells, baseline = [], []
    made: dict[str, bool] = {}
    for task, end in zip(tasks, ended, strict=True):
        told = {"run_id": None, "stages": []} if end.value is None else end.value
        for stage in told["stages"]:
            is_new = made.get(stage["fingerprint"], False) or not stage["cached"]
            made[stage["fingerprint"]] = is_new
        if task.arch is not None:
            record = store.get(task.plan.retrain(task.arch).fingerprint) if end.value else None
            baseline.append(RandomRow(RandomPlan(task.plan, task.arch), record, end.error))
            continue
        chain = finished_chain(task.plan, store) if end.value else None
        cells.append(
            CellRow(
                plan=task.plan,
                chain=chain or (),
                error=end.error,
                run_id=told["run_id"],
                retrain_run_id=told["stages"][-1]["mlflow_run_id"] if chain else None,
            )
        )
    return SweepResult(
        plan=plan,
        cells=tuple(cells),
        baseline=tuple(baseline),
        executed=tuple(fingerprint for fingerprint, is_new in made.items() if is_new),
        cached=tuple(fingerprint for fingerprint, is_new in made.items() if not is_new),
        run_id=run_id,
    )


def _show(result: SweepResult, tracker: Tracker) -> None:
    """Let the sweep's MLflow run show what was found, and register the winner's network."""
    name = result.plan.sweep.name
    folder = _draw(result)
    winner = result.winner
    try:
        if winner is not None and winner.retrain_run_id is not None:
            register_winner(
                tracker,
                name=name,
                run_id=winner.retrain_run_id,
                description=f"Found by the cell {winner.plan.config.name} of the sweep {name}.",
            )
    except TrackingError as error:
        _log.warning("The winner of %s is not registered in MLflow: %s", name, error)
    _finish(
        tracker,
        result.run_id,
        "FAILED" if result.failures else "FINISHED",
        metrics=result.metrics,
        params={} if winner is None else {"winner": winner.plan.config.name},
        artifacts=folder,
        tags={"mlflow.note.content": f"{_compare_link(result, tracker)}{result.summary()}"},
    )


def _compare_link(result: SweepResult, tracker: Tracker) -> str:
    """To MLflow's own page that compares the cells, in Markdown; empty while it is away."""
    run_ids = [row.run_id for row in result.cells if row.run_id is not None]
    try:
        with tracker.session():
            experiment_id = tracker.experiment_id()
    except TrackingError:
        return ""
    query = urlencode({"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])})
    return f"[Compare the cells](#/compare-runs?{query})\n\n"


def _finish(tracker: Tracker, run_id: str, status: str, **shown: Any) -> None:
    """End the sweep's run; a server that went away meanwhile costs a warning, no result."""
    try:
        tracker.finish_group(run_id, status, **shown)
    except TrackingError as error:
        _log.warning(
            "The results are stored, but MLflow does not show the sweep as %s: %s", status, error
        )


def figures_folder(sweep: Sweep) -> Path:
    """Where this machine keeps the sweep's figures."""
    return local_folder(sweep.storage) / "figures" / sweep.name


def _draw(result: SweepResult) -> Path:
    """The figure of the ablation and the resolved cells."""
    from experiments.report.ablation import ablation_figure
    from experiments.report.style import save_figure

    folder = figures_folder(result.plan.sweep)
    folder.mkdir(parents=True, exist_ok=True)
    if any(row.chain for row in result.cells):
        save_figure(ablation_figure(result), folder / "ablation.png")
    for cell in result.plan.sweep.cells:
        (folder / f"{cell.name}.yaml").write_text(dump_config(cell), encoding="utf-8")
    return folder
