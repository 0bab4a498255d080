"""Which field of a config decides which stage's result, there and back.

A stage's content holds every field that can change its result, and nothing else, so that two
experiments that agree in those fields share the stage. Builders make it out of an experiment's
config; who makes the stage reads it back as the typed sections below. `FIELDS` classifies every
field of the config; a test fails when a new one is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, InstanceOf

from detection.coco.data import data_identity
from experiments.config.data import DataConfig
from experiments.config.detect import DetectConfig, DetectorRecipe
from experiments.config.experiment import CellConfig
from experiments.config.search import SearchConfig
from experiments.config.section import Section
from experiments.config.training import RetrainConfig, SupernetConfig
from nas.indicators import INDICATORS
from nas.space import (
    Architecture,
    SearchSpace,
    format_architecture,
    parse_architecture,
    space_from_dict,
)
from orchestration.store.stage import Stage

# The kinds of stages, in the order in which they are shown. Raise a number when the code of that
# stage changes what the same config gives.
CODE_VERSIONS = {"supernet": 1, "score": 1, "search": 2, "retrain": 2, "detect": 1}

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


def _space(value: Any) -> SearchSpace:
    return value if isinstance(value, SearchSpace) else space_from_dict(value)


def _architecture(value: Any) -> Architecture:
    return parse_architecture(value) if isinstance(value, str) else tuple(value)


Space = Annotated[InstanceOf[SearchSpace], BeforeValidator(_space)]
Arch = Annotated[tuple[int, ...], BeforeValidator(_architecture)]


class NetworkContent(Section):
    """What every stage with a network of a space reads: the space, and the seed of the draw."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    space: Space
    seed: int


class SupernetContent(NetworkContent):
    """Of a supernet stage."""

    data: DataConfig
    supernet: SupernetConfig


class SearchContent(NetworkContent):
    """Of a search stage; `data` where its indicator looks at images."""

    data: DataConfig | None = None
    search: SearchConfig


class ScoreContent(NetworkContent):
    """Of a score stage."""

    data: DataConfig
    search: SearchConfig
    archs: tuple[Arch, ...]


class RetrainContent(NetworkContent):
    """Of a retrain stage."""

    data: DataConfig
    retrain: RetrainConfig
    arch: Arch


class DetectContent(Section):
    """Of a detect stage.

    Attributes:
        backbone: MMDetection's `model.backbone`.
        seed: of everything that is random.
        weights: SHA-256 of the file with the backbone's weights, where no stage has them.
        data: identity of the images, see `detection.coco.data.data_identity`.
        detect: the recipe.
    """

    backbone: dict[str, Any]
    seed: int
    weights: str | None
    data: dict[str, Any]
    detect: DetectorRecipe

    @classmethod
    def of(cls, config: Any) -> DetectContent:
        """Read a stage's content, where the identity of the images stands in the recipe."""
        recipe = dict(config["detect"])
        return cls.model_validate({**config, "data": recipe.pop("data"), "detect": recipe})


def supernet_stage(space: SearchSpace, config: CellConfig) -> Stage:
    """The training of the supernet."""
    content = {
        **_network(space, config.seed),
        "data": _data(config.data),
        "supernet": config.supernet.identity(),
    }
    trainable, epochs = config.supernet.trainable, config.supernet.epochs
    return _stage("supernet", content, name=f"supernet {trainable} {epochs} epochs")


def search_stage(space: SearchSpace, config: CellConfig, supernet: Stage | None) -> Stage:
    """The search, which reads the supernet where there is one."""
    search = config.search.identity()
    content = {**_network(space, config.seed), "search": search}
    if INDICATORS[config.search.indicator].additive:
        del search["recalibration_images"], search["batch_size"]  # it reads no image
    else:
        content["data"] = _data(config.data)
    return _stage(
        "search",
        content,
        inputs={} if supernet is None else {"supernet": supernet.fingerprint},
        name=f"search {config.search.indicator} {config.search.searcher}",
    )


def score_stage(
    space: SearchSpace,
    config: CellConfig,
    indicator: str,
    archs: Sequence[Architecture],
    supernet: Stage | None,
) -> Stage:
    """What an indicator that is not additive says of given architectures."""
    search = config.search
    content = {
        **_network(space, config.seed),
        "data": _data(config.data),
        "search": {
            "indicator": indicator,
            "recalibration_images": search.recalibration_images,
            "batch_size": search.batch_size,
        },
        "archs": [format_architecture(arch) for arch in archs],
    }
    reads_it = supernet is not None and INDICATORS[indicator].needs_supernet
    inputs = {"supernet": supernet.fingerprint} if supernet is not None and reads_it else {}
    return _stage("score", content, inputs=inputs, name=f"score {indicator}")


def retrain_stage(
    space: SearchSpace, arch: Architecture, data: DataConfig, recipe: RetrainConfig, seed: int
) -> Stage:
    """The retraining of one architecture."""
    content = {
        **_network(space, seed),
        "data": _data(data),
        "retrain": recipe.identity(),
        "arch": format_architecture(arch),
    }
    return _stage("retrain", content, name=f"retrain {format_architecture(arch)}")


def searched_backbone(space: SearchSpace, arch: Architecture) -> dict[str, Any]:
    """An architecture as MMDetection's `model.backbone`."""
    return {
        "type": "SearchedBackbone",
        "space": _space_content(space),
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
        detect: the recipe, and the images.
        seed: of everything that is random.
        retrain: fingerprint of the stage that pretrained the backbone.
        weights: SHA-256 of the file that holds its weights instead.
    """
    recipe = {k: v for k, v in detect.identity().items() if k not in _DETECT_PLACES}
    content = {"backbone": backbone, "seed": seed, "weights": weights}
    content["detect"] = {**recipe, "data": data_identity(detect.data.model_dump())}
    return _stage(
        "detect",
        content,
        inputs={} if retrain is None else {"retrain": retrain},
        name=f"detect {backbone.get('arch') or backbone['name']}",
    )


def _stage(
    kind: StageKind, content: dict[str, Any], *, name: str, inputs: dict[str, str] | None = None
) -> Stage:
    return Stage(
        kind=kind,
        config=content,
        code_version=CODE_VERSIONS[kind],
        inputs=inputs or {},
        name=name,
    )


def _network(space: SearchSpace, seed: int) -> dict[str, Any]:
    return {"space": _space_content(space), "seed": seed}


def _space_content(space: SearchSpace) -> dict[str, Any]:
    content = space.to_dict()
    del content["name"]  # what a space is called does not change what it gives
    return content


def _data(config: DataConfig) -> dict[str, Any]:
    data = config.identity()
    del data["num_workers"]
    if config.name != "imagefolder":
        del data["root"]
    elif config.root is not None:  # the same words in another folder name another place
        data["root"] = str(Path(config.root).expanduser().absolute())
    return data
