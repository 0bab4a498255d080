"""Searched backbones in EfficientDet, beside published ones (Table 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.figures.stage_figures import detections_figure
from experiments.report.formats import decimals, millions, percent, size
from experiments.report.published import published_table
from experiments.report.run_table import Runs, average, grouped, numbers, of_each_seed, texts, value
from experiments.report.tables import MOST_PICTURES, Block, Entry, Number, Picture, Section, Table
from orchestration.tracking.reader import TrackedRun

_MISSING = (
    "`bnnas run experiments/configs/detect_coco_searched.yaml --set data.root=IMAGENET --set "
    "detect.data.root=COCO` evaluates a detector that stands beside Table 3."
)
_MAP = "coco/bbox_mAP"
_PARTS = ("backbone", "neck", "head")
_APS = {
    _MAP: "mAP",
    f"{_MAP}_50": "AP50",
    f"{_MAP}_75": "AP75",
    f"{_MAP}_s": "AP small",
    f"{_MAP}_m": "AP medium",
    f"{_MAP}_l": "AP large",
}
_COCO, _COCO_CLASSES, _COCO_IMAGES = "COCO val2017", 80, 5000
_PUBLISHED = {
    "backbone": "backbone or detector",
    "flops": "FLOPs (B)",
    "params": "params (M)",
    **{heading: heading for heading in _APS.values()},
    "images": "images",
}
_PUBLISHED_TABLES = {
    "table_3": "detection-published",
    "efficientdet_d0_paper": "detection-efficientdet",
    "efficientdet_d0_release": "detection-efficientdet-release",
}


def detection_section(runs: Runs) -> Section:
    """Own detectors by data set, COCO first, and where they belong there among published ones."""
    rows = runs.of_kind("detect", finished=True)  # one that is still trained has a mAP too
    rows = rows[numbers(rows, _MAP).map(math.isfinite).astype(bool)]
    found = [
        (_images(runs, own.index[-1]), _by_config(runs, own))
        for own in grouped(rows, lambda run_id: runs.params(run_id, prefix="detect.data."))
    ]
    found.sort(key=lambda pair: pair[0] != _COCO)
    blocks: list[Block] = [_own_table(runs, images, configs) for images, configs in found]
    measured = [
        _published_row(runs, own) for images, configs in found if images == _COCO for own in configs
    ]
    if measured:
        for key, name in _PUBLISHED_TABLES.items():
            blocks.append(published_table(key, name, _PUBLISHED, measured))
    newest = [runs.by_id[run_id] for run_id in reversed(rows.index)]
    for place, run in enumerate(newest[:MOST_PICTURES]):
        blocks.append(_picture(runs, run))
        if place == 0 and f"flops_{_PARTS[0]}" in run.metrics:
            blocks.append(parts_table(run.metrics, f"{run.name}: what it consists of"))
    summary = (_sentence(runs, *found[0]),) if found else ()
    missing = "" if measured else _MISSING
    return Section("detection", "Detection", "Table 3", tuple(blocks), missing, summary)


def _images(runs: Runs, run_id: str) -> str:
    """What was evaluated on: COCO if it has as many classes and images."""
    params = runs.by_id[run_id].params
    name = params.get("detect.data.name", "unknown images")
    if name == "digit_scenes":
        scenes, side = (params.get(f"detect.data.{p}", "?") for p in ("num_val", "image_size"))
        return f"{scenes} generated digit scenes of {side}×{side}, not COCO"
    result: Any = (runs.record(run_id) or {}).get("result") or {}
    if "categories" not in result:
        return f"images in {name}'s layout; whether they are COCO is not known"
    num_classes, num_images = len(result["categories"]), result["num_val_images"]
    if (num_classes, num_images) == (_COCO_CLASSES, _COCO_IMAGES):
        return _COCO
    what = f"{num_images:,.0f} images with {num_classes} classes in {name}'s layout"
    return f"{what}, not {_COCO}"


def _by_config(runs: Runs, rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Detectors that differ in nothing but the seed; of two with one seed the later one."""

    def config(run_id: str) -> tuple[object, ...]:
        retrained = runs.input(run_id, "retrain")
        pretraining = None if retrained is None else runs.params(retrained.run_id, ("seed",))
        return runs.params(run_id, ("seed",)), pretraining

    return [of_each_seed(own) for own in grouped(rows, config)]


def _own_table(runs: Runs, images: str, configs: list[pd.DataFrame]) -> Table:
    name = str(texts(configs[0], "params.detect.data.name").iloc[0]) or "unknown"
    note = (
        "COCO's metrics in percent, mean over the seeds ± standard deviation; FLOPs and parameters "
        "are those of the whole detector. A metric is empty where no object has that size."
    )
    if images != _COCO:
        note += " Not to be compared with published numbers."
    return Table.of(
        f"detection-{name}",
        f"Trained here: {images}",
        [_row(runs, own) for own in configs],
        note,
        brief=("backbone", *_APS.values()),
    )


def _row(runs: Runs, rows: pd.DataFrame) -> dict[str, Entry]:
    first = runs.by_id[rows.index[0]]
    retrained = runs.inputs(rows, "retrain")
    return {
        "backbone": _backbone(first),
        "pretrained": _pretraining(first, retrained),
        "its top-1 (%)": average(retrained, "top1", percent),
        "seeds": str(len(rows)),
        "image size": first.params.get("detect.image_size", ""),
        "epochs": first.params.get("detect.epochs", ""),
        "FLOPs": value(first, "flops", size),
        "params": value(first, "params", size),
        **{heading: average(rows, metric, percent) for metric, heading in _APS.items()},
        "device-hours": average(rows, "device_hours", decimals(4)),
    }


def _backbone(run: TrackedRun) -> str:
    return run.params.get("backbone.arch") or run.params.get("backbone.name", "unknown")


def _pretraining(detector: TrackedRun, retrained: pd.DataFrame) -> str:
    """Where the backbone's weights come from; retrainings are named by data and run ids."""
    if len(retrained):
        epochs, data = (
            str(texts(retrained, f"params.{param}").iloc[0]) or "?"
            for param in ("retrain.epochs", "data.name")
        )
        run_ids = ", ".join(run_id[:8] for run_id in retrained.index)
        return f"{epochs} epochs on {data}: retrain {run_ids}"
    if run_id := detector.inputs.get("retrain"):
        return f"retrain {run_id[:8]}, which is not in this experiment"
    for param in ("backbone.weights", "weights"):
        weights = detector.params.get(param, "null")
        if weights != "null":
            return weights[:16]  # torchvision's name, or a digest
    return "random weights"


def _published_row(runs: Runs, rows: pd.DataFrame) -> dict[str, Entry]:
    return {
        "backbone": f"here: {_backbone(runs.by_id[rows.index[0]])}",
        "flops": average(rows, "flops", decimals(2, 1e-9)),
        "params": average(rows, "params", millions),
        **{heading: average(rows, metric, percent) for metric, heading in _APS.items()},
        "images": "val2017",
    }


def _picture(runs: Runs, detector: TrackedRun) -> Picture:
    def draw() -> Any:
        images = runs.artifacts.figures(detector, "detections_")
        return detections_figure(images) if images else None

    title = f"{detector.name}: what it detects in validation images"
    alt = f"Validation images with the boxes, classes and scores that {detector.name} gives."
    return Picture(f"detections-{detector.name}", title, alt, draw)


def parts_table(metrics: Mapping[str, float], title: str) -> Table:
    """Multiply-adds and parameters of a detector's parts and of the whole."""
    rows: list[dict[str, Entry]] = [
        {
            "part": part,
            "FLOPs": Number(metrics[f"flops_{part}"], size),
            "params": Number(metrics[f"params_{part}"], size),
        }
        for part in _PARTS
    ]
    flops, params = (Number(metrics[cost], size) for cost in ("flops", "params"))
    rows.append({"part": "detector", "FLOPs": flops, "params": params})
    return Table.of("detection-parts", title, rows)


def _sentence(runs: Runs, images: str, configs: list[pd.DataFrame]) -> str:
    """Of the newest detector."""
    rows = max(configs, key=lambda own: own["start_time"].max())
    mean_ap, ap_50 = (average(rows, metric, percent) for metric in (_MAP, f"{_MAP}_50"))
    return (
        f"Detection: EfficientDet on the backbone {_backbone(runs.by_id[rows.index[0]])} reaches "
        f"{mean_ap} % mAP and {ap_50} % AP50 on {images}."
    )
