"""What the driver process of one task does.

It tells the process that has started it what happens, as plain values (:class:`Events`), because a
stage is shown to people in one place only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from experiments.run.tasks import Context, Task
from experiments.run.workbench import open_setting
from orchestration.store.stage import Stage
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import Tracker

_SHOWN = ("epoch", "train/loss", "val/top1")


def drive(argument: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make one task.

    Returns the ids of the MLflow runs and of the stages; what was found is in the store.
    """
    task: Task = argument["task"]
    context = Context(
        Tracker(argument["uri"], argument["experiment"]),
        argument["tags"],
        argument["parent_run_id"],
    )
    with (
        Events(report) as events,
        open_setting(
            task.config,
            context.tracker,
            events,
            code=argument["code"],
            parent_run_id=context.parent_run_id,
            tags=context.tags,
        ) as setting,
    ):
        made = task.make(setting, context)
        return {
            "has_run": made.has_run,
            "run_id": made.run_id,
            "stages": [_told(done) for done in made.stages],
        }


class Events(logging.Handler):
    """Tells of stages, and of the warnings in this process, as plain values."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report
        self._warnings: list[str] = []
        self._telling = threading.Lock()

    def __enter__(self) -> Events:
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
        with self._telling:
            self._warnings.append(record.getMessage())

    def started(self, stage: Stage, total: int) -> None:
        """A stage of `total` epochs is wanted."""
        self._send("started", **_named(stage), total=total)

    def advanced(self, stage: Stage, row: Mapping[str, float]) -> None:
        """An epoch of a stage is over."""
        shown = {name: row[name] for name in _SHOWN if name in row}
        self._send("advanced", **_named(stage), row=shown)

    def done(self, done: Done) -> None:
        """A stage is there."""
        self._send(
            "done",
            **_named(done.stage),
            cached=done.cached,
            wall_s=done.record.wall_s,
            top1=done.record.metrics.get("top1"),
        )

    def _send(self, what: str, **values: Any) -> None:
        with self._telling:
            warnings, self._warnings = self._warnings, []
        self._report({"what": what, "warnings": warnings, **values})


def _named(stage: Stage) -> dict[str, Any]:
    return {"kind": stage.kind, "name": stage.name, "fingerprint": stage.fingerprint}


def _told(done: Done) -> dict[str, Any]:
    return {**_named(done.stage), "cached": done.cached, "mlflow_run_id": done.run_id}
