"""What the recipe adds to MMEngine's training loop."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds what the network itself draws, such as stochastic depth, by (seed, epoch, rank).

    So it does not matter whether the epochs before were run in this process.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed PyTorch's generators."""
        entropy = np.random.SeedSequence((runner.seed, runner.epoch, runner.rank))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


@HOOKS.register_module()
class SyncStatisticsHook(Hook):
    """Means batch norm's running statistics over the ranks after every epoch.

    Without SyncBN, which PyTorch has on GPUs only, every rank gathers those of its own images, and
    would be evaluated with them. The moving average of the weights has its own. Where they are
    synchronised already, nothing changes.
    """

    priority = "LOW"  # after EMAHook has taken the last step in

    def after_train_epoch(self, runner: Runner) -> None:
        """Mean all buffers of real numbers."""
        if not runner.distributed:
            return
        networks = [runner.model, *(h.ema_model for h in runner.hooks if isinstance(h, EMAHook))]
        buffers = [buffer for network in networks for buffer in network.buffers()]
        all_reduce_params([buffer for buffer in buffers if buffer.is_floating_point()], op="mean")
