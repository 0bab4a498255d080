"""A training that depends on its config alone: not on interruptions, loaders or ranks.

MMDetection's augmentations draw from the global generators of whatever process loads an image: a
training that was interrupted, or that has another number of loaders or of ranks, sees other images.
Here the sampler puts the epoch into an index, and the data set seeds the generators for each image
by (seed, epoch, index). What the network itself draws is seeded for each epoch, and batch norm's
statistics are the same on every rank after it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """MMEngine's sampler, whose indices hold the epoch: index + epoch · length of the data set."""

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)
        return (first + index for index in super().__iter__())


@DATASETS.register_module()
class SeededCocoDataset(CocoDataset):
    """MMDetection's COCO data set for training, with augmentations drawn from (seed, epoch, index).

    An index below the data set's length belongs to epoch 0.

    Args:
        args: those of `CocoDataset`.
        seed: of the augmentations.
        kwargs: those of `CocoDataset`.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        self.seed = seed
        super().__init__(*args, **kwargs)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The image with its annotations, as the pipeline packs it."""
        epoch, index = divmod(int(idx), len(self))
        # mmcv draws from Python's and NumPy's global generators, which are put back afterwards.
        states = random.getstate(), np.random.get_state()  # noqa: NPY002
        words = np.random.SeedSequence((self.seed, epoch, index)).generate_state(2)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002
        try:
            return super().__getitem__(index)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds what the network itself draws, such as stochastic depth, by (seed, epoch, rank)."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed PyTorch's generators."""
        entropy = np.random.SeedSequence((runner.seed, runner.epoch, runner.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


@HOOKS.register_module()
class SyncStatisticsHook(Hook):
    """Means batch norm's running statistics over the ranks after every epoch.

    Without SyncBN, which PyTorch has on GPUs only, every rank gathers those of its own images, and
    would be evaluated with them. The moving average of the weights has its own, which MMEngine's
    `SyncBuffersHook` leaves alone. Where they are synchronised already, nothing changes.
    """

    priority = "LOW"  # after EMAHook has taken the last step in

    def after_train_epoch(self, runner: Runner) -> None:
        """Mean all buffers of real numbers."""
        if not runner.distributed:
            return
        networks = [runner.model, *(h.ema_model for h in runner.hooks if isinstance(h, EMAHook))]
        buffers = [buffer for network in networks for buffer in network.buffers()]
        all_reduce_params([buffer for buffer in buffers if buffer.is_floating_point()], op="mean")
