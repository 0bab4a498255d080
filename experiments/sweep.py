"""Run a sweep: every cell and every random architecture as a Ray Tune trial.

A cell whose stages are all in the store is shown from there, without a trial; when that is true of
everything, Ray is not started at all. What failed leaves the rest running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments.cell import CellRun, finished_chain, keep_figures
from experiments.config import Config
from experiments.detectors.run import detect_found, detection_place, known_retraining
from experiments.driver import drive
from experiments.plan import CellPlan
from experiments.provenance import provenance
from experiments.stage_list import list_stages
from experiments.stages.detect import Place, coco_of
from experiments.stages.retrain import show_retrain
from experiments.sweep_display import SweepDisplay
from experiments.sweep_plan import RandomPlan, SweepPlan
from experiments.sweep_result import CellRow, RandomRow, SweepResult
from experiments.sweep_run import SweepRun
from experiments.terminal import Display
from experiments.workbench import (
    at_home,
    check_places,
    connected,
    open_setting,
    scaling,
    source_tags,
)
from nas.space import Architecture, format_architecture
from orchestration import capacity
from orchestration.failure import JobError
from orchestration.stage_store import StageStore
from orchestration.sweep import DRIVER_BYTES, Ended, max_concurrent, run_tasks
from orchestration.tracking import CELL, INPUT, Tracker


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
    place = None if config.detect is None else detection_place(config)
    store = StageStore(config.storage.path)
    tasks = [_Task(cell.config.name, cell, None) for cell in plan.cells]
    tasks += [_Task("random", random.cell, random.arch) for random in plan.baseline]
    missing = [not task.is_there(store) for task in tasks]
    with ExitStack() as stack:
        if any(one.record is None for one in list_stages(plan, store).stages):
            stack.enter_context(connected(config, display.say))
            num_at_once = num_at_once or max_concurrent(
                capacity.num_jobs_at_once(scaling(config)),
                plan.sharing,
                capacity.driver_room(DRIVER_BYTES),
                sum(missing),
            )
        code = provenance()
        run = SweepRun.of(plan, tracker, source_tags(code))
        run_id = run.start()
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
        with run.marked():
            with display.live(plan.sweep.name, [task.label for task in tasks]):
                ended, made = _run_all(arguments, missing, num_at_once or 1, config, display)
            result = _collect(plan, tasks, ended, made, run_id)
            if place is not None:
                result = _detect(result, tracker, display, code, place)
        run.show(result)
    return result


def _detect(
    result: SweepResult,
    tracker: Tracker,
    display: SweepDisplay,
    code: Mapping[str, Any],
    place: Place,
) -> SweepResult:
    """The sweep with the detector on its winner's network, or with why that failed."""
    winner = result.winner
    if winner is None or winner.retrained is None or any(row.error for row in result.cells):
        why = "not started, because a cell has failed, and another one might then be the best."
        return replace(result, detection_error=why)
    config = winner.plan.config
    bars = Display(display.console, quiet=display.quiet)
    with (
        open_setting(
            config,
            tracker,
            bars,
            code=code,
            parent_run_id=winner.run_id or result.run_id,
            tags={CELL: config.name, **source_tags(code)},
        ) as setting,
        bars.live(),
    ):
        try:
            record = winner.retrained
            retrained = show_retrain(known_retraining(record), record, setting)
            detected = detect_found(winner.plan, retrained, setting, place)
        except (ValueError, JobError) as error:
            return replace(result, detection_error=str(error))
        keep_figures(config, [detected])
        run_id = detected.run_id
    run = CellRun.of(
        winner.plan,
        tracker,
        tags={CELL: config.name, **source_tags(code)},
        part_of=result.plan.group,
        parent_run_id=result.run_id,
    )
    tags = {} if run_id is None else {f"{INPUT}{detected.stage.kind}": run_id}
    run.finish(metrics=coco_of(detected.record), tags=tags)
    made = {detected.record.fingerprint}
    return replace(
        result,
        detected=detected.record,
        executed=(*result.executed, *(() if detected.cached else made)),
        cached=(*result.cached, *(made if detected.cached else ())),
    )


def _run_all(
    arguments: Sequence[dict[str, Any]],
    missing: Sequence[bool],
    num_at_once: int,
    config: Config,
    display: SweepDisplay,
) -> tuple[list[Ended], dict[str, bool]]:
    """What is there is shown from here, the rest is made by drivers.

    Returns how each of them ended, and of every stage, by fingerprint, whether it was made now.
    """
    ended: dict[int, Ended] = {}
    made: dict[str, bool] = {}

    def heard(index: int, event: Mapping[str, Any]) -> None:
        if event["what"] == "done":
            is_new = not event["cached"]
            made[event["fingerprint"]] = made.get(event["fingerprint"], False) or is_new
        display.event(index, event)

    for index, argument in enumerate(arguments):
        if not missing[index]:
            ended[index] = Ended(drive(argument, partial(heard, index)), None)
            display.finished(index, ended[index])
    wanted = [index for index, is_missing in enumerate(missing) if is_missing]
    if wanted:
        found = run_tasks(
            drive,
            [arguments[index] for index in wanted],
            num_at_once=num_at_once,
            max_failures=config.cluster.max_failures,
            on_event=lambda number, event: heard(wanted[number], event),
            on_end=lambda number, end: display.finished(wanted[number], end),
        )
        ended |= dict(zip(wanted, found, strict=True))
    for index, end in ended.items():
        if end.value is not None and _is_unseen(end.value):
            # A driver that found the tracking server away has stored its results all the same.
            end.value.update(drive(arguments[index], lambda event: None))
    return [ended[index] for index in range(len(arguments))], made


def _is_unseen(told: Mapping[str, Any]) -> bool:
    """Whether MLflow was away when a driver told what it has made."""
    run_ids = [stage["mlflow_run_id"] for stage in told["stages"]]
    return None in run_ids or (len(run_ids) > 1 and told["run_id"] is None)


def _collect(
    plan: SweepPlan,
    tasks: Sequence[_Task],
    ended: Sequence[Ended],
    made: Mapping[str, bool],
    run_id: str,
) -> SweepResult:
    """The rows of the result, from the store."""
    store = StageStore(plan.sweep.shared.storage.path)
    cells, baseline = [], []
    for task, end in zip(tasks, ended, strict=True):
        told = {"run_id": None, "stages": []} if end.value is None else end.value
        if task.arch is not None:
            record = store.get(task.plan.retrain(task.arch).fingerprint) if end.value else None
            error = _why(end, is_there=record is not None)
            baseline.append(RandomRow(RandomPlan(task.plan, task.arch), record, error))
            continue
        chain = finished_chain(task.plan, store) if end.value else None
        cells.append(
            CellRow(
                plan=task.plan,
                chain=chain or (),
                error=_why(end, is_there=chain is not None),
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


def _why(end: Ended, *, is_there: bool) -> str | None:
    """Why something failed; None if it did not."""
    if end.error is None and not is_there:
        return "its result has been deleted meanwhile: run the same command again."
    return end.error
