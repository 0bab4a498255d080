"""One engine for every kind of experiment: have or make its tasks, each by a driver of its own.

A task whose stages are all in the store is shown from there, without a driver; when that is true of
everything, Ray is not started at all, and what MLflow shows already is left alone. What failed
leaves the rest running. A sweep's detector is a task like any other, begun when its best cell is
known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from experiments.config.experiment import AnyConfig
from experiments.config.load import dump_config
from experiments.config.places import absolute, local_folder, scaling
from experiments.plan.graph import DETECTION, ExperimentPlan, cell_group
from experiments.plan.tasks import Task, stage_of
from experiments.run.display import Display
from experiments.run.driver import drive
from experiments.run.groups import (
    NOTE,
    axes_of,
    cell_run,
    compare_link,
    experiment_run,
    register,
    run_key,
    winner_param,
)
from experiments.run.provenance import provenance, source_tags
from experiments.run.result import Result, TaskResult
from experiments.run.study import collect_study
from experiments.stages.detect import Place, check_backbone, coco_metrics, detection_place
from orchestration.cluster import capacity
from orchestration.cluster.connect import cluster
from orchestration.jobs.trials import DRIVER_BYTES, max_concurrent, run_tasks
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.tracker import CELL, INPUT, Tracker

_NOT_BEGUN = "not started, because a cell has failed, and another one might then be the best."
_DELETED = "its result has been deleted meanwhile: run the same command again."


def run_experiment(
    plan: ExperimentPlan,
    tracker: Tracker,
    display: Display,
    *,
    num_at_once: int | None = None,
) -> Result:
    """Have or make everything that the experiment consists of.

    `num_at_once` drivers work at once; as many as the cluster has work for if not given. Raises
    ValueError (a wrong request) before anything is started where that can be known. A task that
    fails is part of the result.
    """
    config, store = plan.experiment.shared, StageStore(plan.experiment.storage.path)
    if (result := _shown(plan, tracker, store)) is not None:
        return result
    _check_places(config, tracker, store)
    weights = None if plan.detector is None else plan.detector.weights
    place = None if config.detect is None else detection_place(config, weights)
    missing = [task for task in plan.tasks if task.records(store) is None]
    detects_later = plan.experiment.kind == "sweep" and place is not None
    last = plan.last_task(store)
    is_complete = not missing and (not detects_later or (last and last.records(store)))
    if plan.detector is not None:
        if missing:
            check_backbone(plan.detector)
        if not plan.detector.is_pretrained:
            display.warn("The backbone starts with random weights: no checkpoint is given.")
    with ExitStack() as stack:
        if not is_complete:
            # Now, so that a cluster that will not do is an error before any run is begun.
            stack.enter_context(_connected(config, display.say))
            num_at_once = num_at_once or max_concurrent(
                capacity.num_jobs_at_once(scaling(config)),
                plan.sharing,
                capacity.driver_room(DRIVER_BYTES),
                max(1, len(missing)),
            )
        code = provenance()
        run = experiment_run(plan, tracker, source_tags(code))
        run_id = None if run is None else run.start()
        with nullcontext() if run is None else run.running():
            drivers = _Drivers(plan, tracker, store, display, run_id, code, place)
            labels = [task.label for task in plan.tasks]
            with display.live(plan.experiment.name, labels + [DETECTION] * detects_later):
                results = drivers.run(plan.tasks, num_at_once or 1)
                error = None
                if detects_later:
                    last = plan.last_task(store)
                    if last is None or any(each.error for each in results):
                        error = _NOT_BEGUN
                    else:
                        results += drivers.run([last], 1, first=len(results))
            result = Result(
                plan,
                tuple(results),
                executed=drivers.fingerprints(cached=False),
                cached=drivers.fingerprints(cached=True),
                run_id=run_id,
                figures=_figures(plan.experiment.name, config),
                study=collect_study(plan, store) if plan.experiment.kind == "correlate" else None,
                detection_error=error,
            )
        _keep_configs(result)
        if run is not None:
            _finish(run, result, tracker, code)
    return result


class _Drivers:
    """Tasks by driver processes, or from the store, and what they report."""

    def __init__(
        self,
        plan: ExperimentPlan,
        tracker: Tracker,
        store: StageStore,
        display: Display,
        run_id: str | None,
        code: Mapping[str, Any],
        place: Place | None,
    ) -> None:
        self._plan, self._store, self._display = plan, store, display
        self._code = code
        self._shared = {
            "uri": tracker.uri,
            "experiment": tracker.experiment,
            "parent_run_id": run_id,
            "code": code,
            "place": place,
        }
        self._cached: dict[str, bool] = {}

    def fingerprints(self, *, cached: bool) -> tuple[str, ...]:
        """The stages that were there before, or those that were made."""
        return tuple(key for key, was_there in self._cached.items() if was_there == cached)

    def run(self, tasks: Sequence[Task], num_at_once: int, first: int = 0) -> list[TaskResult]:
        """Have or make some tasks, whose lines in the display begin with the number `first`."""
        outcomes: dict[int, tuple[Mapping[str, Any] | None, str | None]] = {}
        arguments = [self._argument(task) for task in tasks]

        def on_event(index: int, event: Mapping[str, Any]) -> None:
            if event["event"] == "done":
                was_there = self._cached.get(event["fingerprint"], True)
                self._cached[event["fingerprint"]] = was_there and event["cached"]
            self._display.on_event(first + index, event)

        def on_end(index: int, value: Mapping[str, Any] | None, error: str | None) -> None:
            error = error if value is None else value.get("error")
            outcomes[index] = (value, error)
            self._display.on_end(first + index, error)

        missing = []
        for index, task in enumerate(tasks):
            if task.records(self._store) is None:
                missing.append(index)
            else:
                on_end(index, drive(arguments[index], partial(on_event, index)), None)
        if missing:
            run_tasks(
                drive,
                [arguments[index] for index in missing],
                num_at_once=num_at_once,
                max_failures=tasks[0].config.cluster.max_failures,
                on_event=lambda number, event: on_event(missing[number], event),
                on_end=lambda number, end: on_end(missing[number], end.value, end.error),
            )
        return [
            self._result(task, arguments[index], *outcomes[index])
            for index, task in enumerate(tasks)
        ]

    def _argument(self, task: Task) -> dict[str, Any]:
        plan, kind = self._plan, self._plan.experiment.kind
        is_part = task.is_cell and kind == "sweep"
        has_figures = task.is_cell or (task.config.detect is not None and not task.cell)
        folder = _figures(task.name, task.config)
        axes = {}
        if is_part and task.cell is not None:
            axes = axes_of(plan.experiment, task.cell.config)
        return {
            **self._shared,
            "task": task.resolve_paths(),
            "tags": {CELL: task.name, **source_tags(self._code)},
            "part_of": plan.group if is_part else None,
            "axes": axes,
            "figures": str(folder) if has_figures or task.member == DETECTION else None,
        }

    def _result(
        self,
        task: Task,
        argument: dict[str, Any],
        value: Mapping[str, Any] | None,
        error: str | None,
    ) -> TaskResult:
        if error is not None or value is None:
            known = {} if value is None else value
            return TaskResult(
                task,
                error=error,
                details=known.get("details", ""),
                is_wrong_request=known.get("is_wrong_request", False),
            )
        if _is_unshown(value):
            # A driver that found the tracking server away has stored its results all the same.
            value = drive(argument, lambda event: None)
        records = task.records(self._store)
        if records is None or "error" in value:
            return TaskResult(task, error=value.get("error", _DELETED))
        return TaskResult(task, records, run_id=value["run_id"], stages=tuple(value["stages"]))


def _shown(plan: ExperimentPlan, tracker: Tracker, store: StageStore) -> Result | None:
    """The result, where the store has all of it and MLflow shows it; nothing is told then."""
    experiment = plan.experiment
    tasks = list(plan.tasks)
    if experiment.kind == "sweep" and experiment.shared.detect is not None:
        last = plan.last_task(store)
        if last is None:
            return None
        tasks.append(last)
    found = [(task, task.records(store)) for task in tasks]
    chains = [(task, records) for task, records in found if records is not None]
    if len(chains) < len(tasks):
        return None
    run = experiment_run(plan, tracker, {})
    wanted = {record.fingerprint: record for _, records in chains for record in records}
    if run is None:
        wanted |= {record.fingerprint: record for task in tasks for record in task.given}
        shown = {run_key(key): tracker.shown(record) for key, record in wanted.items()}
        run_id, run_ids = None, {key: each for key, each in shown.items() if each is not None}
    else:
        run_id, run_ids = run.shown()
    if not run_ids.keys() >= {run_key(fingerprint) for fingerprint in wanted}:
        return None
    return Result(
        plan,
        tuple(
            TaskResult(
                task,
                records,
                run_id=run_ids.get(run_key(_cell_key(plan, task))) if task.is_cell else None,
                stages=tuple(
                    {
                        "kind": record.kind,
                        "name": _stage_name(task, record, records),
                        "fingerprint": record.fingerprint,
                        "cached": True,
                        "mlflow_run_id": run_ids[run_key(record.fingerprint)],
                    }
                    for record in (*task.given, *records)
                ),
            )
            for task, records in chains
        ),
        executed=(),
        cached=tuple(wanted),
        run_id=run_id,
        figures=_figures(experiment.name, experiment.shared),
        study=collect_study(plan, store) if experiment.kind == "correlate" else None,
    )


def _cell_key(plan: ExperimentPlan, task: Task) -> str:
    assert task.cell is not None
    return cell_group(task.cell, part_of=plan.group)


def _stage_name(task: Task, record: StageRecord, records: Sequence[StageRecord]) -> str:
    stages = [task.stage(number, records) for number in range(task.size)]
    named = {stage.fingerprint: stage.name for stage in stages if stage is not None}
    return named.get(record.fingerprint) or stage_of(record).name


def _finish(run: GroupRun, result: Result, tracker: Tracker, code: Mapping[str, Any]) -> None:
    """End the experiment's run with what was found, and register a sweep's best network."""
    tags, params = {}, {}
    winner = result.winner
    if result.kind == "run" and winner is not None:
        tags = {
            f"{INPUT}{stage['kind']}": stage["mlflow_run_id"]
            for stage in winner.stages
            if stage["mlflow_run_id"]
        }
        params = winner_param(winner.records)
    elif winner is not None:
        params = {"winner": winner.task.name}
        retrain_run_id = winner.stages[-1]["mlflow_run_id"]
        if retrain_run_id is not None:
            register(tracker, result.name, winner.task.name, retrain_run_id)
        _add_detector(result, winner, tracker, code)
    if result.kind != "correlate":
        link = ""
        if result.kind == "sweep":
            run_ids = [cell.run_id for cell in result.cells if cell.run_id is not None]
            link = compare_link(tracker, run_ids)
        tags[NOTE] = link + result.note()
    run.finish(
        "FAILED" if result.failures else "FINISHED",
        metrics=result.metrics,
        artifacts=result.figures,
        params=params,
        tags=tags,
        parts=[record.fingerprint for record in result.records],
        run_ids=_run_ids(result),
    )


def _run_ids(result: Result) -> dict[str, str]:
    """The runs below an experiment's, by stage and cell; what MLflow was not told is not there."""
    run_ids = {
        run_key(stage["fingerprint"]): stage["mlflow_run_id"]
        for each in result.tasks
        for stage in each.stages
    }
    if result.kind == "sweep":
        run_ids |= {
            run_key(_cell_key(result.plan, each.task)): each.run_id for each in result.cells
        }
    return {key: run_id for key, run_id in run_ids.items() if run_id is not None}


def _add_detector(
    result: Result, winner: TaskResult, tracker: Tracker, code: Mapping[str, Any]
) -> None:
    """Show the detector's numbers in the run of the cell that it is built on."""
    if result.detected is None or winner.task.cell is None:
        return
    run_id = result.tasks[-1].stages[-1]["mlflow_run_id"]
    run = cell_run(
        winner.task.cell,
        tracker,
        tags=source_tags(code),
        part_of=result.plan.group,
        parent_run_id=result.run_id,
    )
    tags = {} if run_id is None else {f"{INPUT}detect": run_id}
    run.finish(metrics=coco_metrics(result.detected), tags=tags)


def _keep_configs(result: Result) -> None:
    """The resolved configs, beside the figures."""
    experiment = result.plan.experiment
    result.figures.mkdir(parents=True, exist_ok=True)
    if experiment.kind == "sweep":
        for cell in experiment.cells:
            file = result.figures / f"{cell.name}.yaml"
            file.write_text(dump_config(cell), encoding="utf-8")
    elif experiment.kind == "correlate":
        text = dump_config(experiment.cells[0])
        (result.figures / "config.yaml").write_text(text, encoding="utf-8")
        if result.study is not None:
            table = result.figures / "correlation.csv"
            table.write_text(result.study.csv(), encoding="utf-8")


def _figures(name: str, config: AnyConfig) -> Path:
    """Where this machine keeps the figures of an experiment or a cell."""
    return local_folder(config.storage) / "figures" / name


@contextmanager
def _connected(config: AnyConfig, say: Callable[[str], None]) -> Iterator[None]:
    """The Ray cluster of an experiment, which has room for a job and shares the storage.

    Raises ValueError where it will not do, before anything is started on it.
    """
    say("[dim]Connecting to Ray …[/]")
    with cluster(config.cluster.address):
        capacity.require(scaling(config))
        capacity.check_storage_is_shared(absolute(config.storage.path))
        yield


def _check_places(config: AnyConfig, tracker: Tracker, store: StageStore) -> None:
    """Find out whether results can be stored and tracked.

    Raises ValueError (StorageError, TrackingError) where they cannot.
    """
    # A server is asked before anything is written; a database lies in the storage, mostly.
    database = tracker.uri.startswith("sqlite:")
    for check in (store.check, tracker.check) if database else (tracker.check, store.check):
        check()


def _is_unshown(value: Mapping[str, Any]) -> bool:
    """Whether MLflow was away when a driver was done."""
    run_ids = [stage["mlflow_run_id"] for stage in value["stages"]]
    return None in run_ids or (value["has_run"] and value["run_id"] is None)
