"""What a driver tells the process that has started it, because people see it in one place only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from orchestration.store.stage import Stage
from orchestration.tracking.stage_runs import Done


@dataclass(frozen=True)
class Event:
    """The warnings that came up since the event before; of the last event nothing else.

    Attributes:
        warnings: their sentences.
    """

    warnings: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class StageEvent(Event):
    """Something has happened to a stage.

    Attributes:
        kind: what it is.
        name: what people call it.
        fingerprint: its own.
    """

    kind: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class StageStarted(StageEvent):
    """A stage of `total` epochs is wanted: it begins, or is waited for."""

    total: int


@dataclass(frozen=True)
class StageAdvanced(StageEvent):
    """An epoch of a stage is over."""

    epoch: int


@dataclass(frozen=True)
class StageDone(StageEvent):
    """A stage is there.

    Attributes:
        cached: whether it was there before, or somebody else has made it.
        wall_s: how long it took.
        top1: test accuracy of its network, where it has one.
        mAP: of its detector, likewise.
    """

    cached: bool
    wall_s: float
    top1: float | None
    mAP: float | None  # noqa: N815  # the field's word


class EventReporter(logging.Handler):
    """Reports stages, and the warnings of this process; a context, within which it hears them."""

    def __init__(self, report: Callable[[Event], None]) -> None:
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
            self._send(Event())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning for the next event: it may come from a thread that cannot report."""
        with self._sending:
            self._warnings.append(record.getMessage())

    def started(self, stage: Stage, total: int) -> None:
        """A stage of `total` epochs is wanted."""
        self._send(StageStarted(stage.kind, stage.name, stage.fingerprint, total))

    def advanced(self, stage: Stage, row: Mapping[str, float]) -> None:
        """An epoch of a stage is over."""
        self._send(StageAdvanced(stage.kind, stage.name, stage.fingerprint, int(row["epoch"])))

    def done(self, done: Done) -> None:
        """A stage is there."""
        stage, record = done.stage, done.record
        self._send(
            StageDone(
                stage.kind,
                stage.name,
                stage.fingerprint,
                cached=done.cached,
                wall_s=record.wall_s,
                top1=record.metrics.get("top1"),
                mAP=record.metrics.get("coco/bbox_mAP"),
            )
        )

    def _send(self, event: Event) -> None:
        with self._sending:
            warnings, self._warnings = tuple(self._warnings), []
        self._report(replace(event, warnings=warnings))
