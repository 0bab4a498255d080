"""What `bnnas detect` prints: how well the detector does, what it costs, where it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.detectors.predict import IMAGE_LIST, Prediction
from experiments.figures.numbers import count
from experiments.report.closing import print_closing
from experiments.run.detection import DetectionResult
from experiments.stages.detect import DETECTIONS
from orchestration.store.stage_store import StageRecord

_APS = {
    "coco/bbox_mAP": "mAP",
    "coco/bbox_mAP_50": "AP50",
    "coco/bbox_mAP_75": "AP75",
    "coco/bbox_mAP_s": "APs",
    "coco/bbox_mAP_m": "APm",
    "coco/bbox_mAP_l": "APl",
}
_PARTS = ("backbone", "neck", "head")


def print_detection(
    result: DetectionResult, console: Console, *, elapsed_s: float, mlflow: str
) -> None:
    """The final tables and the command that opens the MLflow UI."""
    config, record = result.plan.config, result.detected.record
    console.print(ap_table(record, f"{config.name}: COCO's metrics, in percent"))
    console.print(cost_table(record.metrics))
    how = " (cached)" if result.detected.cached else ""
    console.print(
        f"Trained   {len(record.history)} epochs on {record.result['num_train_images']} images, "
        f"{record.wall_s:.0f} s{how}",
        highlight=False,
    )
    console.print(f"Detector  {record.fingerprint[:12]}", highlight=False)
    print_closing(
        console,
        elapsed_s=elapsed_s,
        storage=config.storage.path,
        figures=result.figures,
        mlflow=mlflow,
    )


def ap_table(record: StageRecord, title: str) -> Table:
    """The metrics; a dash where the validation images have no object of that size."""
    table = Table(title=title, title_justify="left")
    table.add_column("backbone", overflow="fold")
    for heading in _APS.values():
        table.add_column(heading, justify="right")
    values = (record.metrics.get(name) for name in _APS)
    table.add_row(
        record.result["arch"] or record.config["backbone"]["name"],
        *("–" if value is None else f"{100 * value:.2f}" for value in values),
    )
    return table


def cost_table(metrics: Mapping[str, float], title: str = "what it consists of") -> Table:
    """Multiply-adds and parameters of the parts and of the whole."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("FLOPs", justify="right")
    table.add_column("params", justify="right")
    for part in _PARTS:
        table.add_row(part, count(metrics[f"flops_{part}"]), count(metrics[f"params_{part}"]))
    table.add_section()
    table.add_row("detector", count(metrics["flops"]), count(metrics["params"]), style="bold")
    return table


def print_prediction(prediction: Prediction, console: Console) -> None:
    """How many objects of which class, and where the files lie."""
    table = Table(
        title=f"detected with a score of {prediction.threshold:g} at least", title_justify="left"
    )
    table.add_column("class")
    table.add_column("detections", justify="right")
    table.add_column("best score", justify="right")
    for category, number in Counter(one["category_id"] for one in prediction.drawn).most_common():
        best = max(one["score"] for one in prediction.drawn if one["category_id"] == category)
        table.add_row(escape(prediction.class_names[category]), str(number), f"{best:.2f}")
    console.print(table)
    folder = escape(str(prediction.folder))
    num_images = len(prediction.images)
    console.print(
        f"Images    {num_images} drawn, and listed in {IMAGE_LIST}, in {folder}", highlight=False
    )
    console.print(
        f"Results   {folder}/{DETECTIONS}: {len(prediction.detections)} of any score, in COCO's "
        "format",
        highlight=False,
    )
