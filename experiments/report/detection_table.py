"""What a detector consists of, and what it detects, as tables; imports nothing heavy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from experiments.report.tables import Cell, Number, Table, decimals, plain, size

if TYPE_CHECKING:
    from experiments.detectors.predict import Prediction

PARTS = ("backbone", "neck", "head")


def parts_table(metrics: Mapping[str, float], title: str) -> Table:
    """Multiply-adds and parameters of a detector's parts and of the whole."""
    rows: list[dict[str, Cell]] = [
        {
            "part": part,
            "FLOPs": Number(metrics[f"flops_{part}"], size),
            "params": Number(metrics[f"params_{part}"], size),
        }
        for part in PARTS
    ]
    flops, params = (Number(metrics[cost], size) for cost in ("flops", "params"))
    rows.append({"part": "detector", "FLOPs": flops, "params": params})
    return Table.of("detection-parts", title, rows)


def print_prediction(prediction: Prediction, console: Console) -> None:
    """How many objects of which class, and where the files lie."""
    from experiments.detectors.predict import IMAGE_LIST
    from experiments.stages.detect import DETECTIONS

    rows: list[dict[str, Cell]] = []
    for category, num in Counter(one["category_id"] for one in prediction.drawn).most_common():
        best = max(one["score"] for one in prediction.drawn if one["category_id"] == category)
        rows.append(
            {
                "class": prediction.class_names[category],
                "detections": Number(num, plain),
                "best score": Number(best, decimals(2)),
            }
        )
    title = f"detected with a score of {prediction.threshold:g} at least"
    console.print(Table.of("predictions", title, rows).rich())
    folder = escape(str(prediction.folder))
    console.print(
        f"Images    {len(prediction.images)} drawn, and listed in {IMAGE_LIST}, in {folder}",
        highlight=False,
    )
    console.print(
        f"Results   {folder}/{DETECTIONS}: {len(prediction.detections)} of any score, in COCO's "
        "format",
        highlight=False,
    )
