"""The `supernet` and `retrain` sections: how networks are trained.

The defaults are the paper's (section 4.1).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from experiments.config.section import Section, one_of
from nas.sampling import SAMPLERS

Trainable = Literal["all", "bn", "last_bn"]


class Recipe(Section):
    """How a network is trained. Learning rates are for a batch of 1024 and scale with the batch."""

    epochs: PositiveInt = Field(description="Epochs of training.")
    batch_size: PositiveInt = Field(1024, description="Images in a step, of all workers together.")
    lr: PositiveFloat = Field(0.8, description="Peak learning rate for a batch of 1024.")
    warmup_lr: Annotated[float, Field(ge=0)] = Field(
        0.2, description="Learning rate at the start, for a batch of 1024."
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        5.0, description="Epochs in which it rises to `lr`; then it falls to 0 as a cosine."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="Of SGD with Nesterov's momentum."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="L2 penalty.")
    decay_bn_and_bias: bool = Field(
        False, description="Whether batch norm and biases decay, as in the authors' released code."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the target that all classes have in common."
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="Largest norm of the gradient; null for any."
    )
    gamma_init: PositiveFloat = Field(1.0, description="Initial γ of each block's last batch norm.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the forward pass: float32, or bfloat16 by autocast."
    )

    @model_validator(mode="after")
    def _warm_up_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g}, which must be less than epochs "
                f"({self.epochs})"
            )
        return self


class EarlyBirdConfig(Section):
    """When the supernet's rank vector counts as stable (section 3.4.1)."""

    window: PositiveInt = Field(5, description="Epochs that it is compared with.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Distance to each of them, as a share of the largest possible one."
    )


class SupernetConfig(Recipe):
    """Supernet training: what trains, which paths, and whether it may stop early."""

    trainable: Trainable = Field(
        "bn",
        description="What trains: all, bn (every batch norm: the paper), last_bn (each block's "
        "last one: the authors' released code).",
    )
    sampler: Annotated[str, one_of("sampler", tuple(SAMPLERS))] = Field(
        "uniform", description="Paths of a step: uniform (one), fair (strict fairness)."
    )
    early_bird: EarlyBirdConfig | None = Field(
        None, description="Stop when the ranks are stable; null for all epochs."
    )


class RetrainConfig(Recipe):
    """Training of the found architecture, and of the random baseline, from scratch."""

    epochs: PositiveInt = Field(240, description="Epochs of training.")
