"""MMEngine's Runner under a job's direction: epoch by epoch, with resumption.

The runner trains and evaluates as it always does. After every epoch, and after the evaluation where
one is due, :class:`ReportHook` hands the metrics and a checkpoint to a reporter, in a Ray Train job
the worker's context; a training that is resumed from the last of them ends with the same weights as
one that was never interrupted.
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

from detection import DETECTIONS_FILE, DETECTOR_FILE, LOSSES_FILE
from detection.weights import read_checkpoint

TRAINING_FILE = "training.pth"  # all that a resumption needs

Losses = dict[str, list[tuple[int, float]]]


class Reporter(Protocol):
    """Receives every epoch, and knows what an earlier attempt has reached.

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
    log_interval: int = 50,
    final_metrics: Mapping[str, float] | None = None,
) -> None:
    """Train and evaluate what a config describes, from wherever an earlier attempt has got to.

    Every epoch reports `train/loss` and its parts, `train/lr` and `train/epoch_s`; one with an
    evaluation also `coco/bbox_mAP` and its siblings. Its checkpoint holds `TRAINING_FILE`;
    `LOSSES_FILE`, the mean losses of every interval so far, ``step/loss`` and its parts →
    [optimiser step, value]; since the first evaluation `DETECTIONS_FILE`; and the last one holds
    `DETECTOR_FILE`, of the moving average of the weights where there is one.

    Args:
        config: of MMEngine's Runner; it stays as it is. Its own checkpoints and logs are turned
            off.
        reporter: of this process.
        log_interval: optimiser steps that are meaned in `LOSSES_FILE`; an epoch's last interval may
            be shorter.
        final_metrics: what the last epoch reports beside its own numbers.

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
        config.val_evaluator.results_file = str(work_dir / DETECTIONS_FILE)
        losses: Losses = {}
        with reporter.restore() as checkpoint:
            if checkpoint is not None:
                losses = json.loads((checkpoint / LOSSES_FILE).read_text(encoding="utf-8"))
                for name in (TRAINING_FILE, DETECTIONS_FILE):
                    if (checkpoint / name).exists():
                        shutil.copyfile(checkpoint / name, work_dir / name)
                read_checkpoint(work_dir / TRAINING_FILE)  # before MMEngine, which trusts it
                config.update(resume=True, load_from=str(work_dir / TRAINING_FILE))
        runner = Runner.from_cfg(config)
        runner.register_hook(
            ReportHook(reporter, work_dir, losses, log_interval, final_metrics or {})
        )
        runner.train()
        # End the processes that load images. When the garbage collector comes upon them later, it
        # closes their queues first, and PyTorch waits five seconds for each of them.
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader._iterator = None


class ReportHook(Hook):
    """Hands every epoch to a reporter; see `train_detector`.

    Args:
        reporter: of this process.
        work_dir: where the evaluation writes `DETECTIONS_FILE`.
        losses: those of an earlier attempt.
        log_interval: optimiser steps.
        final_metrics: what the last epoch reports beside its own numbers.
    """

    priority = "LOWEST"  # the moving average is back in its place, the schedule has stepped

    def __init__(
        self,
        reporter: Reporter,
        work_dir: Path,
        losses: Losses,
        log_interval: int,
        final_metrics: Mapping[str, float],
    ) -> None:
        self._reporter = reporter
        self._work_dir = work_dir
        self._losses = losses
        self._log_interval = log_interval
        self._final_metrics = final_metrics
        self._started = 0.0
        self._metrics: dict[str, float] = {}

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Mean the losses of an interval."""
        if (batch_idx + 1) % self._log_interval == 0:
            self._end_interval(runner, runner.iter + 1, self._log_interval)  # iter: counted later

    def after_train_epoch(self, runner: Runner) -> None:
        """Mean the losses of the epoch; report, unless an evaluation comes first."""
        epoch = runner.epoch + 1  # counted up after this hook
        num_steps = len(runner.train_dataloader)
        if rest := num_steps % self._log_interval:
            self._end_interval(runner, runner.iter, rest)
        self._metrics = {"epoch": float(epoch), **_mean_losses(runner, num_steps)}
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
        """Start the clock."""
        self._started = time.perf_counter()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Report an epoch that was evaluated."""
        self._metrics |= {name: float(value) for name, value in (metrics or {}).items()}
        self._metrics["val/epoch_s"] = time.perf_counter() - self._started
        self._report(runner, runner.epoch)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave out MMEngine's log of scalars, so that tensors and plain values remain."""
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}

    def _end_interval(self, runner: Runner, step: int, num_steps: int) -> None:
        for name, value in _mean_losses(runner, num_steps).items():
            self._losses.setdefault(name.replace("train/", "step/"), []).append((step, value))

    def _report(self, runner: Runner, epoch: int) -> None:
        is_last = epoch == runner.max_epochs
        if is_last:
            self._metrics.update(self._final_metrics)

        def save(folder: Path) -> None:
            # MMEngine would format the config into every checkpoint, 0.2 s each.
            config, runner.cfg = runner.cfg, Config()
            runner.save_checkpoint(
                str(folder), TRAINING_FILE, meta={"epoch": epoch, "iter": runner.iter}
            )
            runner.cfg = config
            if is_last:
                saved = read_checkpoint(folder / TRAINING_FILE)
                torch.save(saved["state_dict"], folder / DETECTOR_FILE)
            (folder / LOSSES_FILE).write_text(json.dumps(self._losses), encoding="utf-8")
            if (self._work_dir / DETECTIONS_FILE).exists():
                shutil.copyfile(self._work_dir / DETECTIONS_FILE, folder / DETECTIONS_FILE)

        self._reporter.report(self._metrics, save)


def _mean_losses(runner: Runner, num_steps: int) -> dict[str, float]:
    """`train/loss` and its parts: means over the last steps, as MMEngine logs them, and all ranks.

    MMEngine's log is of this process, and an epoch's steps are always in it.
    """
    means = {}
    for name, log in sorted(runner.message_hub.log_scalars.items()):
        if name.startswith("train/") and "loss" in name:
            mean = torch.tensor(log.mean(num_steps), dtype=torch.float64)
            all_reduce(mean, op="mean")
            means[name] = mean.item()
    return means
