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
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.cluster.scaling import Scaling
from orchestration.jobs import failure
from orchestration.jobs.failure import Decision, JobError
from orchestration.jobs.job_result import (
    Follow,
    JobResult,
    KeepGoing,
    Observer,
    Progress,
    always,
    forget_job,
    job_folder,
    stopped,
)
from orchestration.jobs.worker import LEDGER_NAME, Ledger, WorkerContext
from orchestration.store import json_text
from orchestration.store.stage import JOBS
from orchestration.store.storage import Storage, StorageError

if TYPE_CHECKING:
    from ray.train.v2.api.result import Result

__all__ = ["JobError", "JobResult", "Scaling", "Work", "forget_job", "run_train_job"]

Work = Callable[[dict[str, Any], WorkerContext], None]

_log = logging.getLogger(__name__)

# How often a driver looks for news of its job, in a file on its own node.
_POLL_S = 0.1


def run_train_job(
    work: Work,
    config: dict[str, Any],
    *,
    name: str,
    storage_path: str,
    scaling: Scaling | None = None,
    follow: Follow | None = None,
    on_progress: Progress | None = None,
    max_failures: int = 3,
    keep_going: KeepGoing = always,
) -> JobResult:
    """Run ``work(config, context)`` on the workers of a Ray Train job to its end.

    A job that was interrupted earlier under the same name goes on where its checkpoint ends.

    Args:
        work: a function of an importable module.
        config: its first argument; must pickle.
        name: the job's name, with the fingerprint of what decides its result.
        storage_path: folder or URI that every node of the cluster reaches.
        scaling: the workers; one CPU worker if not given.
        follow: begins to follow it in MLflow, from this process.
        on_progress: called in this thread with each epoch's metrics. A job that is continued
            starts with the epochs that are done.
        max_failures: how many attempts may fail for reasons that may go away.
        keep_going: asked now and then; with False the job stops, and can be continued.

    Raises:
        ValueError: ``work`` raised it; the request was wrong, and nothing is tried again.
        JobError: the job failed for good, or was stopped.
        StorageError: ``storage_path`` cannot be used.
    """
    import ray

    observer = Observer(follow, on_progress)
    for row in _done_so_far(storage_path, name):
        observer.show(row)
    job = _Job(work, config, name, Storage(storage_path), scaling or Scaling(), keep_going)
    num_failures = 0
    while True:
        try:
            result = job.attempt(observer)
        except failure.attempt_errors() as error:
            # Without a connection the process is about to end; a retry would start a new cluster.
            if not keep_going() or not ray.is_initialized():
                raise stopped(name) from error
            num_failures += 1
            causes = failure.causes_of(error)
            decision = failure.decide(causes.values(), num_failures, max_failures)
            if decision is Decision.RETRY:
                _log.warning("%s: %s; trying again.", name, failure.describe(causes))
                continue
            if any(isinstance(cause, ray.exceptions.RaySystemError) for cause in causes.values()):
                raise stopped(name) from error  # the cluster has gone, and nothing has failed
            final = failure.final_error(name, causes, num_failures, details=str(error))
            observer.fail(final)
            raise final from error
        ledger = Ledger(**json_text.loads(str(result.return_value)))
        return JobResult.of(ledger, result.checkpoint)


@dataclass
class _Job:
    """The attempts at one job, and what the failed ones have cost."""

    work: Work
    config: dict[str, Any]
    name: str
    storage: Storage
    scaling: Scaling
    keep_going: KeepGoing
    lost: Ledger = field(default_factory=Ledger)

    def attempt(self, observer: Observer) -> Result:
        """Run to the end or to the first failure, showing epochs as they come."""
        from orchestration.jobs.fit import Fit, FitArguments
        from orchestration.jobs.progress import Epoch, EventReader

        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            file = Path(folder, "events.jsonl")
            fit = Fit(
                FitArguments(
                    work=self.work,
                    config=self.config,
                    name=self.name,
                    storage=self.storage,
                    scaling=self.scaling,
                    events=str(file),
                    lost_wall_s=self.lost.wall_s,
                    lost_device_s=self.lost.device_s,
                )
            )
            reader, since_s, num_workers, saved = EventReader(file), time.monotonic(), 0, False
            is_running = True
            try:
                observer.begin()
                while is_running:
                    if not self.keep_going():
                        raise stopped(self.name)
                    is_running = not fit.is_done(_POLL_S)  # what it wrote last is still read
                    for event in reader.read():
                        since_s = time.monotonic()
                        if isinstance(event, Epoch):
                            saved = True
                            if event.metrics:
                                observer.show(event.metrics)
                        else:
                            num_workers = event.num_workers
            except Exception:
                # Nobody watches the job any more: it must not go on beside the one that follows.
                fit.stop()
                raise
        try:
            return fit.result()
        except BaseException:
            spent_s = (time.monotonic() - since_s) if num_workers else 0.0
            before = Ledger() if saved else self.lost  # a checkpoint has it in its ledger
            self.lost = Ledger(
                wall_s=before.wall_s + spent_s,
                device_s=before.device_s + spent_s * num_workers,
            )
            raise


def _done_so_far(storage_path: str, name: str) -> list[dict[str, float]]:
    """The history that an interrupted job of this name has reached.

    Raises:
        StorageError: the storage cannot be used.
    """
    from ray.train.v2.api.result import Result

    storage = Storage(storage_path)
    storage.check(JOBS)
    try:
        with storage.errors("read"):
            checkpoint = Result.from_path(
                storage.place(job_folder(name)), storage.filesystem
            ).checkpoint
    except StorageError:
        raise
    except RuntimeError:
        return []  # there is no such job, or it saved no checkpoint yet
    except Exception as error:  # noqa: BLE001  # Ray has no public name for it
        # Written by another version of Ray, or half a file from a crash: Ray would refuse it
        # for ever.
        _log.warning("The checkpoints of %s cannot be used (%s); it starts over.", name, error)
        forget_job(name, storage_path)
        return []
    if checkpoint is None:
        return []
    with storage.filesystem.open_input_stream(f"{checkpoint.path}/{LEDGER_NAME}") as stream:
        return Ledger(**json_text.loads(stream.read())).history
