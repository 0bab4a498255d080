"""What a stage's training function sees of the world it runs in, with Ray and without.

A training function is written once, against :class:`WorkerContext`::

    def work(config: dict[str, Any], context: WorkerContext) -> None:
        state, first_epoch = fresh_state(config), 1
        with context.restore() as folder:
            if folder is not None:
                state, first_epoch = load(folder)
        for epoch in range(first_epoch, config["epochs"] + 1):
            metrics = train(state, epoch)
            context.report({"epoch": epoch, **metrics}, save=lambda folder: dump(state, folder))

and then runs in a Ray Train job (:class:`RayWorkerContext`) or in the calling process
(:class:`LocalWorkerContext`). The history of all epochs travels inside the checkpoint, so that
what comes back after any number of restarts, in whatever process, is the history of the whole
training and agrees with the weights beside it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestration.jobs.device import describe_device
from orchestration.jobs.usage import Usage
from orchestration.store import json_text
from orchestration.store.storage import reason_of

# The ledger's file inside a checkpoint folder; the name is taken, work must not write it.
LEDGER_NAME = "ledger.json"


class WorkerContext(Protocol):
    """One worker's place in its job.

    Attributes:
        rank: 0 … world_size − 1.
        world_size: number of workers that run this function together.
        device: where to put tensors, such as ``cpu`` or ``cuda:0``.
    """

    rank: int
    world_size: int
    device: str

    def restore(self) -> AbstractContextManager[Path | None]:
        """The folder that ``save`` last filled, or None at the very beginning."""
        ...

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """End an epoch: every rank calls it, once an epoch, and waits for the others.

        Args:
            metrics: numbers. ``epoch`` counts from 1 without gaps; left out, it is filled in.
                Rank 0's are the ones that are kept.
            save: writes what a restart needs into an empty folder; called on rank 0 only. An
                epoch reported without it is repeated after a crash.

        Raises:
            ValueError: a metric is no number, or an epoch is skipped or repeated.
        """
        ...

    def checkpoint_now(self, save: Callable[[Path], None]) -> None:
        """Keep what a restart needs in the middle of an epoch: every rank calls it, and waits.

        Args:
            save: as for `report`.
        """
        ...


@dataclass
class Ledger:
    """The part of a checkpoint that belongs to the job: what was done and what it cost so far.

    Attributes:
        history: one row per epoch.
        wall_s: seconds that workers were at work, over all attempts.
        device_s: the same, times the number of workers of each attempt.
        device: what rank 0 of the last attempt ran on; see `describe_device`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    wall_s: float = 0.0
    device_s: float = 0.0
    device: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The ledger of a checkpoint folder."""
        return cls(**json_text.loads((folder / LEDGER_NAME).read_bytes()))

    def write(self, folder: Path) -> None:
        """Put the ledger into a checkpoint folder."""
        (folder / LEDGER_NAME).write_text(json_text.dumps(vars(self)), encoding="utf-8")

    def append(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Add an epoch's row and return it.

        Raises:
            ValueError: as :meth:`WorkerContext.report`.
        """
        expected = len(self.history) + 1
        given = metrics.get("epoch", expected)
        if given != expected:
            raise ValueError(
                f"Epoch {given} was reported where epoch {expected} was due: report every epoch "
                "once and in order, and go on after a restart where the checkpoint ends."
            )
        row: dict[str, float] = {"epoch": expected}
        for name, value in metrics.items():
            if name == "epoch":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(
                    f"Metric {name!r} is a {type(value).__name__}: report plain numbers "
                    "(tensor.item(), float(array))."
                )
            row[name] = float(value)
        self.history.append(row)
        return row


class LocalWorkerContext:
    """The only worker, in this process: no Ray, the same semantics; for tests and benchmarks.

    Args:
        folder: keeps the last checkpoint; a second context on it resumes.
        device: as :attr:`WorkerContext.device`.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.rank = 0
        self.world_size = 1
        self.device = device
        self._folder = folder
        self._started = time.monotonic()
        last = self.checkpoint
        self._restored = Ledger() if last is None else Ledger.read(last)
        self._num_saved = 0  # in the epoch under way
        if last is not None and last.name.count("_") == 2:
            self._num_saved = int(last.name.rpartition("_")[2])
        self._ledger = Ledger(history=list(self._restored.history))

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the last checkpoint."""
        return max(self._folder.glob("epoch_*"), default=None)

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of all epochs, those before a restart included."""
        return self._ledger.history

    @contextlib.contextmanager
    def restore(self) -> Iterator[Path | None]:
        """See :meth:`WorkerContext.restore`."""
        yield self.checkpoint

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """See :meth:`WorkerContext.report`."""
        self._ledger.append(metrics)
        self._num_saved = 0
        if save is not None:
            self._keep(save)

    def checkpoint_now(self, save: Callable[[Path], None]) -> None:
        """See :meth:`WorkerContext.checkpoint_now`."""
        self._num_saved += 1
        self._keep(save)

    def _keep(self, save: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._folder))
        save(part)
        self._ledger.wall_s = self._restored.wall_s + time.monotonic() - self._started
        self._ledger.device_s = self._ledger.wall_s
        self._ledger.write(part)
        previous = self.checkpoint
        within = f"_{self._num_saved:06d}" if self._num_saved else ""
        part.rename(self._folder / f"epoch_{len(self.history):06d}{within}")
        if previous is not None:
            shutil.rmtree(previous)


class RayWorkerContext:
    """A worker of a Ray Train job; made inside it by :mod:`orchestration.jobs.train_job`.

    Args:
        lost_wall_s: seconds of earlier attempts that no checkpoint knows of.
        lost_device_s: the same, summed over their workers.
        upload_later: upload checkpoints while the next epoch runs; for remote storage.
    """

    def __init__(
        self, *, lost_wall_s: float = 0.0, lost_device_s: float = 0.0, upload_later: bool = False
    ) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = _ray_device()
        self._described = describe_device(self.device)
        self._usage = Usage(self.device)
        self._upload_later = upload_later
        self._started = time.monotonic()
        self._before = Ledger(wall_s=lost_wall_s, device_s=lost_device_s)
        self._history: list[dict[str, float]] = []
        with self.restore() as folder:
            if folder is not None:
                restored = Ledger.read(folder)
                self._history = restored.history
                self._before.wall_s += restored.wall_s
                self._before.device_s += restored.device_s

    @contextlib.contextmanager
    def restore(self) -> Iterator[Path | None]:
        """See :meth:`WorkerContext.restore`."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """See :meth:`WorkerContext.report`."""
        ledger = self.ledger()
        row = ledger.append(metrics)
        self._report(row | self._usage.metrics(), ledger, save)

    def checkpoint_now(self, save: Callable[[Path], None]) -> None:
        """See :meth:`WorkerContext.checkpoint_now`."""
        self._report({}, self.ledger(), save)

    def _report(
        self, row: dict[str, float], ledger: Ledger, save: Callable[[Path], None] | None
    ) -> None:
        import ray.train
        from ray.train import CheckpointUploadMode

        mode = CheckpointUploadMode.ASYNC if self._upload_later else CheckpointUploadMode.SYNC
        if save is None or self.rank != 0:
            ray.train.report(row, checkpoint_upload_mode=mode)
            return
        folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
        try:
            save(folder)
            ledger.write(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a disk may be full already
            raise
        ray.train.report(
            row,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_upload_mode=mode,
            delete_local_checkpoint_after_upload=True,
        )

    def ledger(self) -> Ledger:
        """What was done and what it cost up to now; its history is this context's own."""
        spent_s = time.monotonic() - self._started
        return Ledger(
            history=self._history,
            wall_s=self._before.wall_s + spent_s,
            device_s=self._before.device_s + spent_s * self.world_size,
            device={**self._described, "num_workers": self.world_size},
        )


@contextlib.contextmanager
def naming_batch_sizes(config: Mapping[str, Any]) -> Iterator[None]:
    """Within it, a GPU that is too small is a wrong request, which nobody tries again.

    Raises:
        ValueError: with every `batch_size` in ``config``.
    """
    try:
        yield
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        sizes = ", ".join(f"{path} is {size}" for path, size in _batch_sizes(config))
        raise ValueError(
            f"The GPU's memory is too small ({reason_of(error)}): use a smaller batch"
            f"{f' ({sizes})' if sizes else ''}, more workers, or GPUs with more memory."
        ) from error


def _batch_sizes(config: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _batch_sizes(value, key)
        elif key == "batch_size":
            yield (f"{section}.{key}" if section else key), value


def _ray_device() -> str:
    """The device that Ray gave this worker; torch is not imported where there is none."""
    import ray

    accelerators: dict[str, list[Any]] = ray.get_runtime_context().get_accelerator_ids()
    if not accelerators.get("GPU"):
        return "cpu"
    import ray.train.torch

    return str(ray.train.torch.get_device())
