"""Table 3: own detectors by data set, seeds as one, and the published ones apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from experiments.report.evidence.detection import detection_section
from experiments.report.evidence.values import NOTHING, MeanStd, Number, Published, Section, Tracked
from tests.experiments.made_up_runs import (
    Runs,
    check_found_again,
    column,
    number_of,
    numbers,
    table,
)

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
    runs: Runs,
    run_id: str,
    data: Mapping[str, object],
    *,
    seed: int = 0,
    found: float = 0.3,
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
        "coco/bbox_mAP": found,
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


def names(section: Section) -> list[str]:
    return [each.name for each in section.tables]


def test_seeds_are_one_row_with_what_their_backbones_came_from() -> None:
    runs = Runs()
    for seed, found in ((0, 0.30), (1, 0.34)):
        retrained = runs.retrain(f"retrain{seed}", seed, arch="0 1 2", **{"retrain.epochs": 8})
        detect(runs, f"d{seed}", COCO, seed=seed, found=found, retrain=retrained, record=IS_COCO)
    section = detection_section(runs.evidence)
    own = table(section, "detection-coco")
    assert own.title == "Trained here: COCO val2017"
    (row,) = own.rows
    assert row[:2] == ("0 1 2", "8 epochs on digits: retrain retrain0, retrain1")
    assert row[3:6] == ("2", "512", "300")
    (mean_std,) = column(own, "mAP")
    assert isinstance(mean_std, MeanStd)
    assert mean_std.std is not None
    assert (mean_std.mean.text, mean_std.std.text) == ("32.00", "2.83")
    texts = {
        "its top-1 (%)": "90.00",
        "FLOPs": "2.70 G",
        "params": "4.1 M",
        "AP50": "50.00",
        "AP75": "25.00",
        "AP large": "40.00",
        "device-hours": "12.5000",
    }
    for name, text in texts.items():
        assert number_of(column(own, name)[0]).text == text, name
    assert column(own, "AP small") == [NOTHING]  # no object is small
    assert check_found_again(section, runs.evidence) > 10
    assert section.missing == ()


def test_scenes_are_not_coco_and_stand_apart() -> None:
    runs = Runs()
    detect(runs, "scenes", SCENES)
    detect(runs, "coco", COCO, record=IS_COCO)
    section = detection_section(runs.evidence)
    assert names(section) == ["detection-coco", "detection-digit_scenes", *PUBLISHED]
    scenes = table(section, "detection-digit_scenes")
    assert "50 generated digit scenes of 128×128, not COCO" in scenes.title
    assert "Not to be compared" in scenes.note
    assert "Not to be compared" not in section.tables[0].note


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"result": {"categories": [{}] * 3, "num_val_images": 40}}, "40 images with 3 classes"),
        ({"result": {"categories": [{}] * 80, "num_val_images": 4999}}, "not COCO val2017"),
        ({"result": None}, "whether they are COCO is not known"),
        (None, "whether they are COCO is not known"),
    ],
)
def test_coco_s_layout_alone_is_not_coco(record: Mapping[str, Any] | None, said: str) -> None:
    runs = Runs()
    detect(runs, "own", COCO, record=record)
    section = detection_section(runs.evidence)
    assert said in section.tables[0].title
    assert any("--set detect.data.root=COCO" in sentence for sentence in section.missing)


def test_two_data_sets_in_one_layout_are_two_tables() -> None:
    runs = Runs()
    detect(runs, "a", COCO, record=IS_COCO)
    detect(runs, "b", {**COCO, "detect.data.annotations.val": "ccc"})
    detect(runs, "c", COCO, backbone={"backbone.name": "resnet18"}, record=IS_COCO)
    section = detection_section(runs.evidence)
    assert names(section)[:2] == ["detection-coco", "detection-coco"]
    assert [row[0] for row in section.tables[0].rows] == ["0 1 2", "resnet18"]


@pytest.mark.parametrize(
    ("backbone", "retrain", "said"),
    [
        ({"backbone.name": "resnet18", "backbone.weights": "IMAGENET1K_V1"}, None, "IMAGENET1K_V1"),
        ({"backbone.name": "resnet18", "backbone.weights": "null"}, None, "random weights"),
        ({"backbone.arch": "0", "weights": "0123456789abcdef" * 4}, None, "0123456789abcdef"),
        ({"backbone.arch": "0"}, "elsewhere", "retrain elsewher, which is not in this experiment"),
    ],
)
def test_where_the_weights_come_from(
    backbone: Mapping[str, object], retrain: str | None, said: str
) -> None:
    runs = Runs()
    detect(runs, "d", SCENES, backbone=backbone, retrain=retrain)
    assert column(detection_section(runs.evidence).tables[0], "pretrained") == [said]


def test_a_detector_that_is_not_finished_has_no_row() -> None:
    runs = Runs()
    detect(runs, "running", SCENES, status="RUNNING")  # with the mAP of an earlier epoch
    detect(runs, "nan", SCENES, found=math.nan)
    runs.add("bare", "detect", status="FAILED")
    section = detection_section(runs.evidence)
    assert names(section) == PUBLISHED
    assert section.missing[0].startswith(
        "There is no final mAP of running (running), nan (finished), bare (failed)"
    )


def test_the_published_detectors_are_quoted_with_their_sources() -> None:
    section = detection_section(Runs().evidence)
    assert names(section) == PUBLISHED
    paper, *others = section.tables
    assert [number_of(cell).text for cell in column(paper, "mAP")] == [
        "27.6",
        "31.7",
        "32.2",
        "33.46",
        "33.32",
    ]
    by_images = {
        (each.name, row[each.columns.index("images")]): number_of(
            row[each.columns.index("mAP")]
        ).value
        for each in others
        for row in each.rows
    }
    assert by_images == {
        ("detection-efficientdet", "test-dev"): 33.8,
        ("detection-efficientdet", "val2017"): 33.5,
        ("detection-efficientdet-release", "test-dev"): 34.6,
        ("detection-efficientdet-release", "val2017"): 34.3,
    }
    sources = {each.source for each in map(published_source, numbers(section))}
    assert len(sources) == 3


def published_source(number: Number) -> Published:
    assert isinstance(number.source, Published)
    return number.source


def test_own_and_published_numbers_share_no_table() -> None:
    runs = Runs()
    detect(runs, "d", SCENES)
    for each in detection_section(runs.evidence).tables:
        kinds = {type(number_of(c).source) for row in each.rows for c in row if type(c) is not str}
        assert kinds == ({Published} if each.name in PUBLISHED else {Tracked})
