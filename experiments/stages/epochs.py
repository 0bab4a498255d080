"""The training loop that the supernet and retrain stages share, with its checkpoint.

Everything random is a function of (seed, epoch) or (seed, step), so model, optimiser and the number
of the next step are the whole state: a run that was interrupted, between epochs or within one, ends
with the same weights, and has seen every image as often as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config.training import Recipe
from experiments.stages.worker_place import WEIGHTS
from nas.data import DataSplits
from nas.schedule import WarmupCosine
from nas.sync_batch_norm import synchronise_batch_norm
from nas.training import (
    EpochStats,
    Passes,
    build_optimizer,
    sum_over_ranks,
    train_epoch,
    world_size,
)
from orchestration.jobs.worker import WorkerContext

TRAINING_FILE = "training.pt"
# So many steps say how long one takes.
_STEPS_TO_TIME = 8


@dataclass
class EpochEnd:
    """What a stage adds to the end of an epoch: metrics, state to checkpoint, whether to stop."""

    metrics: dict[str, float] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    stop: bool = False


@dataclass
class Position:
    """How far a training is.

    Attributes:
        epoch: how many are done.
        num_steps: steps of the next one that are done.
        totals: its sums of loss, correct answers and images, over all ranks.
        train_s: seconds that it has taken.
        stopped: whether it is over before its last epoch.
        state: the stage's own, of the end of the last epoch.
    """

    epoch: int = 0
    num_steps: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    train_s: float = 0.0
    stopped: bool = False
    state: dict[str, Any] = field(default_factory=dict)


class CheckpointTimer:
    """When to save in the middle of an epoch: after the same step on every rank.

    Clocks differ, so rank 0's counts: after the first steps, and at each checkpoint, it tells the
    others how many steps fill the interval.

    Args:
        interval_s: seconds between checkpoints.
        device: where the ranks' messages come from.
    """

    def __init__(self, interval_s: float, device: str) -> None:
        self._interval_s, self._device = interval_s, device
        self._start_s = self._since_s = time.perf_counter()
        self._num_steps, self._next, self._has_timed = 0, _STEPS_TO_TIME, False

    def spent_s(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start_s

    def is_due(self) -> bool:
        """Asked after every step."""
        self._num_steps += 1
        if self._num_steps < self._next:
            return False
        now_s = time.perf_counter()
        step_s = (now_s - self._since_s) / self._num_steps
        steps = torch.tensor(self._interval_s / step_s, device=self._device)
        if world_size() > 1:
            torch.distributed.broadcast(steps, src=0)
        is_due = self._has_timed
        if is_due:
            self._num_steps, self._since_s = 0, now_s
        self._next, self._has_timed = max(self._num_steps + 1, int(steps)), True
        return is_due


class _Training:
    """A training under way, and how far it is; arguments as for `run_epochs`."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        context: WorkerContext,
        save_more: Callable[[Path], None],
    ) -> None:
        self.context, self.recipe = context, recipe
        if context.world_size > 1:
            network = synchronise_batch_norm(network, context.device)
        self.network = network.to(context.device).to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(
            network,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            decay_bn_and_bias=recipe.decay_bn_and_bias,
        )
        self.at = Position()
        self._save_more = save_more

    def restore(self) -> None:
        """Go on where the last checkpoint was saved, if there is one."""
        with self.context.restore() as folder:
            if folder is not None:
                saved = _load(folder / TRAINING_FILE, self.context.device)
                self.network.load_state_dict(_load(folder / WEIGHTS, self.context.device))
                self.optimizer.load_state_dict(saved["optimizer"])
                self.at = Position(**saved["position"])

    def save(self, folder: Path) -> None:
        """Fill the folder of a checkpoint."""
        weights = self.network.state_dict()
        for name, tensor in weights.items():  # a file for any machine
            weights[name] = tensor.cpu()
        torch.save(weights, folder / WEIGHTS)
        training = {"optimizer": self.optimizer.state_dict(), "position": vars(self.at)}
        torch.save(training, folder / TRAINING_FILE)
        self._save_more(folder)

    def train_epoch(
        self, data: DataSplits, schedule: WarmupCosine, passes: Passes, *, seed: int, timer_s: float
    ) -> tuple[EpochStats, float]:
        """The epoch that is next, or what is left of it; and the seconds that it has taken."""
        at, context, batch_size = self.at, self.context, self.recipe.batch_size
        steps_per_epoch = data.train.num_batches(batch_size, training=True)
        before_s, timer = at.train_s, CheckpointTimer(timer_s, context.device)

        def after_step(step: int, totals: Tensor) -> None:
            done = step - at.epoch * steps_per_epoch
            if timer.is_due() and done < steps_per_epoch:
                at.num_steps, at.train_s = done, before_s + timer.spent_s()
                at.totals = sum_over_ranks(totals.clone()).tolist()
                context.checkpoint_now(self.save)

        precision = self.recipe.precision
        # What all ranks have counted goes on with one of them.
        totals = torch.tensor(at.totals, dtype=torch.float64, device=context.device)
        stats = train_epoch(
            self.network,
            data.train.batches(
                batch_size,
                training=True,
                seed=seed,
                epoch=at.epoch + 1,
                rank=context.rank,
                world_size=context.world_size,
                start=at.num_steps,
            ),
            self.optimizer,
            schedule,
            first_step=at.epoch * steps_per_epoch + at.num_steps,
            totals=totals if context.rank == 0 else torch.zeros_like(totals),
            after_step=after_step,
            global_batch=batch_size if context.world_size > 1 else None,
            passes=passes,
            label_smoothing=self.recipe.label_smoothing,
            clip_norm=self.recipe.clip_norm,
            device=context.device,
            autocast=None if precision == "float32" else getattr(torch, precision),
        )
        return stats, before_s + timer.spent_s()


def run_epochs(
    network: nn.Module,
    recipe: Recipe,
    data: DataSplits,
    context: WorkerContext,
    *,
    seed: int,
    checkpoint_s: float,
    passes: Passes,
    epoch_end: Callable[[int], EpochEnd],
    restore_state: Callable[[dict[str, Any]], None] = lambda state: None,
    save_more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Train for `recipe.epochs` epochs, or until `epoch_end` says stop; resume where it was.

    `network` comes with its initial values and what is frozen already frozen. After each epoch
    `epoch_end(epoch)` is asked on every rank; its state is handed to `restore_state` on a resume.
    `save_more` writes a stage's own files into every checkpoint, on rank 0. An epoch that takes
    longer than `checkpoint_s` seconds is saved in its middle, too.
    """
    num_skipped = data.train.num_skipped + data.search_val.num_skipped
    steps_per_epoch = data.train.num_batches(recipe.batch_size, training=True)
    schedule = WarmupCosine.scaled(
        start=recipe.warmup_lr,
        peak=recipe.lr,
        batch_size=recipe.batch_size,
        warmup_epochs=recipe.warmup_epochs,
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
    )
    training = _Training(network, recipe, context, save_more)
    training.restore()
    if training.at.state:
        restore_state(training.at.state)
    while training.at.epoch < recipe.epochs and not training.at.stopped:
        epoch = training.at.epoch + 1
        stats, train_s = training.train_epoch(
            data, schedule, passes, seed=seed, timer_s=checkpoint_s
        )
        if not math.isfinite(stats.loss):
            raise ValueError(
                f"training diverged in epoch {epoch} (the loss is {stats.loss}): lower lr "
                f"({recipe.lr:g} for a batch of 1024), or set clip_norm."
            )
        end = epoch_end(epoch)
        training.at = Position(epoch=epoch, stopped=end.stop, state=end.state)
        metrics = {
            "epoch": float(epoch),
            "train/loss": stats.loss,
            "train/top1": stats.top1,
            "train/lr": schedule.at(epoch * steps_per_epoch - 1),
            "train/epoch_s": train_s,
            "data/num_skipped": float(num_skipped),
            **end.metrics,
        }
        context.report(metrics, training.save)


def load_network(path: Path, network: nn.Module, device: str) -> None:
    """Read the weights that `run_epochs` saved into `network`; a wrong key is an error."""
    network.load_state_dict(_load(path, device), strict=True)


def _load(path: Path, device: str) -> Any:
    return torch.load(path, map_location=device, weights_only=True)
