"""What `bnnas detect` makes: one detector, and where its backbone comes from.

The backbone is an architecture of a search space, pretrained by a `retrain` section of the same
file, by a `checkpoint`, or not at all; or, for the other rows of the paper's Table 3, a classifier
of torchvision.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, NonNegativeInt, model_validator

from experiments.config.cell import (
    ClusterConfig,
    DataConfig,
    RetrainConfig,
    StorageConfig,
    TrackingConfig,
)
from experiments.config.detect import DetectConfig
from experiments.config.section import Section, plain_name


class TorchvisionConfig(Section):
    """A classifier of torchvision; `weights` such as `IMAGENET1K_V1` are downloaded by workers."""

    name: str
    weights: str | None = None


class DetectionConfig(Section):
    """A detector.

    Attributes:
        name: what it is called.
        space: of the backbone, unless a stage as `checkpoint` says so.
        arch: likewise.
        checkpoint: weights of the backbone: the fingerprint of a retrain stage in the storage, or a
            file with the state dict of a retrained network.
        data: what `retrain` trains on.
        retrain: pretrains the backbone as a retrain stage.
        torchvision: a backbone that is not searched.
        seed: of everything that is random.
        detect: how the detector is trained.
    """

    name: Annotated[str, AfterValidator(plain_name)] = "detect"
    space: str | None = None
    arch: str | None = None
    checkpoint: str | None = None
    data: DataConfig | None = None
    retrain: RetrainConfig | None = None
    torchvision: TorchvisionConfig | None = None
    seed: NonNegativeInt = 0
    detect: DetectConfig
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _one_backbone(self) -> Self:
        searched = {
            "space": self.space,
            "arch": self.arch,
            "checkpoint": self.checkpoint,
            "data": self.data,
            "retrain": self.retrain,
        }
        given = [name for name, value in searched.items() if value is not None]
        if self.torchvision is not None and given:
            raise ValueError(
                f"torchvision names the backbone, so that {', '.join(given)} say nothing: leave "
                "out the one or the others"
            )
        if self.torchvision is None and self.checkpoint is None:
            absent = [name for name in ("space", "arch") if searched[name] is None]
            if absent:
                raise ValueError(
                    f"there is no backbone, because {' and '.join(absent)} "
                    f"{'is' if len(absent) == 1 else 'are'} missing: give space and arch, the "
                    "checkpoint of a retrain stage, or torchvision"
                )
        if (self.data is None) != (self.retrain is None):
            one, other = ("retrain", "data") if self.data is None else ("data", "retrain")
            raise ValueError(f"{one} is given without {other}: pretraining needs both")
        if self.retrain is not None and self.checkpoint is not None:
            raise ValueError(
                "the backbone's weights would come from retrain and from checkpoint: leave out one"
            )
        return self
