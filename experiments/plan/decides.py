"""What decides each stage's result: its config, out of the config of an experiment.

A stage's config holds every field that can change its result, and nothing else, so that two
experiments that agree in those fields share the stage. `FIELDS` classifies every field of the
config; a test fails when a new one is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from detection.coco.data import data_identity
from experiments.config.cell import Config, DataConfig, RetrainConfig
from experiments.config.detect import DetectConfig
from nas.indicators import INDICATORS
from nas.space import Architecture, SearchSpace, format_architecture
from orchestration.store.stage import Stage

# Raise a number when the code of that stage changes what the same config gives.
CODE_VERSIONS = {"supernet": 1, "search": 2, "retrain": 2, "detect": 1, "score": 1}

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


def supernet_stage(space: SearchSpace, config: Config) -> Stage:
    """The training of the supernet."""
    content = {
        **_common(space, config.seed),
        "data": _data(config.data),
        "supernet": config.supernet.model_dump(mode="json"),
    }
    trainable, epochs = config.supernet.trainable, config.supernet.epochs
    return _stage("supernet", content, name=f"supernet {trainable} {epochs} epochs")


def search_stage(space: SearchSpace, config: Config, supernet: Stage | None) -> Stage:
    """The search, which reads the supernet where there is one."""
    search = config.search.model_dump(mode="json")
    content = {**_common(space, config.seed), "search": search}
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
    config: Config,
    indicator: str,
    archs: Sequence[Architecture],
    supernet: Stage | None,
) -> Stage:
    """What an indicator that is not additive says of given architectures."""
    search = config.search
    content = {
        **_common(space, config.seed),
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
    config["detect"] = {**section, "data": data_identity(detect.data.model_dump())}
    return _stage(
        "detect",
        config,
        inputs={} if retrain is None else {"retrain": retrain},
        name=f"detect {backbone.get('arch') or backbone['name']}",
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
