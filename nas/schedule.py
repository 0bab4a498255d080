"""The learning rate as a pure function of the step (paper, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

REFERENCE_BATCH = 1024  # the batch that the paper's learning rates are for


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then cosine annealing to 0.

    `start` rises linearly to `peak` over `warmup_steps`, then falls as half a cosine, and would
    reach 0 at `num_steps`. The paper: 0.2 to 0.8 over 5 epochs at batch 1024.
    """

    start: float
    peak: float
    warmup_steps: int
    num_steps: int

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.num_steps:
            raise ValueError(
                f"the warm-up takes {self.warmup_steps} steps of {self.num_steps}: it must be "
                f"shorter than the training."
            )

    @classmethod
    def scaled(
        cls,
        *,
        start: float,
        peak: float,
        batch_size: int,
        warmup_epochs: float,
        epochs: int,
        steps_per_epoch: int,
    ) -> WarmupCosine:
        """The schedule for rates that are given for a batch of 1024, scaled with the batch."""
        scale = batch_size / REFERENCE_BATCH
        return cls(
            start=start * scale,
            peak=peak * scale,
            warmup_steps=round(warmup_epochs * steps_per_epoch),
            num_steps=epochs * steps_per_epoch,
        )

    def at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
        return self.peak * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
