"""The detection section: searched backbones in EfficientDet, beside published ones (Table 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.evidence.cell_groups import average
from experiments.report.evidence.evidence import Evidence, tracked
from experiments.report.evidence.published import published
from experiments.report.evidence.units import decimals, percent, size
from experiments.report.evidence.values import NOTHING, Block, Cell, Section, Table
from orchestration.tracking.reader import TrackedRun

_APS = {
    "coco/bbox_mAP": "mAP",
    "coco/bbox_mAP_50": "AP50",
    "coco/bbox_mAP_75": "AP75",
    "coco/bbox_mAP_s": "AP small",
    "coco/bbox_mAP_m": "AP medium",
    "coco/bbox_mAP_l": "AP large",
}
_COCO_CLASSES, _COCO_IMAGES = 80, 5000  # of COCO's val2017
_COCO = (
    "bnnas detect experiments/configs/detect_coco_searched.yaml --set data.root=IMAGENET "
    "--set detect.data.root=COCO"
)
_PUBLISHED = {
    "backbone": "backbone or detector",
    "flops": "FLOPs (B)",
    "params": "params (M)",
    "mAP": "mAP",
    "AP50": "AP50",
    "AP75": "AP75",
    "small": "AP small",
    "medium": "AP medium",
    "large": "AP large",
    "images": "images",
}


@dataclass(frozen=True)
class Images:
    """What detectors are evaluated on.

    Attributes:
        title: what they are, and whether they are COCO.
        is_coco: whether they are.
    """

    title: str
    is_coco: bool


def detection_section(evidence: Evidence) -> Section:
    """Own detectors by data set, COCO first, and then what is published."""
    done = [run for run in evidence.of("detect") if _is_done(run)]
    by_data: dict[tuple[tuple[str, str], ...], list[TrackedRun]] = {}
    for run in done:
        by_data.setdefault(_data_params(run), []).append(run)
    found = [(_images(evidence, runs), runs) for runs in by_data.values()]
    found.sort(key=lambda pair: not pair[0].is_coco)
    blocks: list[Block] = [_own_table(evidence, images, runs) for images, runs in found]
    missing = _left_out(evidence, done)
    if not any(images.is_coco for images, _ in found):
        missing.append(
            "No detector was evaluated on COCO, so that no measured mAP stands beside Table 3: "
            f"`{_COCO}` fills it."
        )
    blocks += [
        _published_table("table_3", "detection-published"),
        _published_table("efficientdet_d0_paper", "detection-efficientdet"),
        _published_table("efficientdet_d0_release", "detection-efficientdet-release"),
    ]
    return Section("detection", "Detection", "Table 3", tuple(blocks), tuple(missing))


def _is_done(run: TrackedRun) -> bool:
    """A detector that is still trained has a mAP too, that of an earlier epoch."""
    found = run.metrics.get("coco/bbox_mAP", math.nan)
    return run.status == "FINISHED" and math.isfinite(found)


def _left_out(evidence: Evidence, done: Sequence[TrackedRun]) -> list[str]:
    rest = [run for run in evidence.of("detect") if run not in done]
    if not rest:
        return []
    states = ", ".join(f"{run.name} ({run.status.lower()})" for run in rest)
    return [
        f"There is no final mAP of {states}: the `bnnas detect` that began it, given again, goes "
        "on where it stopped."
    ]


def _data_params(run: TrackedRun) -> tuple[tuple[str, str], ...]:
    """What the images are known by."""
    prefix = "detect.data."
    return tuple(sorted(pair for pair in run.params.items() if pair[0].startswith(prefix)))


def _images(evidence: Evidence, runs: Sequence[TrackedRun]) -> Images:
    """Whether they are COCO is told by how many classes and images were evaluated."""
    params = runs[-1].params
    name = params.get("detect.data.name", "unknown images")
    if name == "digit_scenes":
        scenes, size = (params.get(f"detect.data.{p}", "?") for p in ("num_val", "image_size"))
        return Images(f"{scenes} generated digit scenes of {size}×{size}, not COCO", False)
    result = _result(evidence, runs[-1])
    categories, num_images = result.get("categories"), result.get("num_val_images")
    if not isinstance(categories, list) or not isinstance(num_images, int | float):
        return Images(f"images in {name}'s layout; whether they are COCO is not known", False)
    if (len(categories), num_images) == (_COCO_CLASSES, _COCO_IMAGES):
        return Images("COCO val2017", True)
    what = f"{num_images:,.0f} images with {len(categories)} classes in {name}'s layout"
    return Images(f"{what}, not COCO val2017", False)


def _result(evidence: Evidence, run: TrackedRun) -> Mapping[str, Any]:
    """What the record of a stage has beyond its metrics; empty where it cannot be had."""
    record = evidence.record(run)
    result = None if record is None else record.get("result")
    return result if isinstance(result, dict) else {}


def _own_table(evidence: Evidence, images: Images, runs: Sequence[TrackedRun]) -> Table:
    by_config: dict[tuple[object, ...], dict[str, TrackedRun]] = {}
    for run in runs:  # of two with one seed the later one counts
        retrained = evidence.input(run, "retrain")
        pretraining = "" if retrained is None else _but_seed(retrained)
        key = (_but_seed(run), pretraining)
        by_config.setdefault(key, {})[run.params.get("seed", "")] = run
    rows = tuple(_row(evidence, list(by_seed.values())) for by_seed in by_config.values())
    return Table(
        f"detection-{runs[0].params.get('detect.data.name', 'unknown')}",
        f"Trained here: {images.title}",
        (
            "backbone",
            "pretrained",
            "its top-1 (%)",
            "seeds",
            "image size",
            "epochs",
            "FLOPs",
            "params",
            *_APS.values(),
            "device-hours",
        ),
        rows,
        "COCO's metrics in percent, mean over the seeds ± standard deviation; FLOPs and parameters "
        "are those of the whole detector. A metric is empty where no object has that size."
        + ("" if images.is_coco else " Not to be compared with the published numbers below."),
    )


def _but_seed(run: TrackedRun) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in run.params.items() if pair[0] != "seed")


def _row(evidence: Evidence, runs: Sequence[TrackedRun]) -> tuple[Cell, ...]:
    params = runs[0].params
    retrained = {
        found.run_id: found for run in runs if (found := evidence.input(run, "retrain")) is not None
    }
    return (
        params.get("backbone.arch") or params.get("backbone.name", "unknown"),
        _pretraining(runs, list(retrained.values())),
        average(list(retrained.values()), "top1", percent),
        str(len(runs)),
        params.get("detect.image_size", ""),
        params.get("detect.epochs", ""),
        tracked(runs[0], "flops", size) or NOTHING,
        tracked(runs[0], "params", size) or NOTHING,
        *(average(runs, metric, percent) for metric in _APS),
        average(runs, "device_hours", decimals(4)),
    )


def _pretraining(runs: Sequence[TrackedRun], retrained: Sequence[TrackedRun]) -> str:
    """Where the backbone's weights come from; retrainings are named by data and run ids."""
    if retrained:
        params = retrained[0].params
        data, epochs = params.get("data.name", "?"), params.get("retrain.epochs", "?")
        run_ids = ", ".join(run.run_id[:8] for run in retrained)
        return f"{epochs} epochs on {data}: retrain {run_ids}"
    if run_id := runs[0].inputs.get("retrain"):
        return f"retrain {run_id[:8]}, which is not in this experiment"
    for param in ("backbone.weights", "weights"):
        weights = runs[0].params.get(param, "null")
        if weights != "null":
            return weights[:16]  # torchvision's name, or a digest
    return "random weights"


def _published_table(table: str, name: str) -> Table:
    """One of those that are published, with the fields that it has."""
    found = published(table)
    fields = [field for field in _PUBLISHED if any(field in row for row in found.rows)]
    return Table(
        name,
        f"Published, on COCO: {found.source}",
        tuple(_PUBLISHED[field] for field in fields),
        found.cells(fields),
        "Not measured here.",
    )
