"""Metrics against cases that are computed by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.coco_metric import COCO_METRICS, UnroundedCocoMetric, coco_metrics
from tests.detection.coco.coco_files import document, write_coco


def detection(bbox: list[float], score: float, image_id: int = 10, category_id: int = 7) -> Any:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def annotation_file(folder: Path, *boxes: list[float], num_images: int = 1) -> Path:
    """Objects in images of 400 × 400: cats (7) in one; in several, ants (3) come in, too."""
    rng = np.random.default_rng(0)
    content = document()
    content["images"] = [
        {"id": 10 * number, "file_name": f"{number}.png", "width": 400, "height": 400}
        for number in range(1, num_images + 1)
    ]
    content["annotations"] = [
        {
            "id": number,
            "image_id": 10 * (1 + (number - 1) * num_images // len(boxes)),
            "category_id": 7 if num_images == 1 else int(rng.choice([7, 3])),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, box in enumerate(boxes, start=1)
    ]
    return write_coco(folder, content)[0]


def test_a_false_alarm_between_two_finds_costs_a_third_of_the_upper_recalls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = [0.0, 0.0, 30.0, 30.0], [100.0, 100.0, 100.0, 100.0]
    file = annotation_file(tmp_path, small, large)
    results = [detection(small, 0.9), detection([300, 0, 50, 50], 0.8), detection(large, 0.7)]
    before = copy.deepcopy(results)
    # 101 recalls: up to 0.50 (51 of them) the precision is 1; above, it is 2 of 3.
    expected = (51 + 50 * 2 / 3) / 101
    metrics = coco_metrics(file, results)
    assert results == before
    assert capsys.readouterr().out == ""
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


@pytest.mark.parametrize(("field", "value"), [("image_id", 99), ("category_id", 1)])
def test_detections_of_something_else_are_refused(tmp_path: Path, field: str, value: int) -> None:
    file = annotation_file(tmp_path, [0, 0, 100, 100])
    with pytest.raises(ValueError, match=f"{field}.* does not list \\({value}\\)"):
        coco_metrics(file, [{**detection([0, 0, 9, 9], 0.9), field: value}])


# --- `UnroundedCocoMetric`, as an evaluation uses it, on detections that are nearly right ---

NUM_IMAGES = 6


@pytest.fixture
def truth_file(tmp_path: Path) -> Path:
    """Five objects an image, of all three sizes."""
    rng = np.random.default_rng(0)
    boxes = [
        [*rng.uniform(0, 400 - side, 2).tolist(), side, side]
        for side in (16, 28, 60, 90, 150) * NUM_IMAGES
    ]
    return annotation_file(tmp_path, *boxes, num_images=NUM_IMAGES)


@pytest.fixture
def samples(truth_file: Path) -> list[dict[str, Any]]:
    """Every object detected, a little beside its place, and as many false alarms."""
    rng = np.random.default_rng(1)
    content = json.loads(truth_file.read_text(encoding="utf-8"))
    samples = []
    for image in content["images"]:
        objects = [o for o in content["annotations"] if o["image_id"] == image["id"]]
        boxes_N4 = np.array(
            [[*o["bbox"][:2], *np.add(o["bbox"][:2], o["bbox"][2:])] for o in objects]
        )
        sides_N1 = np.array([[o["bbox"][2]] for o in objects])
        beside_N4 = boxes_N4 + 0.05 * sides_N1 * rng.normal(size=boxes_N4.shape)
        corners_N2 = rng.uniform(0, 300, (len(objects), 2))
        alarms_N4 = np.concatenate([corners_N2, corners_N2 + 80], axis=1)
        labels = [[7, 3].index(o["category_id"]) for o in objects]
        samples.append(
            {
                "img_id": image["id"],
                "ori_shape": (400, 400),
                "pred_instances": {
                    "bboxes": torch.tensor(np.concatenate([beside_N4, alarms_N4])),
                    "scores": torch.tensor(rng.uniform(size=2 * len(objects))),
                    "labels": torch.tensor(labels + labels[::-1]),
                },
            }
        )
    return samples


def make_metric(truth_file: Path, **config: Any) -> UnroundedCocoMetric:
    metric: UnroundedCocoMetric = METRICS.build(
        {"type": "UnroundedCocoMetric", "ann_file": str(truth_file), **config}
    )
    metric.dataset_meta = {"classes": ("cat", "ant")}
    return metric


def test_it_is_pycocotools_on_the_file_with_the_detections(
    truth_file: Path, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "detections.json"
    metric = make_metric(truth_file, results_file=str(file))
    for sample in samples:
        metric.process({}, [sample])
    metrics = metric.evaluate(NUM_IMAGES)
    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = [f"coco/{name}" for name in COCO_METRICS]
    expected = dict(zip(names, evaluation.stats[:6].tolist(), strict=True))
    assert metrics == pytest.approx(expected, abs=1e-12)
    assert 0.1 < metrics["coco/bbox_mAP"] < 0.9
    assert all(metrics[name] != round(metrics[name], 3) for name in names[:3])

    detections = json.loads(file.read_text(encoding="utf-8"))
    instances = [one["pred_instances"] for one in samples]
    labels = torch.cat([one["labels"] for one in instances]).tolist()
    assert [one["category_id"] for one in detections] == [[7, 3][label] for label in labels]
    left, top, right, bottom = instances[0]["bboxes"][0].tolist()
    assert detections[0]["image_id"] == 10
    assert detections[0]["bbox"] == [left, top, right - left, bottom - top]
    assert detections[0]["score"] == instances[0]["scores"][0].item()

    # Without a file it says the same, and leaves nothing.
    before = set(tmp_path.iterdir())
    again = make_metric(truth_file)
    again.process({}, samples)
    assert again.evaluate(NUM_IMAGES) == metrics
    assert set(tmp_path.iterdir()) == before

    # One metric evaluates again and again.
    nothing = [
        {**one, "pred_instances": {k: v[:0] for k, v in one["pred_instances"].items()}}
        for one in samples
    ]
    metric.process({}, nothing)
    assert set(metric.evaluate(NUM_IMAGES).values()) == {0.0}
    assert json.loads(file.read_text(encoding="utf-8")) == []
    metric.process({}, samples)
    assert metric.evaluate(NUM_IMAGES) == metrics
