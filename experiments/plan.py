"""From a config to stages: what has to be made, and what decides each result.

A stage's config holds every field that can change its result, and nothing else, so that two
experiments that agree in those fields share the stage. `FIELDS` classifies every field of the
config; a test fails when a new one is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.budgets import budgets
from experiments.coco.data import data_identity
from experiments.config import Config, DataConfig, RetrainConfig
from experiments.detectors.detect_config import DetectConfig
from experiments.workbench import scaling
from nas.data import ImageSpec, MissingDataError, describe_data
from nas.indicators import INDICATORS
from nas.search import draw_legal, exact_search
from nas.space import Architecture, SearchSpace, format_architecture, load_space
from nas.taps import select_taps
from orchestration.scaling import Scaling
from orchestration.stage import Stage

# Raise a number when the code of that stage changes what the same config gives.
CODE_VERSIONS = {"supernet": 1, "search": 2, "retrain": 2, "detect": 1, "score": 1}

# A prime apart, so that the random baseline's draw is not the searcher's or a sampler's.
_BASELINE_SEED_OFFSET = 7919

StageKind = Literal["supernet", "search", "retrain", "detect", "score"]
_IMAGES: frozenset[StageKind] = frozenset({"supernet", "search", "retrain", "score"})
_NETWORK: frozenset[StageKind] = _IMAGES | {"detect"}
_NONE: frozenset[StageKind] = frozenset()

# Field → the stages whose result it can change. A section stands for all of its fields. Search
# reads images only with an indicator that does; `data.root` decides only for `imagefolder`, whose
# content nothing but its place names.
FIELDS: dict[str, frozenset[StageKind]] = {
    "space": _NETWORK,
    "seed": _NETWORK,
    "data.name": _IMAGES,
    "data.root": _IMAGES,
    "data.resolution": _NETWORK,
    "data.search_val_fraction": _IMAGES,
    "data.augment": _IMAGES,
    "data.max_train_images": _IMAGES,
    "data.split_seed": _IMAGES,
    "data.skip_unreadable": _IMAGES,
    "supernet": frozenset({"supernet"}),
    "search.indicator": frozenset({"search"}),
    "search.searcher": frozenset({"search"}),
    "search.max_flops": frozenset({"search"}),
    "search.min_flops": frozenset({"search"}),
    "search.max_params": frozenset({"search"}),
    "search.top_k": frozenset({"search"}),
    "search.evolution": frozenset({"search"}),
    "search.recalibration_images": frozenset({"search", "score"}),
    "search.batch_size": frozenset({"search", "score"}),
    "retrain": frozenset({"retrain"}),
    "detect": frozenset({"detect"}),  # but for `_DETECT_PLACES`
    # These say which architectures are retrained, and change none of their results.
    "random_baseline": _NONE,
    "correlate": _NONE,
    "name": _NONE,
    "data.num_workers": _NONE,
    "storage": _NONE,
    "tracking": _NONE,
    "cluster": _NONE,
}


# Of the detect section: speeds and what is shown, and the data, which is known by its content.
_DETECT_PLACES = {"num_workers", "log_interval", "num_images_shown", "data"}


@dataclass(frozen=True)
class CellPlan:
    """The stages of one cell; the retrain stage follows from the search's result."""

    config: Config
    space: SearchSpace
    baseline_archs: tuple[Architecture, ...]
    supernet: Stage | None
    search: Stage

    def retrain(self, arch: Architecture) -> Stage:
        """The retraining of one architecture, found by whatever means."""
        config = self.config
        return retrain_stage(self.space, arch, config.data, config.retrain, config.seed)

    def score(self, indicator: str, archs: Sequence[Architecture]) -> Stage:
        """What an indicator that is not additive says of given architectures."""
        search = self.config.search
        needs = INDICATORS[indicator].needs_supernet and self.supernet is not None
        config = {
            **_common(self.space, self.config.seed),
            "data": _data(self.config.data),
            "search": {
                "indicator": indicator,
                "recalibration_images": search.recalibration_images,
                "batch_size": search.batch_size,
            },
            "archs": [format_architecture(arch) for arch in archs],
        }
        inputs = {"supernet": self.supernet.fingerprint} if needs and self.supernet else {}
        return _stage("score", config, inputs=inputs, name=f"score {indicator}")

    def detect(self, arch: Architecture) -> Stage | None:
        """The detector whose backbone is the retrained `arch`; None where none is asked for."""
        if self.config.detect is None:
            return None
        return detect_stage(
            searched_backbone(self.space, arch),
            self.config.detect,
            self.config.seed,
            retrain=self.retrain(arch).fingerprint,
        )

    @property
    def until_search(self) -> tuple[Stage, ...]:
        """The supernet, where the indicator reads one, and the search."""
        return (self.search,) if self.supernet is None else (self.supernet, self.search)

    @property
    def known(self) -> tuple[Stage, ...]:
        """The stages that are known before the search: all but the retraining of its winner."""
        return (*self.until_search, *self.baseline)

    @property
    def baseline(self) -> tuple[Stage, ...]:
        """The retrainings of the random baseline."""
        return tuple(self.retrain(arch) for arch in self.baseline_archs)


def plan_cell(config: Config, images: ImageSpec) -> CellPlan:
    """Work out the stages of one cell.

    Raises ValueError where the space or the budgets cannot be, before anything runs.
    """
    space = load_space(config.space).for_images(
        in_channels=images.in_channels,
        resolution=images.resolution,
        num_classes=images.num_classes,
    )
    limits = budgets(config.search.model_dump(mode="json"), space)
    check_batches(
        {"supernet": config.supernet.batch_size, "retrain": config.retrain.batch_size},
        config.data,
        images,
        scaling(config),
    )
    if config.detect is not None:
        select_taps(space, config.detect.out_strides)  # raises where the space has them not
        check_detector_batch(config.detect, scaling(config))
    flops, *others = limits
    exact_search(  # raises where no architecture keeps all the budgets
        flops.table_LN,
        flops.table_LN,
        flops.max_cost,
        constant=flops.constant,
        min_cost=flops.min_cost,
        name=flops.name,
        also=others,
    )
    if config.supernet.sampler == "fair":
        from nas.sampling import fair_paths

        fair_paths(space, config.seed, 0)  # raises where strict fairness is impossible
    indicator = INDICATORS[config.search.indicator]
    supernet = None
    if indicator.needs_supernet:
        supernet_config = {
            **_common(space, config.seed),
            "data": _data(config.data),
            "supernet": config.supernet.model_dump(mode="json"),
        }
        trainable, epochs = config.supernet.trainable, config.supernet.epochs
        supernet = _stage("supernet", supernet_config, name=f"supernet {trainable} {epochs} epochs")
    search_config = {**_common(space, config.seed), "search": _search(config)}
    if not indicator.additive:
        search_config["data"] = _data(config.data)
    search = _stage(
        "search",
        search_config,
        inputs={"supernet": supernet.fingerprint} if supernet else {},
        name=f"search {config.search.indicator} {config.search.searcher}",
    )
    rng = np.random.default_rng(config.seed + _BASELINE_SEED_OFFSET)
    return CellPlan(
        config=config,
        space=space,
        baseline_archs=tuple(
            draw_legal(space, limits, rng, config.random_baseline.num_architectures)
        ),
        supernet=supernet,
        search=search,
    )


def described(data: DataConfig) -> ImageSpec:
    """The images of an experiment, as far as planning needs them.

    Raises MissingDataError where they are not there.
    """
    try:
        return describe_data(data.name, root=data.root, resolution=data.resolution)
    except MissingDataError as error:
        raise MissingDataError(f"data.root: {error}") from error


def retrain_stage(
    space: SearchSpace, arch: Architecture, data: DataConfig, recipe: RetrainConfig, seed: int
) -> Stage:
    """The retraining of one architecture."""
    config = {
        **_common(space, seed),
        "data": _data(data),
        "retrain": recipe.model_dump(mode="json"),
        "arch": format_architecture(arch),
    }
    return _stage("retrain", config, name=f"retrain {format_architecture(arch)}")


def searched_backbone(space: SearchSpace, arch: Architecture) -> dict[str, Any]:
    """An architecture as MMDetection's `model.backbone`."""
    return {
        "type": "SearchedBackbone",
        "space": _content(space),
        "arch": format_architecture(arch),
    }


def detect_stage(
    backbone: dict[str, Any],
    detect: DetectConfig,
    seed: int,
    *,
    retrain: str | None = None,
    weights: str | None = None,
) -> Stage:
    """The training of a detector.

    Args:
        backbone: MMDetection's `model.backbone`.
        detect: the recipe, less what changes no result.
        seed: of everything that is random.
        retrain: fingerprint of the stage that pretrained the backbone.
        weights: SHA-256 of the file that holds its weights instead.
    """
    section = detect.model_dump(mode="json", exclude=_DETECT_PLACES)
    config = {"backbone": backbone, "seed": seed, "weights": weights}
    config["detect"] = {**section, "data": data_identity(detect.data)}
    return _stage(
        "detect",
        config,
        inputs={} if retrain is None else {"retrain": retrain},
        name=f"detect {backbone.get('arch') or backbone['name']}",
    )


def check_batches(
    batch_sizes: Mapping[str, int], data: DataConfig, images: ImageSpec, scale: Scaling
) -> None:
    """Raise ValueError where training could not fill a batch, or not share it among the workers.

    `batch_sizes` are those of the sections by their names.
    """
    limit = data.max_train_images
    if limit is not None and limit < images.num_classes:
        raise ValueError(
            f"data.max_train_images is {limit}, less than one image for each of the "
            f"{images.num_classes} classes of {data.name}."
        )
    num_images = limit
    if images.num_train_images is not None:
        carved = int(images.num_train_images * data.search_val_fraction + 0.5)
        left = images.num_train_images - carved
        num_images = left if limit is None else min(limit, left)
    for section, batch_size in batch_sizes.items():
        if num_images is not None and batch_size > num_images:
            raise ValueError(
                f"{section}.batch_size is {batch_size}, but only {num_images} images of "
                f"{data.name} train: give at most that."
            )
        _check_shares(section, batch_size, scale)


def check_detector_batch(detect: DetectConfig, scale: Scaling) -> None:
    """Raise ValueError where workers cannot train so.

    They cannot share a batch, the precision needs a GPU, or batch norm has a single value.
    """
    _check_shares("detect", detect.batch_size, scale)
    if detect.precision != "float32" and not scale.use_gpu:
        raise ValueError(
            f"detect.precision is {detect.precision!r}, which MMEngine has on GPUs only: set "
            "float32, or cluster.use_gpu."
        )
    is_one_cell = detect.image_size == 4 * detect.out_strides[-1]
    is_synchronised = scale.use_gpu and scale.min_workers > 1
    if is_one_cell and detect.batch_size == scale.max_workers and not is_synchronised:
        raise ValueError(
            f"detect.batch_size is {detect.batch_size}, one image for each worker, and the "
            f"pyramid's last level has a single cell at image_size {detect.image_size}: batch norm "
            "needs two values at least. Give a larger batch or larger images."
        )


def _check_shares(section: str, batch_size: int, scale: Scaling) -> None:
    for num_workers in range(scale.min_workers, scale.max_workers + 1):
        if batch_size % num_workers:
            raise ValueError(
                f"{section}.batch_size is {batch_size}, which {num_workers} workers "
                f"(cluster.num_workers) cannot share evenly: give a multiple."
            )


def _stage(
    kind: StageKind, config: dict[str, Any], *, name: str, inputs: dict[str, str] | None = None
) -> Stage:
    return Stage(
        kind=kind,
        config=config,
        code_version=CODE_VERSIONS[kind],
        inputs=inputs or {},
        name=name,
    )


def _common(space: SearchSpace, seed: int) -> dict[str, Any]:
    return {"space": _content(space), "seed": seed}


def _content(space: SearchSpace) -> dict[str, Any]:
    content = space.to_dict()
    del content["name"]  # what a space is called does not change what it gives
    return content


def _data(config: DataConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    del data["num_workers"]
    if config.name != "imagefolder":
        del data["root"]
    elif config.root is not None:  # the same words in another folder name another place
        data["root"] = str(Path(config.root).expanduser().absolute())
    return data


def _search(config: Config) -> dict[str, Any]:
    """The search section less what the chosen indicator does not read."""
    search = config.search.model_dump(mode="json")
    if INDICATORS[config.search.indicator].additive:
        del search["recalibration_images"], search["batch_size"]
    return search
