"""What an experiment is: a YAML file read into frozen, validated values.

`experiments.config.load` reads it, `experiments.config.sweep` makes a grid of it. The defaults of
the training recipe are the paper's (section 4.1). `experiments.plan.decides` classifies every
field: either it decides a stage's result and is part of its fingerprint, or it cannot and is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from experiments.config.correlate import CorrelateConfig
from experiments.config.detect import DetectConfig
from experiments.config.section import Section, plain_name
from nas.data import DATASETS
from nas.indicators import INDICATORS
from nas.sampling import SAMPLERS
from nas.search import SEARCHERS, check_indicator

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def _with_suffix(value: Any) -> Any:
    """Read `475M` as 475 000 000; leave everything else to the type."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kKmMgGbB])\s*", value)
        if match:
            return float(match[1]) * _SUFFIXES[match[2].lower()]
    return value


def _one_of(what: str, known: Sequence[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {what}: the known ones are {', '.join(known)}")
        return name

    return AfterValidator(check)


def _num_workers(value: Any) -> int | tuple[int, int]:
    """A number, or the least and the most."""
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    are_counts = len(pair) == 2 and all(type(number) is int for number in pair)
    if not are_counts or not 1 <= pair[0] <= pair[1]:
        raise ValueError("expected a number of at least 1, or [least, most] for elastic jobs")
    return pair[0] if pair is not value else (pair[0], pair[1])


Count = Annotated[PositiveFloat, BeforeValidator(_with_suffix)]
Trainable = Literal["all", "bn", "last_bn"]
IndicatorName = Annotated[str, _one_of("indicator", tuple(INDICATORS))]
NumWorkers = Annotated[int | tuple[int, int], PlainValidator(_num_workers)]


class DataConfig(Section):
    """Which images; `root` and `num_workers` are places and speeds, the rest decides results."""

    name: Annotated[str, _one_of("data set", tuple(DATASETS))]
    root: str | None = None
    resolution: PositiveInt | None = None
    search_val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    augment: bool = True
    max_train_images: PositiveInt | None = None
    split_seed: NonNegativeInt = 0
    skip_unreadable: bool = False
    num_workers: NonNegativeInt = 0


class Recipe(Section):
    """How a network is trained. Learning rates are for a batch of 1024 and scale with the batch."""

    epochs: PositiveInt
    batch_size: PositiveInt = 1024
    lr: PositiveFloat = 0.8
    warmup_lr: Annotated[float, Field(ge=0)] = 0.2
    warmup_epochs: Annotated[float, Field(ge=0)] = 5.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_bn_and_bias: bool = False
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_norm: PositiveFloat | None = None
    gamma_init: PositiveFloat = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"

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

    window: PositiveInt = 5
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1


class SupernetConfig(Recipe):
    """Supernet training: what trains, which paths, and whether it may stop early."""

    trainable: Trainable = "bn"
    sampler: Annotated[str, _one_of("sampler", tuple(SAMPLERS))] = "uniform"
    early_bird: EarlyBirdConfig | None = None


class EvolutionConfig(Section):
    """The evolutionary search of SPOS, as the paper uses it: 20 × 50 candidates.

    Random search takes its number of candidates from here too, so that both evaluate as many.
    """

    num_iterations: PositiveInt = 20
    population: PositiveInt = 50
    num_parents: PositiveInt = 10
    num_mutations: NonNegativeInt = 25
    num_crossovers: NonNegativeInt = 25
    mutation_prob: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _children_fit(self) -> Self:
        if self.num_mutations + self.num_crossovers > self.population:
            raise ValueError(
                f"num_mutations ({self.num_mutations}) and num_crossovers "
                f"({self.num_crossovers}) must be no more than the population "
                f"({self.population}) together"
            )
        return self


class SearchConfig(Section):
    """What ranks architectures, what looks for the best one, and the budgets it has to keep.

    Without a `searcher`: exact search where the indicator is a sum over layers, else evolution.
    """

    indicator: IndicatorName = "bn"
    searcher: Annotated[str, _one_of("searcher", tuple(SEARCHERS))] = "exact"
    max_flops: Count | None = None
    min_flops: Count | None = None
    max_params: Count | None = None
    top_k: PositiveInt = 10
    evolution: EvolutionConfig = EvolutionConfig()
    recalibration_images: PositiveInt = 25_600
    batch_size: PositiveInt = 256

    @model_validator(mode="before")
    @classmethod
    def _with_searcher(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("searcher") is None:
            indicator = INDICATORS.get(str(values.get("indicator", "bn")))
            additive = indicator is None or indicator.additive
            return {**values, "searcher": "exact" if additive else "evolution"}
        return values

    @model_validator(mode="after")
    def _searcher_fits_indicator(self) -> Self:
        check_indicator(self.searcher, self.indicator, additive=INDICATORS[self.indicator].additive)
        if self.min_flops and self.max_flops and self.min_flops > self.max_flops:
            raise ValueError(
                f"min_flops ({self.min_flops:g}) is above max_flops ({self.max_flops:g})"
            )
        return self


class RetrainConfig(Recipe):
    """Training of the found architecture, and of the random baseline, from scratch."""

    epochs: PositiveInt = 240


class RandomBaselineConfig(Section):
    """Random legal architectures, retrained; the best of them is the baseline (section 4.5.1)."""

    num_architectures: NonNegativeInt = 5


class StorageConfig(Section):
    """Where stage results lie: a local folder, NFS, or a URI that pyarrow understands."""

    path: str = "bnnas-runs"


class TrackingConfig(Section):
    """MLflow. Without a `uri`: MLFLOW_TRACKING_URI, else an SQLite file beside the results."""

    uri: str | None = None
    experiment: str = "bnnas"


class ClusterConfig(Section):
    """The Ray cluster. Without an `address`: RAY_ADDRESS, else a local one on this machine.

    `num_workers` is that of every job: a number, or `[least, most]` for jobs that shrink and grow
    with the cluster. `max_failures` is how often a job, or the process that drives a cell, is
    started again.
    """

    address: str | None = None
    num_workers: NumWorkers = 1
    use_gpu: bool = False
    cpus_per_worker: PositiveFloat = 1.0
    max_failures: NonNegativeInt = 3


class Config(Section):
    """One experiment: a cell of supernet, search and retraining, and the random baseline.

    With `detect`, it ends in a detector whose backbone is the network that was found.
    """

    name: Annotated[str, AfterValidator(plain_name)]
    space: str
    seed: NonNegativeInt = 0
    data: DataConfig
    supernet: SupernetConfig
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    random_baseline: RandomBaselineConfig = RandomBaselineConfig()
    correlate: CorrelateConfig = CorrelateConfig()
    detect: DetectConfig | None = None
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()
