"""What is asked for: one cell, a sweep of cells, a correlation study, or a detector.

`experiments.config.load` reads it. `experiments.plan.decides` classifies every field: either it
decides a stage's result and is part of its fingerprint, or it cannot and is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from experiments.config.data import DataConfig
from experiments.config.detect import DetectConfig, TorchvisionConfig
from experiments.config.places import ClusterConfig, StorageConfig, TrackingConfig
from experiments.config.search import CorrelateConfig, RandomBaselineConfig, SearchConfig
from experiments.config.section import Section, plain_name
from experiments.config.training import RetrainConfig, SupernetConfig

Kind = Literal["run", "sweep", "correlate", "detect"]


class CellConfig(Section):
    """A cell of supernet, search and retraining, and the random baseline.

    With `detect`, it ends in a detector whose backbone is the network that was found.
    """

    name: Annotated[str, AfterValidator(plain_name)] = Field(
        description="What the experiment is called, in MLflow and in file names."
    )
    space: str = Field(description="Search space: a built-in one, or a YAML file.")
    seed: NonNegativeInt = Field(0, description="Of everything that is random.")
    data: DataConfig = Field(description="Which images.")
    supernet: SupernetConfig = Field(description="Training of the supernet.")
    search: SearchConfig = Field(
        SearchConfig(), description="What ranks, what looks, and the budgets."
    )
    retrain: RetrainConfig = Field(
        RetrainConfig(), description="Training of what is found, from scratch."
    )
    random_baseline: RandomBaselineConfig = Field(
        RandomBaselineConfig(), description="Random architectures, retrained."
    )
    correlate: CorrelateConfig = Field(
        CorrelateConfig(), description="What a correlation study compares."
    )
    detect: DetectConfig | None = Field(
        None, description="A detector on the network that is found."
    )
    storage: StorageConfig = Field(StorageConfig(), description="Where results lie.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where they are shown.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where it runs.")


class DetectorConfig(Section):
    """A detector, and where its backbone comes from.

    The backbone is an architecture of a search space, pretrained by a `retrain` section of the same
    file, by a `checkpoint`, or not at all; or, for the other rows of the paper's Table 3, a
    classifier of torchvision.
    """

    name: Annotated[str, AfterValidator(plain_name)] = Field(
        "detect", description="What the detector is called, in MLflow and in file names."
    )
    space: str | None = Field(
        None, description="Of the backbone, unless a stage as `checkpoint` says so."
    )
    arch: str | None = Field(None, description="Of the backbone, likewise.")
    checkpoint: str | None = Field(
        None,
        description="Weights of the backbone: the fingerprint of a retrain stage in the storage, "
        "or a file with the state dict of a retrained network.",
    )
    data: DataConfig | None = Field(None, description="What `retrain` trains on.")
    retrain: RetrainConfig | None = Field(
        None, description="Pretrains the backbone as a retrain stage."
    )
    torchvision: TorchvisionConfig | None = Field(
        None, description="A backbone that is not searched."
    )
    seed: NonNegativeInt = Field(0, description="Of everything that is random.")
    detect: DetectConfig = Field(description="How the detector is trained.")
    storage: StorageConfig = Field(StorageConfig(), description="Where results lie.")
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where they are shown.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where it runs.")

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


AnyConfig = CellConfig | DetectorConfig


@dataclass(frozen=True)
class Experiment:
    """What a config file asks for.

    Attributes:
        kind: what it is.
        name: what it is called; the cells of a sweep have names of their own.
        cells: of a run one; of a sweep the points of its grid, for every seed; of a correlation
            study one for every seed; of a detector none.
        detector: of a detector.
        axes: of a sweep, config path → values.
    """

    kind: Kind
    name: str
    cells: tuple[CellConfig, ...] = ()
    detector: DetectorConfig | None = None
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def shared(self) -> AnyConfig:
        """A config for the sections that all cells share: storage, tracking, cluster, …"""
        return self.detector if self.detector is not None else self.cells[0]

    @property
    def is_study(self) -> bool:
        """Whether it is a correlation study."""
        return self.kind == "correlate"

    @property
    def storage(self) -> StorageConfig:
        """Where results lie."""
        return self.shared.storage

    @property
    def tracking(self) -> TrackingConfig:
        """Where they are shown."""
        return self.shared.tracking
