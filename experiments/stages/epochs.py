"""The training loop that the supernet and retrain stages share, with its checkpoint.

Everything random is a function of (seed, epoch) or (seed, step), so model, optimiser and epoch
number are the whole state: a run that was interrupted ends with the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.training import Recipe
from experiments.stages.worker_place import WEIGHTS
from nas.data import DataSplits
from nas.schedule import WarmupCosine
from nas.sync_batch_norm import synchronise_batch_norm
from nas.training import Passes, build_optimizer, train_epoch
from orchestration.jobs.worker import WorkerContext

TRAINING_FILE = "training.pt"


@dataclass
class EpochEnd:
    """What a stage adds to the end of an epoch: metrics, state to checkpoint, whether to stop."""

    metrics: dict[str, float] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    stop: bool = False


def run_epochs(
    network: nn.Module,
    recipe: Recipe,
    data: DataSplits,
    context: WorkerContext,
    *,
    seed: int,
    passes: Passes,
    epoch_end: Callable[[int], EpochEnd],
    restore_state: Callable[[dict[str, Any]], None] = lambda state: None,
    save_more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Train for `recipe.epochs` epochs, or until `epoch_end` says stop; resume where it was.

    `network` comes with its initial values and what is frozen already frozen. After each epoch
    `epoch_end(epoch)` is asked on every rank; its state is handed to `restore_state` on a resume.
    `save_more` writes a stage's own files into every checkpoint, on rank 0.
    """
    batch_size = recipe.batch_size
    num_skipped = data.train.num_skipped + data.search_val.num_skipped
    steps_per_epoch = data.train.num_batches(batch_size, training=True)
    schedule = WarmupCosine.scaled(
        start=recipe.warmup_lr,
        peak=recipe.lr,
        batch_size=batch_size,
        warmup_epochs=recipe.warmup_epochs,
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
    )
    if context.world_size > 1:
        network = synchronise_batch_norm(network, context.device)
    network.to(context.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(
        network,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decay_bn_and_bias=recipe.decay_bn_and_bias,
    )
    autocast = None if recipe.precision == "float32" else getattr(torch, recipe.precision)
    first_epoch, stopped = 1, False
    with context.restore() as folder:
        if folder is not None:
            saved = _load(folder / TRAINING_FILE, context.device)
            network.load_state_dict(_load(folder / WEIGHTS, context.device))
            optimizer.load_state_dict(saved["optimizer"])
            first_epoch, stopped = saved["epoch"] + 1, saved["stopped"]
            restore_state(saved["state"])
    for epoch in range(first_epoch, recipe.epochs + 1):
        if stopped:
            return
        start_s = time.perf_counter()
        stats = train_epoch(
            network,
            data.train.batches(
                batch_size,
                training=True,
                seed=seed,
                epoch=epoch,
                rank=context.rank,
                world_size=context.world_size,
            ),
            optimizer,
            schedule,
            first_step=(epoch - 1) * steps_per_epoch,
            global_batch=batch_size if context.world_size > 1 else None,
            passes=passes,
            label_smoothing=recipe.label_smoothing,
            clip_norm=recipe.clip_norm,
            device=context.device,
            autocast=autocast,
        )
        train_s = time.perf_counter() - start_s
        if not math.isfinite(stats.loss):
            raise ValueError(
                f"training diverged in epoch {epoch} (the loss is {stats.loss}): lower lr "
                f"({recipe.lr:g} for a batch of 1024), or set clip_norm."
            )
        end = epoch_end(epoch)
        stopped = end.stop
        metrics = {
            "epoch": float(epoch),
            "train/loss": stats.loss,
            "train/top1": stats.top1,
            "train/lr": schedule.at(epoch * steps_per_epoch - 1),
            "train/epoch_s": train_s,
            "data/num_skipped": float(num_skipped),
            **end.metrics,
        }
        training = {
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "stopped": stopped,
            "state": end.state,
        }

        def save(folder: Path, training: dict[str, Any] = training) -> None:
            weights = network.state_dict()
            for name, tensor in weights.items():  # a file for any machine
                weights[name] = tensor.cpu()
            torch.save(weights, folder / WEIGHTS)
            torch.save(training, folder / TRAINING_FILE)
            save_more(folder)

        context.report(metrics, save)


def load_network(path: Path, network: nn.Module, device: str) -> None:
    """Read the weights that `run_epochs` saved into `network`; a wrong key is an error."""
    network.load_state_dict(_load(path, device), strict=True)


def _load(path: Path, device: str) -> Any:
    return torch.load(path, map_location=device, weights_only=True)
