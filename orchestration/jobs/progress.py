"""How the driver of a job follows it: the job's controller appends lines to a file.

Ray Train places a job's controller on the node of the process that calls ``fit``, and that one is
placed on its driver's node, so a file in the driver's temporary folder is all it takes; an actor
would be one more process to start for every job.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train.v2.api.callback import UserCallback

from orchestration.jobs import usage
from orchestration.store import json_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """Every worker has reported one more epoch, and its checkpoint is registered.

    Attributes:
        metrics: rank 0's row; empty for a checkpoint in the middle of an epoch.
    """

    metrics: dict[str, float]


@dataclass(frozen=True)
class Workers:
    """The workers of one attempt are there.

    Attributes:
        num_workers: how many there are.
    """

    num_workers: int


class EpochWriter(UserCallback):
    """Runs in the controller and writes every :class:`Epoch`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Ray calls it when all workers have reported."""
        append(self._path, Epoch(usage.combine(metrics)))


class EventReader:
    """Runs in the driver and reads what the controller wrote to ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Epoch | Workers]:
        """The events that were written completely since the last call."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = json_text.loads(line)
                yield Epoch(**event) if "metrics" in event else Workers(**event)


def append(path: str, event: Epoch | Workers) -> None:
    """Write an event; called in the controller."""
    line = json_text.dumps(vars(event)).replace("\n", " ")
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:  # a full disk must cost the progress bar, not the training
        _log.warning("The job's progress could not be shown: %s", error)
