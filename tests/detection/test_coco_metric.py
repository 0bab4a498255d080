"""Metrics against cases that are computed by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from detection.coco_metric import COCO_METRICS, coco_metrics
from tests.experiments.coco.coco_files import document, write_coco


def detection(bbox: list[float], score: float, image_id: int = 10, category_id: int = 7) -> Any:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def annotation_file(folder: Path, *boxes: list[float]) -> Path:
    """Objects of one category in one image of 400 × 400."""
    content = document()
    content["images"] = [{"id": 10, "file_name": "a.png", "width": 400, "height": 400}]
    content["categories"] = [{"id": 7, "name": "cat"}]
    content["annotations"] = [
        {
            "id": number,
            "image_id": 10,
            "category_id": 7,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, box in enumerate(boxes, start=1)
    ]
    return write_coco(folder, content)[0]


def test_perfect_detections_have_a_map_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = document()
    content["annotations"][1]["iscrowd"] = 0
    results = [
        detection(entry["bbox"], 0.9, entry["image_id"], entry["category_id"])
        for entry in content["annotations"]
    ]
    before = copy.deepcopy(results)
    metrics = coco_metrics(write_coco(tmp_path, content)[0], results)
    assert metrics == pytest.approx(dict.fromkeys(COCO_METRICS, 1.0))
    assert results == before
    assert capsys.readouterr().out == ""


def test_a_false_alarm_between_two_finds_costs_a_third_of_the_upper_recalls(tmp_path: Path) -> None:
    small, large = [0.0, 0.0, 30.0, 30.0], [100.0, 100.0, 100.0, 100.0]
    file = annotation_file(tmp_path, small, large)
    results = [detection(small, 0.9), detection([300, 0, 50, 50], 0.8), detection(large, 0.7)]
    # 101 recalls: up to 0.50 (51 of them) the precision is 1; above, it is 2 of 3.
    expected = (51 + 50 * 2 / 3) / 101
    metrics = coco_metrics(file, results)
    assert metrics["bbox_mAP"] == pytest.approx(expected)
    assert metrics["bbox_mAP_50"] == pytest.approx(expected)
    # The false alarm is of medium size: each of the two other sizes ignores it.
    assert metrics["bbox_mAP_s"] == pytest.approx(1.0)
    assert metrics["bbox_mAP_l"] == pytest.approx(1.0)
    assert "bbox_mAP_m" not in metrics  # there is no object of that size


def test_a_shifted_box_counts_up_to_its_overlap(tmp_path: Path) -> None:
    file = annotation_file(tmp_path, [0, 0, 100, 100])
    # IoU 80 / 120 = 0.667: found at 0.50, 0.55, 0.60 and 0.65, four of the ten thresholds.
    metrics = coco_metrics(file, [detection([20, 0, 100, 100], 0.9)])
    assert metrics["bbox_mAP"] == pytest.approx(0.4)
    assert metrics["bbox_mAP_50"] == pytest.approx(1.0)
    assert metrics["bbox_mAP_75"] == 0.0


def test_no_detections_give_zero_where_there_are_objects(tmp_path: Path) -> None:
    metrics = coco_metrics(annotation_file(tmp_path, [0, 0, 100, 100]), [])
    assert metrics == {
        "bbox_mAP": 0.0,
        "bbox_mAP_50": 0.0,
        "bbox_mAP_75": 0.0,
        "bbox_mAP_l": 0.0,
    }


@pytest.mark.parametrize(("field", "value"), [("image_id", 99), ("category_id", 1)])
def test_detections_of_something_else_are_refused(tmp_path: Path, field: str, value: int) -> None:
    file = annotation_file(tmp_path, [0, 0, 100, 100])
    with pytest.raises(ValueError, match=f"{field}.* does not list \\({value}\\)"):
        coco_metrics(file, [{**detection([0, 0, 9, 9], 0.9), field: value}])
