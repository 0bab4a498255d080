"""A detector as plain files: what its users need, wherever they are.

A state dict is read without unpickling code, and the config beside it is one of MMDetection's own
tools; the model card says what it is, how well it does, and where it comes from.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detection import mmdetection
from experiments.config.places import StorageConfig, TrackingConfig, scaling, tracking_uri
from experiments.detectors.source import CARD, DetectorSource, find_detector
from experiments.plan.detector_plan import DetectorPlan
from experiments.stages.detect import (
    DETECTOR,
    build_config,
    detection_images,
    detection_json,
    format_metrics,
    pixel_statistics,
)
from experiments.stages.worker_place import WEIGHTS
from orchestration.store import json_text
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.store.whole_folder import require_new, whole_folder
from orchestration.tracking.tracker import Tracker, TrackingError

BACKBONE, CONFIG, READABLE_CARD = "backbone.pt", "config.py", "model_card.md"

_USE = """\
Boxes on images, and COCO's results format:

    bnnas detect predict IMAGE... --checkpoint {folder}

In Python, with the `detection` extra installed:

    import detection
    from detection.inference import Detector
    from mmengine.config import Config

    detector = Detector(Config.fromfile("{folder}/config.py"), "{folder}/detector.pt")
    print(detector.detect("image.jpg"))

"""
_USE_BACKBONE = """\
The backbone alone is MMDetection's `model.backbone` of config.py with `checkpoint="backbone.pt"`.
"""


def export_detector(
    checkpoint: str, storage: str | None, output: Path, *, tracking: str | None = None
) -> dict[str, Any]:
    """Write a detector of the storage into a new folder; imports MMDetection.

    Args:
        checkpoint: fingerprint of its detect stage, or the first 8 digits or more.
        storage: where stages lie.
        output: the folder to make, with the state dicts `DETECTOR` and `BACKBONE`, MMDetection's
            `CONFIG`, and the model card for people and for programs.
        tracking: MLflow's URI, for the runs' ids.

    Returns:
        What `bnnas detect export --json` prints.

    Raises:
        ValueError: there is no such detector, or `output` holds something.
    """
    require_new(output, "--output")
    place = StorageConfig(path=storage or StorageConfig().path)
    record = find_detector(checkpoint, place.path)
    tracker = Tracker(
        tracking_uri(TrackingConfig(uri=tracking), place), TrackingConfig().experiment
    )
    stages = {record.kind: record.fingerprint, **record.inputs}
    run_ids: dict[str, str | None] = dict.fromkeys(stages)
    with contextlib.suppress(TrackingError):  # the detector is worth having without them
        run_ids = {kind: tracker.find_run(fingerprint) for kind, fingerprint in stages.items()}
    card = _model_card(record, StageStore(place.path), run_ids)
    with tempfile.TemporaryDirectory(prefix="detector-") as temporary, mmdetection():
        import torch

        source = DetectorSource.of_stage(record, place.path, Path(temporary))
        detector = source.load()
        with whole_folder(output) as folder:
            shutil.copyfile(source.weights, folder / DETECTOR)
            torch.save(detector.backbone_state(), folder / BACKBONE)
            source.runner_config().dump(folder / CONFIG)
            (folder / CARD).write_text(json_text.dumps(card), encoding="utf-8")
            (folder / READABLE_CARD).write_text(_readable(card, output.name), encoding="utf-8")
    return {
        "status": "done",
        "folder": str(output),
        "fingerprint": record.fingerprint,
        "files": {
            DETECTOR: "the whole detector's state dict",
            BACKBONE: "the backbone's alone",
            CONFIG: "MMDetection's config",
            CARD: "what it is, for programs",
            READABLE_CARD: "and for people",
        },
    }


def dump_runner_config(plan: DetectorPlan, file: Path) -> None:
    """Write the config with which MMDetection's own Runner trains what a plan describes.

    The backbone's weights, where a stage has them, are put beside it as ``NAME.backbone.pt``; digit
    scenes are made.

    Raises:
        ValueError: the file is not to be a .py file, the data set is not usable, or the backbone is
            not pretrained yet.
    """
    if file.suffix != ".py":
        raise ValueError(
            f"--dump-config is {str(file)!r}: MMDetection's configs are Python, so give a name "
            "that ends in .py."
        )
    config = plan.config
    store = StageStore(config.storage.path)
    pretraining = plan.checkpoint
    if plan.retrain is not None:
        pretraining = store.get(plan.retrain.fingerprint)
        if pretraining is None:
            raise ValueError(
                "The backbone is not pretrained yet, so there are no weights that the config could "
                "name: run the same command without --dump-config first, or leave out retrain."
            )
    images = detection_images(config)
    weights = plan.weights
    file.parent.mkdir(parents=True, exist_ok=True)
    if pretraining is not None:
        weights = store.fetch(pretraining, WEIGHTS, file.absolute().with_suffix(".backbone.pt"))
    with mmdetection():
        runner_config = build_config(
            plan.detect.config,
            root=str(images.root),
            class_names=list(images.val.class_names),
            pixels=pixel_statistics(plan.detect, pretraining, store),
            weights=None if weights is None else str(weights),
            num_workers=scaling(config).max_workers,
            num_loaders=config.detect.num_workers,
            use_gpu=config.cluster.use_gpu,
        )
        runner_config.work_dir = f"work_dirs/{config.name}"
        part = file.with_name(f".{file.name}.part.py")
        runner_config.dump(part)
        part.replace(file)


def _model_card(
    record: StageRecord, store: StageStore, run_ids: Mapping[str, str | None]
) -> dict[str, Any]:
    retrain = record.inputs.get("retrain")
    retrained = None if retrain is None else store.get(retrain)
    return {
        "fingerprint": record.fingerprint,
        "space": record.config["backbone"].get("space"),
        **detection_json(record),
        "categories": record.result["categories"],
        "pixels": record.result["pixels"],
        "pretraining": None
        if retrained is None
        else {
            "fingerprint": retrained.fingerprint,
            "data": retrained.config["data"]["name"],
            "top1": retrained.metrics["top1"],
        },
        "mlflow_run_ids": dict(run_ids),
        "code": record.code,
        "stage": record.config,
    }


def _readable(card: Mapping[str, Any], folder: str) -> str:
    """The card in Markdown."""
    pretraining = card["pretraining"]
    rows = {
        "backbone": (card["arch"] and f"`{card['arch']}`") or card["backbone"],
        "pretrained": pretraining
        and f"on {pretraining['data']}, test top-1 {pretraining['top1']:.2%}",
        "classes": ", ".join(category["name"] for category in card["categories"]),
        "data": json.dumps(card["stage"]["detect"]["data"]),
        "device hours": f"{card['device_hours']:.3f}",
        "fingerprint": f"`{card['fingerprint']}`",
        "commit": card["code"].get("commit"),
        "command": f"`{card['code'].get('command')}`",
        **{f"MLflow run, {kind}": run for kind, run in card["mlflow_run_ids"].items()},
    }
    metrics = [
        f"| {name.removeprefix('coco/')} | {100 * value:.2f} |"
        for name, value in card.items()
        if name.startswith("coco/")
    ]
    lines = [
        "# Detector",
        "",
        f"{format_metrics(card)}, on {card['num_val_images']} validation images.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items() if value is not None),
        "",
        "| metric (COCO, percent) | |",
        "|---|--:|",
        *metrics,
        "",
        _USE.format(folder=folder),
        *([] if card["arch"] is None else [_USE_BACKBONE]),
    ]
    return "\n".join(lines)
