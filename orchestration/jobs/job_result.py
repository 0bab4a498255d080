"""What every job has, whatever its workers do: a folder to go on from, observers, a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.jobs import failure
from orchestration.jobs.failure import JobStoppedError
from orchestration.jobs.worker import LEDGER_NAME, Ledger
from orchestration.store.stage import JOBS
from orchestration.store.storage import Storage, StorageError
from orchestration.tracking.live_run import LiveRun
from orchestration.tracking.tracker import SYSTEM_METRICS

if TYPE_CHECKING:
    from ray.train import Checkpoint

Progress = Callable[[dict[str, float]], None]
Follow = Callable[[], LiveRun]
KeepGoing = Callable[[], bool]


@dataclass(frozen=True)
class JobResult:
    """What a finished job leaves.

    Attributes:
        history: one row per epoch, those before any restart included.
        wall_s: seconds that its workers were at work, over all attempts.
        device_hours: the same in hours, times the number of workers.
        device: what rank 0 ran on; see `orchestration.jobs.device`.
    """

    history: list[dict[str, float]]
    wall_s: float
    device_hours: float
    device: Mapping[str, Any]
    _checkpoint: Checkpoint | None = None

    @classmethod
    def of(cls, ledger: Ledger, checkpoint: Checkpoint | None = None) -> JobResult:
        """The result of a job whose books are closed."""
        hours = ledger.device_s / 3600.0
        return cls(ledger.history, ledger.wall_s, hours, ledger.device, checkpoint)

    def fetch(self, to: Path) -> Path:
        """Copy the files of the last checkpoint into the folder ``to`` and return it.

        Raises:
            StorageError: the job has saved none.
        """
        if self._checkpoint is None:
            raise StorageError("The job saved no checkpoint: call report(..., save=...) in it.")
        to.mkdir(parents=True, exist_ok=True)
        self._checkpoint.to_directory(str(to))
        (to / LEDGER_NAME).unlink(missing_ok=True)
        return to


class Observer:
    """Shows each epoch once: to the caller, then to MLflow.

    Args:
        follow: begins to follow the job in MLflow, from this process.
        on_progress: called in this thread with each epoch's metrics.
    """

    def __init__(self, follow: Follow | None, on_progress: Progress | None) -> None:
        self._follow = follow
        self._live: LiveRun | None = None
        self._on_progress = on_progress
        self._last_epoch = 0

    def begin(self) -> None:
        """Follow the job from now on: while its workers come up, there is time for MLflow."""
        if self._live is None and self._follow is not None:
            self._live = self._follow()

    def show(self, row: dict[str, float]) -> None:
        """An epoch is over; one that was shown before, and is repeated after a crash, is not.

        The numbers of :mod:`orchestration.jobs.usage` in it are shown to MLflow alone.
        """
        if row["epoch"] <= self._last_epoch:
            return
        self._last_epoch = int(row["epoch"])
        if self._on_progress is not None:
            self._on_progress({k: v for k, v in row.items() if not k.startswith(SYSTEM_METRICS)})
        self.begin()
        if self._live is not None:
            self._live.log_epoch(row)

    def fail(self, error: BaseException) -> None:
        """The job failed for good."""
        self.begin()
        if self._live is not None:
            self._live.fail(str(error), failure.traceback_of(error))


def always() -> bool:
    """Keep going, whatever happens."""
    return True


def stopped(name: str) -> JobStoppedError:
    """The error of a job that may not go on here, or whose cluster is gone."""
    return JobStoppedError(f"Job {name} was stopped; what it has reached stays.")


def forget_job(name: str, storage_path: str) -> None:
    """Remove a job's folder with its checkpoints; a job that is not there needs no removing.

    Raises:
        StorageError: the storage cannot be written.
    """
    Storage(storage_path).delete(job_folder(name))


def job_folder(name: str) -> str:
    """Where a job keeps its checkpoints: beside the stages, under the same storage path."""
    return f"{JOBS}/{name}"
