"""COCO's metrics as pycocotools gives them: MMDetection rounds them to three digits.

Table 3's rows differ by 0.14 points of mAP. The detections are kept in COCO's results format, so
that anyone can compute the metrics again: one
``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`` for each detection.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# In the order of COCOeval.stats; the names are those of MMDetection.
COCO_METRICS = (
    "bbox_mAP",
    "bbox_mAP_50",
    "bbox_mAP_75",
    "bbox_mAP_s",
    "bbox_mAP_m",
    "bbox_mAP_l",
)


@METRICS.register_module()
class UnroundedCocoMetric(CocoMetric):
    """`CocoMetric` for boxes, with every digit, and with the detections in a file.

    Args:
        ann_file: COCO's annotations of the images.
        results_file: where the detections are written, if given.
        prefix: of the metrics' names; ``coco`` if not given.
    """

    def __init__(
        self, ann_file: str, results_file: str | None = None, prefix: str | None = None
    ) -> None:
        self.annotation_file = ann_file
        self.results_file = results_file
        super().__init__(
            ann_file,
            metric="bbox",
            format_only=True,
            outfile_prefix="",
            prefix=prefix,
            # Through the process group, whatever its device: `cpu` means files in a folder that
            # ranks on several nodes do not share.
            collect_device="gpu",
        )

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """mAP over IoU 0.50 to 0.95, AP at 0.50 and 0.75, mAP of small, medium, large objects."""
        with tempfile.TemporaryDirectory(prefix="detections-") as folder:
            self.outfile_prefix = str(Path(folder, "all"))
            super().compute_metrics(results)
            text = Path(folder, "all.bbox.json").read_text(encoding="utf-8")
        if self.results_file is not None:
            Path(self.results_file).write_text(text, encoding="utf-8")
        return coco_metrics(self.annotation_file, json.loads(text))


def coco_metrics(
    annotation_file: str | Path, results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """`COCO_METRICS` of detections, as fractions, of at most 100 detections of a class an image.

    A metric is left out where the data set has no object of that size (COCO's −1); no detections
    at all give 0.

    Args:
        annotation_file: in COCO's format.
        results: detections; they are left as they are.

    Raises:
        ValueError: a detection is of an image or a category that the file does not list.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO(str(annotation_file))
        for field, known in (("image_id", truth.imgs), ("category_id", truth.cats)):
            unknown = sorted({result[field] for result in results if result[field] not in known})
            if unknown:
                raise ValueError(
                    f"The detections have a {field!r} that {annotation_file} does not list "
                    f"({', '.join(map(str, unknown[:5]))}): give the file of these images."
                )
        detected = COCO()
        # Not COCO.loadRes: it writes into the list it is given, and cannot take an empty one.
        detected.dataset = {
            "images": truth.dataset["images"],
            "categories": truth.dataset["categories"],
            "annotations": [
                {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3]}
                for number, result in enumerate(results, start=1)
            ],
        }
        detected.createIndex()
        evaluation = COCOeval(truth, detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = evaluation.stats[: len(COCO_METRICS)].tolist()
    return {name: value for name, value in zip(COCO_METRICS, stats, strict=True) if value >= 0}
