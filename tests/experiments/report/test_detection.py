"""Table 3: own detectors by data set, seeds as one, and the published ones beside COCO's only."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import PIL.Image
import pytest

from experiments.report.detection import detection_section
from experiments.report.tables import NOTHING, Number
from orchestration.tracking.reader import TrackedRun
from tests.experiments.made_up_runs import MadeUpRuns, names, row, table

COCO = {
    "detect.data.name": "coco",
    "detect.data.annotations.train": "aaa",
    "detect.data.annotations.val": "bbb",
}
SCENES = {
    "detect.data.name": "digit_scenes",
    "detect.data.num_val": 50,
    "detect.data.image_size": 128,
}
PUBLISHED = ["detection-published", "detection-efficientdet", "detection-efficientdet-release"]
IS_COCO = {"result": {"categories": [{}] * 80, "num_val_images": 5000}}


def detect(
    runs: MadeUpRuns,
    run_id: str,
    data: Mapping[str, object],
    *,
    seed: int = 0,
    mean_ap: float = 0.3,
    backbone: Mapping[str, object] | None = None,
    retrain: str | None = None,
    status: str = "FINISHED",
    record: Mapping[str, Any] | None = None,
) -> str:
    params = {
        "seed": seed,
        "weights": "null",
        "detect.image_size": 512,
        "detect.epochs": 300,
        **(backbone or {"backbone.arch": "0 1 2"}),
        **data,
    }
    metrics = {
        "coco/bbox_mAP": mean_ap,
        "coco/bbox_mAP_50": 0.5,
        "coco/bbox_mAP_75": 0.25,
        "coco/bbox_mAP_l": 0.4,
        "flops": 2.7e9,
        "params": 4.1e6,
        "device_hours": 12.5,
    }
    inputs = None if retrain is None else {"retrain": retrain}
    runs.records[run_id] = record
    return runs.add(run_id, "detect", params, metrics, inputs=inputs, status=status)


def test_seeds_are_one_row_with_what_their_backbones_came_from() -> None:
    runs = MadeUpRuns()
    for seed, mean_ap in ((0, 0.30), (1, 0.34)):
        retrained = runs.retrain(f"retrain{seed}", seed, arch="0 1 2", **{"retrain.epochs": 8})
        detect(
            runs, f"d{seed}", COCO, record=IS_COCO, seed=seed, mean_ap=mean_ap, retrain=retrained
        )
    section = detection_section(runs.runs)
    own = table(section, "detection-coco")
    assert own.title == "Trained here: COCO val2017"
    assert len(own.rows) == 1
    texts = {heading: str(cell) for heading, cell in row(own).items()}
    assert texts == {
        "backbone": "0 1 2",
        "pretrained": "8 epochs on digits: retrain retrain0, retrain1",
        "its top-1 (%)": "90.00 ± 0.00",
        "seeds": "2",
        "image size": "512",
        "epochs": "300",
        "FLOPs": "2.70 G",
        "params": "4.1 M",
        "mAP": "32.00 ± 2.83",
        "AP50": "50.00 ± 0.00",
        "AP75": "25.00 ± 0.00",
        "AP small": NOTHING,  # no object is small
        "AP medium": NOTHING,
        "AP large": "40.00 ± 0.00",
        "device-hours": "12.5000 ± 0.0000",
    }
    assert section.missing == ""
    assert "32.00 ± 2.83 % mAP" in section.summary[0]


def test_published_detectors_stand_only_where_a_measured_one_stands_beside() -> None:
    runs = MadeUpRuns()
    detect(runs, "scenes", SCENES)
    section = detection_section(runs.runs)
    assert names(section) == ["detection-digit_scenes"]
    scenes = table(section, "detection-digit_scenes")
    assert "50 generated digit scenes of 128×128, not COCO" in scenes.title
    assert "Not to be compared" in scenes.note
    assert "--set detect.data.root=COCO" in section.missing

    detect(runs, "coco", COCO, record=IS_COCO)
    section = detection_section(runs.runs)
    assert names(section) == ["detection-coco", "detection-digit_scenes", *PUBLISHED]
    assert "Not to be compared" not in section.tables[0].note
    maps = {name: table(section, name).column("mAP") for name in PUBLISHED}
    shown = {name: [str(cell) for cell in cells] for name, cells in maps.items()}
    assert shown == {
        "detection-published": ["27.6", "31.7", "32.2", "33.46", "33.32", "30.00"],
        "detection-efficientdet": ["33.8", "33.5", "30.00"],
        "detection-efficientdet-release": ["34.6", "34.3", "30.00"],
    }
    assert all(table(section, name).rows[-1][0] == "here: 0 1 2" for name in PUBLISHED)


@pytest.mark.parametrize(
    ("record", "title"),
    [
        ({"result": {"categories": [{}] * 3, "num_val_images": 40}}, "40 images with 3 classes"),
        ({"result": {"categories": [{}] * 80, "num_val_images": 4999}}, "not COCO val2017"),
        ({"result": None}, "whether they are COCO is not known"),
        (None, "whether they are COCO is not known"),
    ],
)
def test_coco_s_layout_alone_is_not_coco(record: Mapping[str, Any] | None, title: str) -> None:
    runs = MadeUpRuns()
    detect(runs, "own", COCO, record=record)
    section = detection_section(runs.runs)
    assert title in section.tables[0].title
    assert section.missing


def test_two_data_sets_in_one_layout_are_two_tables() -> None:
    runs = MadeUpRuns()
    detect(runs, "a", COCO, record=IS_COCO)
    detect(runs, "b", {**COCO, "detect.data.annotations.val": "ccc"})
    detect(runs, "c", COCO, backbone={"backbone.name": "resnet18"}, record=IS_COCO)
    section = detection_section(runs.runs)
    assert names(section)[:2] == ["detection-coco", "detection-coco"]
    assert section.tables[0].column("backbone") == ["0 1 2", "resnet18"]


@pytest.mark.parametrize(
    ("backbone", "retrain", "text"),
    [
        ({"backbone.name": "resnet18", "backbone.weights": "IMAGENET1K_V1"}, None, "IMAGENET1K_V1"),
        ({"backbone.name": "resnet18", "backbone.weights": "null"}, None, "random weights"),
        ({"backbone.arch": "0", "weights": "0123456789abcdef" * 4}, None, "0123456789abcdef"),
        ({"backbone.arch": "0"}, "elsewhere", "retrain elsewher, which is not in this experiment"),
    ],
)
def test_where_the_weights_come_from(
    backbone: Mapping[str, object], retrain: str | None, text: str
) -> None:
    runs = MadeUpRuns()
    detect(runs, "d", SCENES, backbone=backbone, retrain=retrain)
    assert detection_section(runs.runs).tables[0].column("pretrained") == [text]


def test_a_detector_that_is_not_finished_has_no_row() -> None:
    runs = MadeUpRuns()
    detect(runs, "running", SCENES, status="RUNNING")  # with the mAP of an earlier epoch
    detect(runs, "nan", SCENES, mean_ap=math.nan)
    runs.add("bare", "detect", status="FAILED")
    section = detection_section(runs.runs)
    assert section.blocks == ()
    assert "`bnnas run experiments/configs/detect_coco_searched.yaml" in section.missing


def test_detections_are_a_picture_and_what_a_detector_consists_of_a_table() -> None:
    class WithImages(MadeUpRuns):
        def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
            assert prefix == "detections_"
            png = io.BytesIO()
            PIL.Image.new("RGB", (32, 32), "red").save(png, "png")
            return [png.getvalue()] * (3 if run.run_id == "with" else 0)

    runs = WithImages()
    for run_id in ("without", "with"):
        detect(runs, run_id, SCENES)
        parts = {
            f"{cost}_{part}": 1e6
            for cost in ("flops", "params")
            for part in ("backbone", "neck", "head")
        }
        runs.change(-1, "metrics", **parts)
    section = detection_section(runs.runs)
    newest, older = section.pictures
    figure = newest.draw()
    assert figure is not None
    assert sum(len(axes.images) for axes in figure.axes) == 3
    assert older.draw() is None  # where the images cannot be had, there is no figure
    parts_table = table(section, "detection-parts")
    backbone = dict(zip(parts_table.columns, parts_table.rows[0], strict=True))
    flops = backbone["FLOPs"]
    assert isinstance(flops, Number)
    assert flops.value == 1e6
