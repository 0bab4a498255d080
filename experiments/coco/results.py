"""COCO's metrics of a list of detections, by COCO's own program.

The list is the one that COCO's servers take and that the detect stage stores: one
``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`` for each detection.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.coco.annotation_file import CocoError, first

# In the order of COCOeval.stats; the names are those of MMDetection's CocoMetric.
METRICS = (
    "bbox_mAP",
    "bbox_mAP_50",
    "bbox_mAP_75",
    "bbox_mAP_s",
    "bbox_mAP_m",
    "bbox_mAP_l",
)


def coco_metrics(
    annotation_file: str | Path, results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """mAP over IoU 0.50 to 0.95, AP at 0.50 and 0.75, and mAP of small, medium and large objects.

    All are fractions, of at most 100 detections of a class in an image. A metric is −1 where the
    data set has no object of that size, as COCO defines it; no detections at all give 0.

    Args:
        annotation_file: has passed :func:`experiments.coco.check.check_coco`.
        results: detections; they are left as they are.

    Raises:
        CocoError: a detection is of an image or a category that the file does not list.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO(str(annotation_file))
        _check_references(annotation_file, results, "image_id", truth.imgs)
        _check_references(annotation_file, results, "category_id", truth.cats)
        found = COCO()
        # Not COCO.loadRes: it writes into the list it is given, and cannot take an empty one.
        found.dataset = {
            "images": truth.dataset["images"],
            "categories": truth.dataset["categories"],
            "annotations": [
                {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3]}
                for number, result in enumerate(results, start=1)
            ],
        }
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats[: len(METRICS)].tolist(), strict=True))


def _check_references(
    annotation_file: str | Path,
    results: Sequence[Mapping[str, Any]],
    field: str,
    known: Mapping[int, Any],
) -> None:
    strays = sorted({result[field] for result in results if result[field] not in known})
    if strays:
        raise CocoError(
            f"The detections have a {field!r} that {annotation_file} does not list "
            f"({first(strays)}): give the file of the images that were looked at."
        )
