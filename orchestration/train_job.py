"""One Ray Train job: a training function on one worker or many, with checkpoints and retries.

A job has a name that contains its stage's fingerprint. Ray Train silently resumes from whatever
lies under the same storage path and name, so a job that was interrupted, by a crash of a worker,
of the controller or of the driver, is continued by starting it again; and as the name says what
decides its result, it can never inherit another job's weights. :func:`forget_job` removes the
folder when the result is safe.

Device time is the time that workers were at work, times their number, restarts included. Of an
attempt that failed it counts from its last epoch (or its workers' start) to the failure as the
driver saw it. What is lost together with a driver is not known to anybody, and what Ray restarts by
itself (preemption, elastic resizing) counts up to the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestration import failure, json_text
from orchestration.failure import Decision, JobError
from orchestration.live_run import LiveRun, LiveTracking
from orchestration.scaling import Scaling
from orchestration.storage import StorageError, open_storage, unusable
from orchestration.worker import LEDGER_NAME, Ledger, RayWorkerContext, WorkerContext

if TYPE_CHECKING:
    from ray.train import Checkpoint
    from ray.train.v2.api.result import Result

    from orchestration.torch_trainer import TorchTrainer

__all__ = ["JobError", "JobResult", "Scaling", "forget_job", "run_train_job"]

Work = Callable[[dict[str, Any], WorkerContext], None]
Progress = Callable[[dict[str, float]], None]

_log = logging.getLogger(__name__)

_POLL_S = 0.05
# Ray Train is told through its environment; what the user has set already is left alone.
_RAY_TRAIN_ENVIRONMENT = {
    # How often the controller collects reports. Ray's 2 s would be a lower bound for an epoch.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",
    # Relative paths in a config mean the user's working directory, in workers too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@dataclass(frozen=True)
class JobResult:
    """What a finished job leaves.

    Attributes:
        history: one row per epoch, those before any restart included.
        wall_s: seconds that its workers were at work, over all attempts.
        device_hours: the same in hours, times the number of workers.
    """

    history: list[dict[str, float]]
    wall_s: float
    device_hours: float
    _checkpoint: Checkpoint | None

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


def run_train_job(
    work: Work,
    config: dict[str, Any],
    *,
    name: str,
    storage_path: str,
    scaling: Scaling | None = None,
    on_epoch: LiveTracking | None = None,
    on_progress: Progress | None = None,
    max_failures: int = 3,
) -> JobResult:
    """Run ``work(config, context)`` on the workers of a Ray Train job to its end.

    A job that was interrupted earlier under the same name goes on where its checkpoint ends.

    Args:
        work: a function of an importable module.
        config: its first argument; must pickle.
        name: the job's name, with the fingerprint of what decides its result.
        storage_path: folder or URI that every node of the cluster reaches.
        scaling: the workers; one CPU worker if not given.
        on_epoch: follow it in MLflow, from this process.
        on_progress: called in this thread with each epoch's metrics. A job that is continued
            starts with the epochs that are done.
        max_failures: how many attempts may fail for reasons that may go away.

    Raises:
        ValueError: ``work`` raised it; the request was wrong, and nothing is tried again.
        JobError: the job failed for good.
        StorageError: ``storage_path`` cannot be used.
    """
    import ray

    os.environ.update({k: v for k, v in _RAY_TRAIN_ENVIRONMENT.items() if k not in os.environ})
    live = on_epoch.open() if on_epoch is not None else None
    observer = _Observer(live, on_progress)
    for row in _done_so_far(storage_path, name):
        observer.show(row)
    job = _Job(work, config, name, _jobs_path(storage_path), scaling or Scaling())
    num_failures = 0
    while True:
        try:
            result = job.attempt(observer)
        except failure.attempt_errors() as error:
            num_failures += 1
            causes = failure.causes_of(error)
            decision = failure.decide(causes.values(), num_failures, max_failures)
            # Without a connection the process is about to end; a retry would start a new cluster.
            if decision is Decision.RETRY and ray.is_initialized():
                _log.warning("%s: %s; trying again.", name, failure.describe(causes))
                continue
            final = failure.final_error(name, causes, num_failures, details=str(error))
            if live is not None:
                live.fail(str(final))
            raise final from error
        ledger = Ledger(**json_text.loads(str(result.return_value)))
        return JobResult(
            history=ledger.history,
            wall_s=ledger.wall_s,
            device_hours=ledger.device_s / 3600.0,
            _checkpoint=result.checkpoint,
        )


def forget_job(name: str, storage_path: str) -> None:
    """Remove a job's folder with its checkpoints; a job that is not there needs no removing.

    Raises:
        StorageError: the storage cannot be written.
    """
    from pyarrow import fs as pafs

    filesystem, root = open_storage(_jobs_path(storage_path))
    try:
        if filesystem.get_file_info(f"{root}/{name}").type != pafs.FileType.NotFound:
            filesystem.delete_dir(f"{root}/{name}")
    except OSError as error:
        raise unusable(storage_path, "written", error) from error


class _Observer:
    """Shows each epoch once: to the caller, then to MLflow."""

    def __init__(self, live: LiveRun | None, on_progress: Progress | None) -> None:
        self._live = live
        self._on_progress = on_progress
        self._last_epoch = 0

    def show(self, row: dict[str, float]) -> None:
        if row["epoch"] <= self._last_epoch:
            return  # repeated after a crash
        self._last_epoch = int(row["epoch"])
        if self._on_progress is not None:
            self._on_progress(dict(row))
        if self._live is not None:
            self._live.log_epoch(row)


@dataclass
class _Job:
    """The attempts at one job, and what the failed ones have cost."""

    work: Work
    config: dict[str, Any]
    name: str
    jobs_path: str
    scaling: Scaling
    lost: Ledger = field(default_factory=Ledger)

    def attempt(self, observer: _Observer) -> Result:
        """Run to the end or to the first failure, showing epochs as they come.

        ``fit`` runs in a thread of its own: in the main thread it would take over Ctrl-C for
        the rest of the process, and nobody could show progress meanwhile.
        """
        from orchestration.progress import Epoch, EventReader, release

        outcome: list[Any] = []
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            file = Path(folder, "events.jsonl")
            trainer = self._trainer(file)

            def fit() -> None:
                try:
                    outcome.append(trainer.fit())
                except BaseException as error:  # noqa: BLE001  # raised again in the caller
                    outcome.append(error)

            reader = EventReader(file)
            thread = threading.Thread(target=fit, name=f"fit-{self.name}", daemon=True)
            thread.start()
            since_s, num_workers, saved = time.monotonic(), 0, False
            placement_group: str | None = None
            running = True
            while running:
                running = thread.is_alive()  # asked first: what it wrote last is still read
                for event in reader.read():
                    since_s = time.monotonic()
                    if isinstance(event, Epoch):
                        saved = True
                        observer.show(event.metrics)
                    else:
                        num_workers = event.num_workers
                        placement_group = event.placement_group
                thread.join(_POLL_S)
        (result,) = outcome
        if not isinstance(result, BaseException):
            return cast("Result", result)
        if placement_group is not None:
            release(placement_group)
        spent_s = (time.monotonic() - since_s) if num_workers else 0.0
        before = Ledger() if saved else self.lost  # a checkpoint has it in its ledger
        self.lost = Ledger(
            wall_s=before.wall_s + spent_s,
            device_s=before.device_s + spent_s * num_workers,
        )
        raise result

    def _trainer(self, file: Path) -> TorchTrainer:
        from ray.train.v2.api.config import (
            CheckpointConfig,
            FailureConfig,
            RunConfig,
            ScalingConfig,
        )

        from orchestration.progress import EpochWriter, WorkersWriter
        from orchestration.torch_trainer import TorchTrainer

        # Declared for the public kind of callback only; Ray takes both.
        callbacks: list[Any] = [EpochWriter(str(file)), WorkersWriter(str(file))]
        return TorchTrainer(
            _work_in_ray,
            train_loop_config={
                "work": self.work,
                "config": self.config,
                "lost_wall_s": self.lost.wall_s,
                "lost_device_s": self.lost.device_s,
                "upload_later": "://" in self.jobs_path,
            },
            scaling_config=ScalingConfig(
                num_workers=self.scaling.num_workers,
                use_gpu=self.scaling.use_gpu,
                resources_per_worker=self.scaling.resources_per_worker,
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=self.jobs_path,
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                failure_config=FailureConfig(max_failures=0),
                callbacks=callbacks,
            ),
        )


def _work_in_ray(payload: dict[str, Any]) -> str:
    """The training function as Ray calls it, on every worker; rank 0's value comes back."""
    context = RayWorkerContext(
        lost_wall_s=payload["lost_wall_s"],
        lost_device_s=payload["lost_device_s"],
        upload_later=payload["upload_later"],
    )
    if context.device.startswith("cuda"):
        import torch

        torch.cuda.set_device(context.device)  # a setting of this thread
    payload["work"](payload["config"], context)
    return json_text.dumps(vars(context.ledger()))


def _jobs_path(storage_path: str) -> str:
    """Where jobs keep their checkpoints: beside the stages, under the same storage path."""
    if "://" in storage_path:
        return f"{storage_path.rstrip('/')}/jobs"
    return str(Path(storage_path).expanduser().absolute() / "jobs")


def _done_so_far(storage_path: str, name: str) -> list[dict[str, float]]:
    """The history that an interrupted job of this name has reached.

    Raises:
        StorageError: the storage cannot be used.
    """
    from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError
    from ray.train.v2.api.result import Result

    filesystem, root = open_storage(_jobs_path(storage_path))
    try:
        filesystem.create_dir(root, recursive=True)
    except OSError as error:
        raise unusable(storage_path, "written", error) from error
    try:
        checkpoint = Result.from_path(f"{root}/{name}", filesystem).checkpoint
    except RuntimeError:
        return []  # there is no such job, or it saved no checkpoint yet
    except CheckpointManagerInitializationError as error:
        # Written by another version of Ray, or half a file from a crash: Ray would refuse it
        # for ever.
        _log.warning("The checkpoints of %s cannot be used (%s); it starts over.", name, error)
        forget_job(name, storage_path)
        return []
    if checkpoint is None:
        return []
    with filesystem.open_input_stream(f"{checkpoint.path}/{LEDGER_NAME}") as stream:
        return Ledger(**json_text.loads(stream.read())).history
