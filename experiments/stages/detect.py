"""The detect stage: train a detector on a searched backbone, and evaluate it by COCO's metrics."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
from experiments.config.experiment import AnyConfig
from experiments.config.places import local_folder
from experiments.config.section import ConfigError
from experiments.figures.numbers import count
from experiments.plan.decides import DetectContent
from experiments.plan.detector import DetectorPlan
from experiments.stages.setting import IMAGES, WEIGHTS, Setting
from orchestration.jobs.runner import Outcome
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
class Place:
    """Where a detect stage finds things, and how fast; none of it changes a result.

    Attributes:
        images: the data set, which was looked at.
        weights: file with the backbone's weights, where no stage has them.
        num_loaders: processes that load images, for every worker.
        log_interval: optimiser steps whose losses are meaned.
        num_images_shown: validation images that are drawn with their detections.
        use_gpu: whether workers have one.
    """

    images: DetectionImages
    weights: Path | None
    num_loaders: int
    log_interval: int
    num_images_shown: int
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


def detection_place(config: AnyConfig, weights: Path | None = None) -> Place:
    """Look at the data set of an experiment's `detect` section, and say where it lies.

    Raises CocoError, in one sentence, where it cannot be used.
    """
    detect = config.detect
    assert detect is not None  # who has none does not ask
    return Place(
        images=prepare_images(
            detect.data.model_dump(), detect.batch_size, local_folder(config.storage)
        ),
        weights=weights,
        num_loaders=detect.num_workers,
        log_interval=detect.log_interval,
        num_images_shown=detect.num_images_shown,
        use_gpu=config.cluster.use_gpu,
    )


def make_detect(stage: Stage, setting: Setting, inputs: Mapping[str, Done], place: Place) -> Done:
    """Have the trained detector (`DETECTOR`) and its mAP, or get it trained.

    `inputs` names the stage that pretrained the backbone, and what else led to it.
    """
    content = DetectContent.of(stage.config)
    retrained = inputs["retrain"].record if "retrain" in stage.inputs else None
    pixels = pixel_statistics(stage, retrained, setting.runner.store)
    if place.weights is not None:
        assert content.weights is not None  # the digest of that file
        share_file(setting.runner.store.path, content.weights, place.weights)

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
            "categories": place.images.categories,
            "pixels": pixels,
            "num_train_images": place.images.train.num_trainable,
            "num_val_images": place.images.val.num_images,
            **metrics,
        }
        series = json.loads((folder / LOSSES_FILE).read_text(encoding="utf-8"))
        return Outcome(result, metrics, series)

    return setting.with_place(
        coco_root=str(place.images.root),
        class_names=list(place.images.val.class_names),
        pixels=pixels,
        retrain=stage.inputs.get("retrain"),
        num_loaders=place.num_loaders,
        log_interval=place.log_interval,
        use_gpu=place.use_gpu,
    ).train(
        stage,
        work,
        finish,
        total=content.detect.epochs,
        inputs=inputs,
        draw=lambda record, folder: draw_detect(record, setting.runner.store, place, folder),
        keep=(DETECTOR, DETECTIONS),
    )


def work(config: dict[str, Any], context: WorkerContext) -> None:
    """Train a detector with MMEngine's Runner; `config` as for the supernet stage.

    The last epoch reports what the detector costs beside its mAP: `detector/flops` and
    `detector/params`, of the whole and of `_backbone`, `_neck` and `_head`.
    """
    content, place = DetectContent.of(config["stage"]), config["place"]
    with mmdetection():
        from detection.efficientdet import detector_cost
        from detection.training import train_detector

        if content.data["name"] == "digit_scenes":
            _have_scenes(Path(place["coco_root"]), content.data)
        with tempfile.TemporaryDirectory(prefix="backbone-") as folder:
            weights = None
            file = Path(folder) / WEIGHTS
            if place["retrain"] is not None:
                weights = StageStore(place["storage_path"]).fetch(place["retrain"], WEIGHTS, file)
            elif content.weights is not None:
                weights = fetch_shared(place["storage_path"], content.weights, file)
            runner_config = build_config(
                config["stage"],
                root=place["coco_root"],
                class_names=place["class_names"],
                pixels=place["pixels"],
                weights=None if weights is None else str(weights),
                num_workers=context.world_size,
                num_loaders=place["num_loaders"],
                use_gpu=place["use_gpu"],
            )
            cost = detector_cost(runner_config.model, content.detect.image_size)
            train_detector(
                runner_config,
                context,
                log_interval=place["log_interval"],
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

    content = DetectContent.of(stage)
    backbone = dict(content.backbone)
    if weights is not None:
        backbone["checkpoint"] = weights
    elif backbone["type"] == "SearchedBackbone":
        backbone["seed"] = content.seed
    return detector_config(
        content.detect.model_dump(mode="json"),
        backbone=backbone,
        pixels=pixels,
        data_root=root,
        class_names=class_names,
        seed=content.seed,
        num_workers=num_workers,
        num_loaders=num_loaders,
        use_gpu=use_gpu,
    )


def draw_detect(record: StageRecord, store: StageStore, place: Place, folder: Path) -> None:
    """Write the figures of a finished stage into a folder: the training, and what was detected."""
    from PIL import Image, ImageOps

    from detection.coco.annotation_file import read_annotation_file
    from detection.coco.drawing import draw_detections
    from experiments.figures.stage_figures import detection_figure
    from experiments.figures.style import save_figure

    figure = detection_figure(record.history, title="Training of the detector")
    save_figure(figure, folder / "detect_training.png")
    found = json.loads(store.read_bytes(record, DETECTIONS))
    names = {category["id"]: category["name"] for category in record.result["categories"]}
    root = place.images.root
    content = read_annotation_file(annotation_file(root, "val"))
    for image in content.images[: place.num_images_shown]:
        detections = [one for one in found if one["image_id"] == image["id"]]
        with Image.open(image_folder(root, "val") / image["file_name"]) as picture:
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
