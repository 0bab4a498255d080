"""MMEngine's Runner under somebody else's direction: epoch by epoch, with resumption.

The runner trains and evaluates as it always does. After every epoch, and after the evaluation where
one is due, :class:`ReportHook` hands the metrics and a checkpoint to a reporter, in a Ray Train job
the worker's context; a training that is begun again goes on from the last of them and ends with the
same weights as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from detection.weights import read_checkpoint

TRAINING_FILE = "training.pth"  # all that a resumption needs

Losses = dict[str, list[tuple[int, float]]]


class Reporter(Protocol):
    """Who is told of every epoch, and knows what an earlier attempt has reached.

    Attributes:
        rank: 0 … world_size − 1.
        world_size: number of processes that train together.
    """

    rank: int
    world_size: int

    def restore(self) -> AbstractContextManager[Path | None]:
        """The folder that `save` last filled, or None at the very beginning."""
        ...

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        """End an epoch; `save` fills a folder, on rank 0."""
        ...


def train_detector(
    config: Config,
    reporter: Reporter,
    *,
    detector_file: str,
    detections_file: str,
    losses_file: str,
    log_interval: int = 50,
    at_the_end: Mapping[str, float] | None = None,
) -> None:
    """Train and evaluate what a config describes, from wherever an earlier attempt has got to.

    Every epoch reports `train/loss` and its parts, `train/lr` and `train/epoch_s`; one with an
    evaluation also `coco/bbox_mAP` and its siblings.

    Args:
        config: of MMEngine's Runner; it stays as it is. Its own checkpoints and logs are turned
            off.
        reporter: of this process.
        detector_file: in the last checkpoint, the state dict of the detector, of the moving average
            where there is one.
        detections_file: in every checkpoint since the first evaluation, what the last one found, in
            COCO's results format.
        losses_file: in every checkpoint, the mean losses of every interval so far, as JSON:
            ``step/loss`` and its parts → [optimiser step, value].
        log_interval: optimiser steps that are meaned there; an epoch's last interval may be
            shorter.
        at_the_end: what the last epoch reports beside its own numbers.

    Raises:
        ValueError: the loss is no longer a number, or mixed precision is asked for without a GPU.
        WeightsError: the checkpoint of an earlier attempt holds more than tensors and plain values.
    """
    config = deepcopy(config)
    if config.optim_wrapper.type == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ValueError(
            "MMEngine has mixed precision on GPUs only, and this process has none: set "
            "detect.precision to float32, or train on GPUs."
        )
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        work_dir = Path(folder)
        config.work_dir = folder
        config.experiment_name = uuid.uuid4().hex  # MMEngine keeps state by this name
        config.launcher = "pytorch" if reporter.world_size > 1 else "none"
        config.log_level = "ERROR"
        config.default_hooks.update(checkpoint=None, logger=None)
        config.visualizer = {"type": "Visualizer", "vis_backends": None}
        config.val_evaluator.results_file = str(work_dir / detections_file)
        losses: Losses = {}
        with reporter.restore() as checkpoint:
            if checkpoint is not None:
                losses = json.loads((checkpoint / losses_file).read_text(encoding="utf-8"))
                shutil.copyfile(checkpoint / TRAINING_FILE, work_dir / TRAINING_FILE)
                if (checkpoint / detections_file).exists():
                    shutil.copyfile(checkpoint / detections_file, work_dir / detections_file)
                read_checkpoint(work_dir / TRAINING_FILE)  # before MMEngine, which trusts it
                config.update(resume=True, load_from=str(work_dir / TRAINING_FILE))
        runner = Runner.from_cfg(config)
        runner.register_hook(
            ReportHook(
                reporter,
                detections=work_dir / detections_file,
                detector_file=detector_file,
                losses_file=losses_file,
                losses=losses,
                log_interval=log_interval,
                at_the_end=at_the_end or {},
            )
        )
        runner.train()


class _Mean:
    """The mean of the losses since it was last asked for."""

    def __init__(self) -> None:
        self.num_steps = 0
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Add a step's losses, where they are: no device has to wait."""
        self.num_steps += 1
        for name, value in outputs.items():
            if "loss" in name:
                value = torch.as_tensor(value).detach().double()
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def take(self) -> dict[str, float]:
        """The means over steps and ranks; begins anew."""
        means = {}
        for name, total in sorted(self._sums.items()):
            mean = total / self.num_steps
            all_reduce(mean, op="mean")
            means[name] = mean.item()
        self.num_steps, self._sums = 0, {}
        return means


class ReportHook(Hook):
    """Hands every epoch to a reporter.

    Args:
        reporter: of this process.
        detections: where the evaluation writes what was found.
        detector_file: in the last checkpoint, the detector's state dict.
        losses_file: in every checkpoint, the losses of all intervals.
        losses: those of an earlier attempt.
        log_interval: optimiser steps.
        at_the_end: what the last epoch reports beside its own numbers.
    """

    priority = "LOWEST"  # the moving average is back in its place, the schedule has stepped

    def __init__(
        self,
        reporter: Reporter,
        *,
        detections: Path,
        detector_file: str,
        losses_file: str,
        losses: Losses,
        log_interval: int,
        at_the_end: Mapping[str, float],
    ) -> None:
        self._reporter = reporter
        self._detections = detections
        self._detector_file = detector_file
        self._losses_file = losses_file
        self._losses = losses
        self._log_interval = log_interval
        self._at_the_end = at_the_end
        self._epoch, self._interval = _Mean(), _Mean()
        self._started = 0.0
        self._metrics: dict[str, float] = {}

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to take the time."""
        self._started = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a step's losses in."""
        self._epoch.add(outputs or {})
        self._interval.add(outputs or {})
        if self._interval.num_steps == self._log_interval:
            self._end_interval(runner.iter + 1)  # counted up after this hook

    def after_train_epoch(self, runner: Runner) -> None:
        """Take the epoch's means over its steps and over the ranks; report if that is all."""
        epoch = runner.epoch + 1  # counted up after this hook
        if self._interval.num_steps:
            self._end_interval(runner.iter)
        means = {f"train/{name}": value for name, value in self._epoch.take().items()}
        self._metrics = {"epoch": float(epoch), **means}
        if not all(map(math.isfinite, self._metrics.values())):
            raise ValueError(
                f"training diverged in epoch {epoch} (the loss is "
                f"{self._metrics['train/loss']}): lower detect.lr, or set a smaller "
                "detect.clip_norm."
            )
        self._metrics["train/lr"] = float(runner.optim_wrapper.get_lr()["lr"][0])
        self._metrics["train/epoch_s"] = time.perf_counter() - self._started
        loop = runner.train_loop
        is_evaluated = epoch >= loop.val_begin and (
            epoch % loop.val_interval == 0 or epoch == loop.max_epochs
        )
        if runner.val_loop is None or not is_evaluated:
            self._report(runner, epoch)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to take the evaluation's time."""
        self._started = time.perf_counter()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report an epoch that was evaluated."""
        found = {name: float(value) for name, value in (metrics or {}).items()}
        self._metrics.update(found)
        self._metrics["val/epoch_s"] = time.perf_counter() - self._started
        self._report(runner, runner.epoch)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave out MMEngine's log of scalars, so that tensors and plain values remain."""
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}

    def _end_interval(self, step: int) -> None:
        for name, value in self._interval.take().items():
            self._losses.setdefault(f"step/{name}", []).append((step, value))

    def _report(self, runner: Runner, epoch: int) -> None:
        is_last = epoch == runner.max_epochs
        if is_last:
            self._metrics.update(self._at_the_end)

        def save(folder: Path) -> None:
            runner.save_checkpoint(
                str(folder), TRAINING_FILE, meta={"epoch": epoch, "iter": runner.iter}
            )
            if is_last:
                saved = read_checkpoint(folder / TRAINING_FILE)
                torch.save(saved["state_dict"], folder / self._detector_file)
            (folder / self._losses_file).write_text(json.dumps(self._losses), encoding="utf-8")
            if self._detections.exists():
                shutil.copyfile(self._detections, folder / self._detections.name)

        self._reporter.report(self._metrics, save)
