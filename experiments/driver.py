"""What the driver process of one cell, or of one random architecture, does in a sweep.

It tells the process of the sweep what happens as plain values (:class:`Events`), because a stage is
shown to people in one place only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from experiments.cell import CellResult, CellRun, keep_figures, make_chain
from experiments.plan import CellPlan
from experiments.stages.retrain import make_retrain
from experiments.workbench import open_setting
from nas.space import Architecture
from orchestration.stage import Stage
from orchestration.stage_runs import Done
from orchestration.tracking import Tracker

_SHOWN = ("epoch", "train/loss", "val/top1")


def drive(argument: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make one cell (`arch` is None), or retrain one random architecture.

    Returns the ids of the MLflow runs and of the stages; what was found is in the store.
    """
    plan: CellPlan = argument["plan"]
    arch: Architecture | None = argument["arch"]
    tracker = Tracker(argument["uri"], argument["experiment"])
    parent_run_id: str | None = argument["parent_run_id"]
    with (
        Events(report) as events,
        open_setting(
            plan.config,
            tracker,
            events,
            code=argument["code"],
            parent_run_id=parent_run_id,
            tags=argument["tags"],
        ) as setting,
    ):
        if arch is not None:
            return {"run_id": None, "stages": [_told(make_retrain(plan.retrain(arch), setting))]}
        run = CellRun.of(
            plan,
            tracker,
            tags=argument["tags"],
            part_of=argument["group"],
            parent_run_id=parent_run_id,
        )
        with run.marked():
            chain = make_chain(plan, setting)
            figures = keep_figures(plan.config, chain)
            run_id = run.show(CellResult(plan, chain, (), None, figures))
        return {"run_id": run_id, "stages": [_told(done) for done in chain]}


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
