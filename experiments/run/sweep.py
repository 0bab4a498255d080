"""Run a sweep: every cell and every random architecture as a Ray Tune trial.

A cell whose stages are all in the store is shown from there, without a trial; when that is true of
everything, Ray is not started at all. What failed leaves the rest running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from experiments.plan.cell import finished_chain
from experiments.plan.graph import list_stages
from experiments.plan.sweep import RandomPlan, SweepPlan
from experiments.run.cell import CellRun, keep_figures
from experiments.run.detection import detect_found, known_retraining
from experiments.run.display import Display
from experiments.run.drivers import DriversResult, num_drivers, run_drivers, why_failed
from experiments.run.provenance import provenance
from experiments.run.sweep_result import CellRow, RandomRow, SweepResult
from experiments.run.sweep_run import SweepRun
from experiments.run.table_display import SweepDisplay
from experiments.run.tasks import CellTask, RetrainTask
from experiments.run.workbench import check_places, connected, open_setting, source_tags
from experiments.stages.detect import Place, coco_of, detection_place
from experiments.stages.retrain import show_retrain
from orchestration.jobs.failure import JobError
from orchestration.store.stage_store import StageStore
from orchestration.tracking.tracker import CELL, INPUT, Tracker


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
    tasks: list[CellTask | RetrainTask] = [CellTask(cell, plan.group) for cell in plan.cells]
    tasks += [RetrainTask(random.cell, random.arch) for random in plan.baseline]
    with ExitStack() as stack:
        if any(one.record is None for one in list_stages(plan, store).stages):
            stack.enter_context(connected(config, display.say))
            num_missing = sum(not task.is_there(store) for task in tasks)
            num_at_once = num_at_once or num_drivers(
                config, sharing=plan.sharing, num_missing=num_missing
            )
        code = provenance()
        run = SweepRun.of(plan, tracker, source_tags(code))
        run_id = run.start()
        with run.marked():
            drivers = run_drivers(
                tasks,
                tracker,
                display,
                title=plan.sweep.name,
                parent_run_id=run_id,
                code=code,
                num_at_once=num_at_once or 1,
            )
            result = _collect(plan, tasks, drivers, run_id)
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


def _collect(
    plan: SweepPlan,
    tasks: Sequence[CellTask | RetrainTask],
    drivers: DriversResult,
    run_id: str,
) -> SweepResult:
    """The rows of the result, from the store."""
    store = StageStore(plan.sweep.shared.storage.path)
    cells, baseline = [], []
    for task, end in zip(tasks, drivers.ended, strict=True):
        told = {"run_id": None, "stages": []} if end.value is None else end.value
        if isinstance(task, RetrainTask):
            record = store.get(task.stage.fingerprint) if end.value else None
            error = why_failed(end, is_there=record is not None)
            baseline.append(RandomRow(RandomPlan(task.plan, task.arch), record, error))
            continue
        chain = finished_chain(task.plan, store) if end.value else None
        cells.append(
            CellRow(
                plan=task.plan,
                chain=chain or (),
                error=why_failed(end, is_there=chain is not None),
                run_id=told["run_id"],
                retrain_run_id=told["stages"][-1]["mlflow_run_id"] if chain else None,
            )
        )
    return SweepResult(
        plan=plan,
        cells=tuple(cells),
        baseline=tuple(baseline),
        executed=drivers.executed,
        cached=drivers.cached,
        run_id=run_id,
    )
