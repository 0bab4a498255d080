"""What an experiment is: a YAML file read into frozen, validated values.

An unknown key, a wrong type or an impossible combination is one sentence that names the field,
before any cluster is touched. The defaults of the training recipe are the paper's (section 4.1).
Every field is classified in `experiments.plan`: either it decides a stage's result and is part of
the stage's fingerprint, or it cannot and is not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from nas.data import DATASETS
from nas.indicators import INDICATORS
from nas.sampling import SAMPLERS
from nas.search import SEARCHERS, check_indicator


class ConfigError(ValueError):
    """The request is wrong; the message says which field, what was given and what is expected."""


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


def _plain_name(name: str) -> str:
    """A name that can be part of a path."""
    if not re.fullmatch(r"[^./\\\s][^/\\]*", name):
        raise ValueError(
            "must have at least 1 character, no slashes, and no dot or space at the beginning"
        )
    return name


Count = Annotated[PositiveFloat, BeforeValidator(_with_suffix)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
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


class Recipe(_Section):
    """How a network is trained. Learning rates are for a batch of 1024 and scale with the batch."""

    epochs: PositiveInt
    batch_size: PositiveInt = 1024
    lr: PositiveFloat = 0.8
    warmup_lr: Annotated[float, Field(ge=0)] = 0.2
    warmup_epochs: NonNegativeInt = 5
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
                f"warmup_epochs is {self.warmup_epochs}, which must be less than epochs "
                f"({self.epochs})"
            )
        return self


class EarlyBirdConfig(_Section):
    """When the supernet's rank vector counts as stable (section 3.4.1)."""

    window: PositiveInt = 5
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1


class SupernetConfig(Recipe):
    """Supernet training: what trains, which paths, and whether it may stop early."""

    trainable: Literal["all", "bn", "last_bn"] = "bn"
    sampler: Annotated[str, _one_of("sampler", tuple(SAMPLERS))] = "uniform"
    early_bird: EarlyBirdConfig | None = None


class EvolutionConfig(_Section):
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


class SearchConfig(_Section):
    """What ranks architectures, what looks for the best one, and the budgets it has to keep."""

    indicator: Annotated[str, _one_of("indicator", tuple(INDICATORS))] = "bn"
    searcher: Annotated[str, _one_of("searcher", tuple(SEARCHERS))] = "exact"
    max_flops: Count | None = None
    min_flops: Count | None = None
    max_params: Count | None = None
    top_k: PositiveInt = 10
    evolution: EvolutionConfig = EvolutionConfig()
    recalibration_images: PositiveInt = 25_600
    batch_size: PositiveInt = 256

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


class RandomBaselineConfig(_Section):
    """Random legal architectures, retrained; the best of them is the baseline (section 4.5.1)."""

    num_architectures: NonNegativeInt = 5


class StorageConfig(_Section):
    """Where stage results lie: a local folder, NFS, or a URI that pyarrow understands."""

    path: str = "bnnas-runs"


class TrackingConfig(_Section):
    """MLflow. Without a `uri`: MLFLOW_TRACKING_URI, else an SQLite file beside the results."""

    uri: str | None = None
    experiment: str = "bnnas"


class ClusterConfig(_Section):
    """The Ray cluster. Without an `address`: RAY_ADDRESS, else a local one on this machine."""

    address: str | None = None
    num_workers: PositiveInt = 1
    use_gpu: bool = False
    cpus_per_worker: PositiveFloat = 1.0
    max_failures: NonNegativeInt = 3


class Config(_Section):
    """One experiment: a cell of supernet, search and retraining, and the random baseline."""

    name: Annotated[str, AfterValidator(_plain_name)]
    space: str
    seed: NonNegativeInt = 0
    data: DataConfig
    supernet: SupernetConfig
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    random_baseline: RandomBaselineConfig = RandomBaselineConfig()
    storage: StorageConfig = StorageConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `key.path=value` overrides, and validate.

    A `space` that is a path is taken relative to the file. Raises ConfigError with one sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no config file {str(path)!r}: give the path of a YAML file.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({problem}).") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys such as space and data, got {type(data).__name__}."
        )
    for override in overrides:
        _apply_override(data, override)
    space = data.get("space")
    if isinstance(space, str) and (path.parent / space).is_file():
        data["space"] = str(path.parent / space)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {override!r}: expected key=value, such as --set supernet.epochs=30."
        )
    *sections, last = key.split(".")
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        if not isinstance(data[section], dict):
            raise ConfigError(
                f"--set {override!r}: {section!r} is a value and not a section, "
                f"so that {key!r} is no field of the config."
            )
        # A copy, because two sections that share a YAML anchor are one object.
        data[section] = dict(data[section])
        data = data[section]
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value.") from error


def _explain(error: ValidationError) -> str:
    """All problems in one sentence: the field, what was given, what is expected."""
    text = "; ".join(_explain_one(problem) for problem in error.errors())
    return text if text.endswith("?") else f"{text}."


def _explain_one(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "the config"
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "extra_forbidden":
        known = list(_section_at(problem["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the known keys are {', '.join(known)}"
        return f"{field} is an unknown key: {hint}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if isinstance(problem["input"], dict | BaseModel):
        return f"{field}: {message[:1].lower()}{message[1:]}"
    return f"{field} is {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Config
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(
            option
            for option in options
            if isinstance(option, type) and issubclass(option, BaseModel)
        )
    return section
