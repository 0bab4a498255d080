"""What the driver process of one task does: have or make its stages, in their order.

It reports to the process that has started it as plain values (:class:`EventReporter`), because
what people see is shown in one place only.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from experiments.config.load import dump_config
from experiments.config.places import absolute, scaling
from experiments.plan.tasks import Task, inputs_of, stage_of
from experiments.run.groups import cell_run, finish_cell
from experiments.stages.detect import Place, make_detect
from experiments.stages.retrain import make_retrain, show_retrain
from experiments.stages.score import make_score
from experiments.stages.search import make_search
from experiments.stages.setting import Setting
from experiments.stages.supernet import make_supernet
from orchestration.jobs.failure import JobError
from orchestration.jobs.runner import StageRunner
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done, StageRuns
from orchestration.tracking.tracker import Tracker

_METRICS = ("epoch", "train/loss", "val/top1", "coco/bbox_mAP")  # of an epoch, for the display
_MAKERS = {
    "supernet": make_supernet,
    "search": make_search,
    "score": make_score,
    "retrain": make_retrain,
}


def drive(argument: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Have or make the stages of a task; what they hold is in the store.

    Args:
        argument: `task`, `place` of a detect stage, `uri` and `experiment` of MLflow, `code` and
            `tags` of every run, `parent_run_id`, `part_of` (the group of the sweep that a cell
            belongs to; None for a task without a run of its own), `axes` of that run, and
            `figures`, the folder to keep those of a cell or detector (None for other tasks).
        report: called with events.

    Returns:
        `run_id` of the task's own MLflow run, and `stages` with their runs' ids; of a task that
        failed for good `error`, `details`, and whether it `is_wrong_request`.
    """
    task: Task = argument["task"]
    tracker = Tracker(argument["uri"], argument["experiment"])
    run = None
    if argument["part_of"] is not None:
        assert task.cell is not None
        run = cell_run(
            task.cell,
            tracker,
            tags=argument["tags"],
            part_of=argument["part_of"],
            parent_run_id=argument["parent_run_id"],
            axes=argument["axes"],
        )
    try:
        with (
            nullcontext() if run is None else run.running(),
            EventReporter(report) as events,
            _runs(task, tracker, argument) as runs,
        ):
            setting = _setting(task, runs, events, argument["code"])
            given = [show_retrain(stage_of(each), each, setting) for each in task.given]
            done_stages = _make(task, setting, given, argument["place"])
            run_id = None
            folder = argument["figures"]
            if folder is not None:
                _keep_figures(Path(folder), task, [*given, *done_stages])
            if run is not None:
                run_id = finish_cell(run, done_stages, Path(folder))
            return {
                "run_id": run_id,
                "has_run": run is not None,
                "stages": [_described(done) for done in (*given, *done_stages)],
            }
    except Exception as error:  # noqa: BLE001  # the others go on; the caller says what failed
        details = error.details if isinstance(error, JobError) else ""
        return {
            "error": f"{error}" or type(error).__name__,
            "details": details,
            "is_wrong_request": isinstance(error, ValueError),
        }


def _make(task: Task, setting: Setting, given: Sequence[Done], place: Place | None) -> list[Done]:
    done_stages: list[Done] = []
    for number in range(task.size):
        stage = task.stage(number, [done.record for done in done_stages])
        assert stage is not None  # its search is made
        earlier = {done.stage.kind: done for done in (*given, *done_stages)}
        inputs = {kind: earlier[kind] for kind in inputs_of(stage) if kind in earlier}
        if stage.kind == "detect":
            assert place is not None  # the parent has looked at the images
            done_stages.append(make_detect(stage, setting, inputs, place))
        else:
            done_stages.append(_MAKERS[stage.kind](stage, setting, inputs))
    return done_stages


def _runs(task: Task, tracker: Tracker, argument: Mapping[str, Any]) -> StageRuns:
    claims = Claims(absolute(task.config.storage.path))
    return StageRuns(tracker, claims, argument["parent_run_id"], argument["tags"])


def _setting(
    task: Task, runs: StageRuns, watcher: EventReporter, code: Mapping[str, Any]
) -> Setting:
    config, storage = task.config, absolute(task.config.storage.path)
    runner = StageRunner(
        store=StageStore(storage),
        claims=runs.claims,
        failures=FailureLog(storage),
        runs=runs,
        scaling=scaling(config),
        max_failures=config.cluster.max_failures,
        code=code,
    )
    place: dict[str, Any] = {"storage_path": storage}
    if config.data is not None:
        root = config.data.root
        place["data_root"] = None if root is None else absolute(root)
        place["num_loaders"] = config.data.num_workers
    return Setting(runner, place, watcher)


def _keep_figures(folder: Path, task: Task, done_stages: Iterable[Done]) -> None:
    """The figures of some stages and the resolved config, in one folder on this machine."""
    for done in done_stages:
        shutil.copytree(done.figures, folder, dirs_exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(task.config), encoding="utf-8")


class EventReporter(logging.Handler):
    """Reports stages, and the warnings of this process, as plain values."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report
        self._warnings: list[str] = []
        self._sending = threading.Lock()

    def __enter__(self) -> EventReporter:
        for name in ("orchestration", "experiments"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("orchestration", "experiments"):
            logging.getLogger(name).removeHandler(self)
        if self._warnings:
            self._send("warned")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning for the next event: it may come from a thread that cannot report."""
        with self._sending:
            self._warnings.append(record.getMessage())

    def started(self, stage: Stage, total: int) -> None:
        """A stage of `total` epochs is wanted."""
        self._send("started", stage, total=total)

    def advanced(self, stage: Stage, row: Mapping[str, float]) -> None:
        """An epoch of a stage is over."""
        self._send("advanced", stage, row={name: row[name] for name in _METRICS if name in row})

    def done(self, done: Done) -> None:
        """A stage is there."""
        metrics = done.record.metrics
        self._send(
            "done",
            done.stage,
            cached=done.cached,
            wall_s=done.record.wall_s,
            top1=metrics.get("top1"),
            mAP=metrics.get("coco/bbox_mAP"),
        )

    def _send(self, event: str, stage: Stage | None = None, **values: Any) -> None:
        with self._sending:
            warnings, self._warnings = self._warnings, []
        if stage is not None:
            values |= {"kind": stage.kind, "name": stage.name, "fingerprint": stage.fingerprint}
        self._report({"event": event, "warnings": warnings, **values})


def _described(done: Done) -> dict[str, Any]:
    stage = done.stage
    return {
        "kind": stage.kind,
        "name": stage.name,
        "fingerprint": done.record.fingerprint,
        "cached": done.cached,
        "mlflow_run_id": done.run_id,
    }
