"""The detect stage: train a detector on a searched backbone, and evaluate it by COCO's metrics."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detection import DETECTIONS_FILE, DETECTOR_FILE, LOSSES_FILE, mmdetection
from detection.coco.annotation_file import CocoError
from detection.coco.data import (
    DetectionImages,
    annotation_file,
    image_folder,
    prepare_images,
    scene_parameters,
)
from experiments.config.detect import DetectConfig
from experiments.config.experiment import AnyConfig
from experiments.config.places import local_folder
from experiments.config.section import ConfigError
from experiments.figures.numbers import count
from experiments.plan.decides import DetectContent
from experiments.plan.detector_plan import DetectorPlan
from experiments.stages.logged_model import write_detector
from experiments.stages.worker_place import IMAGES, WEIGHTS
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.jobs.train_job import JobResult
from orchestration.jobs.worker import WorkerContext
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.store.storage import fetch_shared, share_file
from orchestration.tracking.stage_runs import Done

# The stage's files; the losses are in the record, as its series.
DETECTOR, DETECTIONS = DETECTOR_FILE, DETECTIONS_FILE

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class DetectorPlace:
    """What the workers of a detect stage must know and what cannot change its result.

    Attributes:
        storage_path: where stages lie.
        coco_root: folder of the images.
        class_names: in the order of the data set's categories.
        pixels: ``mean`` and ``std`` of what the backbone is fed.
        retrain: fingerprint of the stage that pretrained it.
        num_loaders: processes that load images, for every worker.
        log_interval: optimiser steps whose losses are meaned.
        use_gpu: whether workers have one.
    """

    storage_path: str
    coco_root: str
    class_names: list[str]
    pixels: Mapping[str, list[float]]
    retrain: str | None
    num_loaders: int
    log_interval: int
    use_gpu: bool


def check_backbone(plan: DetectorPlan) -> None:
    """Find out in this process whether workers will be able to build the backbone.

    Where it comes from a file or from torchvision; imports what that takes. Raises ValueError.
    """
    backbone = plan.detect.config["backbone"]
    if plan.weights is not None:
        with mmdetection():
            from detection.backbone import SearchedBackbone

            SearchedBackbone(backbone["space"], backbone["arch"], checkpoint=plan.weights)
    elif backbone["type"] == "TorchvisionBackbone":
        from torchvision.models import get_model_weights, list_models

        name, weights = backbone["name"], backbone["weights"]
        if name not in list_models():
            near = difflib.get_close_matches(name, list_models(), n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ConfigError(
                f"torchvision.name is {name!r}, which torchvision does not have{hint}"
            )
        known = list(get_model_weights(name).__members__)
        if weights is not None and weights not in known:
            raise ConfigError(
                f"torchvision.weights is {weights!r}, but {name} has {', '.join(known)}: give one "
                "of these, or leave it out."
            )


def detection_images(config: AnyConfig) -> DetectionImages:
    """The data set of an experiment's `detect` section, which is looked at.

    Raises CocoError, in one sentence, where it cannot be used.
    """
    detect = config.detect
    assert detect is not None  # who has none does not ask
    return prepare_images(detect.data.model_dump(), detect.batch_size, local_folder(config.storage))


def make_detect(
    stage: Stage,
    runner: StageRunner,
    inputs: Mapping[str, Done],
    *,
    detect: DetectConfig,
    images: DetectionImages,
    weights: Path | None,
) -> Done:
    """Have the trained detector (`DETECTOR`) and its mAP, or get it trained.

    Args:
        stage: what to make.
        runner: has it or makes it.
        inputs: the stage that pretrained the backbone, and what else led to it.
        detect: the section that the stage is of: speeds, and what is shown.
        images: its data set, which was looked at.
        weights: file with the backbone's weights, where no stage has them.
    """
    content = DetectContent.of(stage.config)
    retrained = inputs["retrain"].record if "retrain" in stage.inputs else None
    pixels = pixel_statistics(stage, retrained, runner.store)
    if weights is not None:
        assert content.weights is not None  # the digest of that file
        share_file(runner.store.path, content.weights, weights)

    def finish(job: JobResult, folder: Path) -> Outcome:
        last = job.history[-1]
        metrics = {
            name.removeprefix("detector/"): value
            for name, value in last.items()
            if name.startswith(("coco/", "detector/"))
        }
        metrics["train_loss"] = last["train/loss"]
        result = {
            "arch": content.backbone.get("arch"),
            "categories": images.categories,
            "pixels": pixels,
            "num_train_images": images.train.num_trainable,
            "num_val_images": images.val.num_images,
            **metrics,
        }
        series = json.loads((folder / LOSSES_FILE).read_text(encoding="utf-8"))
        return Outcome(result, metrics, series)

    place = DetectorPlace(
        storage_path=runner.store.path,
        coco_root=str(images.root),
        class_names=list(images.val.class_names),
        pixels=pixels,
        retrain=stage.inputs.get("retrain"),
        num_loaders=detect.num_workers,
        log_interval=detect.log_interval,
        use_gpu=runner.scaling.use_gpu,
    )

    def draw(record: StageRecord, folder: Path) -> None:
        draw_detect(record, runner.store, images, detect.num_images_shown, folder)

    return runner.train(
        stage,
        work,
        asdict(place),
        finish,
        inputs=inputs,
        draw=draw,
        keep=(DETECTOR, DETECTIONS),
        model=lambda record, folder: write_detector(
            record,
            runner.store,
            folder,
            network_arguments(stage.config, images.categories, pixels),
        ),
    )


def work(config: dict[str, Any], context: WorkerContext) -> None:
    """Train a detector with MMEngine's Runner; its place is a `DetectorPlace`'s values.

    The last epoch reports what the detector costs beside its mAP: `detector/flops` and
    `detector/params`, of the whole and of `_backbone`, `_neck` and `_head`.
    """
    content, place = DetectContent.of(config["stage"]), DetectorPlace(**config["place"])
    with mmdetection():
        from detection.efficientdet import detector_cost
        from detection.training import train_detector

        if content.data["name"] == "digit_scenes":
            _have_scenes(Path(place.coco_root), content.data)
        with tempfile.TemporaryDirectory(prefix="backbone-") as folder:
            weights = None
            file = Path(folder) / WEIGHTS
            if place.retrain is not None:
                weights = StageStore(place.storage_path).fetch(place.retrain, WEIGHTS, file)
            elif content.weights is not None:
                weights = fetch_shared(place.storage_path, content.weights, file)
            runner_config = build_config(
                config["stage"],
                root=place.coco_root,
                class_names=place.class_names,
                pixels=place.pixels,
                weights=None if weights is None else str(weights),
                num_workers=context.world_size,
                num_loaders=place.num_loaders,
                use_gpu=place.use_gpu,
            )
            cost = detector_cost(runner_config.model, content.detect.image_size)
            train_detector(
                runner_config,
                context,
                log_interval=place.log_interval,
                final_metrics={
                    f"detector/{name}{part}": float(value)
                    for name, parts in cost._asdict().items()
                    for part, value in {
                        "": sum(parts.values()),
                        **{f"_{part}": value for part, value in parts.items()},
                    }.items()
                },
            )


def coco_metrics(record: StageRecord) -> dict[str, float]:
    """A detector's `coco/…` metrics."""
    return {name: value for name, value in record.metrics.items() if name.startswith("coco/")}


def detection_json(record: StageRecord) -> dict[str, Any]:
    """What was found: the detector's size and its metrics."""
    return {
        "arch": record.result["arch"],
        "backbone": record.config["backbone"].get("name", "searched"),
        **record.metrics,
        "num_val_images": record.result["num_val_images"],
        "device_hours": record.device_hours,
    }


def format_metrics(metrics: Mapping[str, float]) -> str:
    """A detector's metrics in a phrase."""
    return (
        f"mAP {100 * metrics['coco/bbox_mAP']:.2f}, {count(metrics['flops'])} multiply-adds, "
        f"{count(metrics['params'])} parameters"
    )


def build_config(
    stage: Mapping[str, Any],
    *,
    root: str,
    class_names: list[str],
    pixels: Mapping[str, list[float]],
    weights: str | None = None,
    num_workers: int = 1,
    num_loaders: int = 0,
    use_gpu: bool = False,
) -> Any:
    """MMDetection's config of a detect stage; imports it.

    Args:
        stage: the stage's config.
        root: of the data set.
        class_names: in the order of its categories.
        pixels: ``mean`` and ``std`` of what the backbone is fed.
        weights: file with those of the backbone.
        num_workers: as `detection.recipe.detector_config`, and so the rest.
        num_loaders: likewise.
        use_gpu: likewise.
    """
    from detection.recipe import detector_config

    return detector_config(
        **_config_arguments(stage, class_names, pixels, weights),
        data_root=root,
        num_workers=num_workers,
        num_loaders=num_loaders,
        use_gpu=use_gpu,
    )


def network_arguments(
    stage: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
    pixels: Mapping[str, list[float]],
) -> dict[str, Any]:
    """Those of `detection.recipe.detector_config` that make a trained detector's network."""
    names = [str(category["name"]) for category in categories]
    arguments = _config_arguments(stage, names, pixels)
    if "weights" in arguments["backbone"]:
        arguments["backbone"]["weights"] = None  # torchvision would download what is replaced
    return arguments


def _config_arguments(
    stage: Mapping[str, Any],
    class_names: list[str],
    pixels: Mapping[str, list[float]],
    weights: str | None = None,
) -> dict[str, Any]:
    content = DetectContent.of(stage)
    backbone = dict(content.backbone)
    if weights is not None:
        backbone["checkpoint"] = weights
    elif backbone["type"] == "SearchedBackbone":
        backbone["seed"] = content.seed
    return {
        "detect": content.detect.model_dump(mode="json"),
        "backbone": backbone,
        "pixels": pixels,
        "class_names": class_names,
        "seed": content.seed,
    }


def draw_detect(
    record: StageRecord,
    store: StageStore,
    images: DetectionImages,
    num_images: int,
    folder: Path,
) -> None:
    """Write the figures of a finished stage into a folder.

    These are its training, and what was detected in the first `num_images` of the validation set.
    """
    from PIL import Image, ImageOps

    from detection.coco.annotation_file import read_annotation_file
    from detection.coco.drawing import draw_detections
    from experiments.figures.stage_figures import detection_figure
    from experiments.figures.style import save_figure

    figure = detection_figure(record.history, title="Training of the detector")
    save_figure(figure, folder / "detect_training.png")
    found = json.loads(store.read_bytes(record, DETECTIONS))
    names = {category["id"]: category["name"] for category in record.result["categories"]}
    content = read_annotation_file(annotation_file(images.root, "val"))
    for image in content.images[:num_images]:
        detections = [one for one in found if one["image_id"] == image["id"]]
        with Image.open(image_folder(images.root, "val") / image["file_name"]) as picture:
            drawn = draw_detections(ImageOps.exif_transpose(picture), detections, names)
        drawn.save(folder / f"detections_{image['id']}.png")


def pixel_statistics(
    stage: Stage, retrained: StageRecord | None, store: StageStore
) -> dict[str, list[float]]:
    """What the backbone was fed in its pretraining, and will be in the detector."""
    if retrained is not None:
        images = json.loads(store.read_bytes(retrained, IMAGES))
        return {"mean": list(images["mean"]), "std": list(images["std"])}
    space = stage.config["backbone"].get("space")
    if space is not None and space["input"]["channels"] == 1:
        return {"mean": [0.5], "std": [0.5]}
    return _IMAGENET


def _have_scenes(root: Path, data: Mapping[str, Any]) -> None:
    """Make the digit scenes where this worker's node has them not."""
    from detection.coco.digit_scenes import make_digit_scenes

    try:
        make_digit_scenes(root, **scene_parameters(data))
    except CocoError:
        if not annotation_file(root, "val").is_file():
            raise  # else they are of another making, and the driver has found them good
