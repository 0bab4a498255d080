"""How the driver of a job follows it: the job's controller appends lines to a file.

Ray Train places a job's controller on its driver's node, so a file in the driver's temporary
folder is all it takes; another actor would be one more process to start for every job. For the
same reason the driver itself frees the workers' resources after a controller that was killed,
which Ray would give to an actor of its own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.callback import UserCallback

from orchestration.store import json_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """Every worker has reported one more epoch, and its checkpoint is registered.

    Attributes:
        metrics: rank 0's row.
    """

    metrics: dict[str, float]


@dataclass(frozen=True)
class Workers:
    """The workers of one attempt are there.

    Attributes:
        num_workers: how many there are.
        placement_group: the id, in hexadecimal, of what Ray has reserved for them.
    """

    num_workers: int
    placement_group: str


class EpochWriter(UserCallback):
    """Runs in the controller and writes every :class:`Epoch`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Ray calls it when all workers have reported."""
        _append(self._path, {"metrics": metrics[0]})


class WorkersWriter(WorkerGroupCallback):
    """Runs in the controller and writes every :class:`Workers`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Ray calls it when the workers' processes answer."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        _append(
            self._path,
            {
                "num_workers": len(worker_group),
                "placement_group": handle.placement_group.id.hex(),
            },
        )


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


def release(placement_group: str) -> None:
    """Free what Ray has reserved for workers; nothing happens if it is free already."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(placement_group))))


def _append(path: str, event: dict[str, Any]) -> None:
    line = json_text.dumps(event).replace("\n", " ")
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:  # a full disk must cost the progress bar, not the training
        _log.warning("The job's progress could not be shown: %s", error)
