"""The detector that was saved detects what its evaluation detected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from PIL import Image

from detection import DETECTIONS_FILE, DETECTOR_FILE
from detection.inference import Detector
from detection.weights import WeightsError
from tests.detection.runs import SMALL_BACKBONE, Trained, load
from tests.interrupted import assert_same_value


@pytest.fixture
def detector(trained: Trained) -> Detector:
    return Detector(trained.config, trained.weights, device="cpu")


def in_cocos_format(objects: list[dict[str, Any]], image_id: int) -> list[dict[str, Any]]:
    """Category ids of the digit scenes are those of the labels, from 1."""
    return [
        {
            "image_id": image_id,
            "bbox": one["bbox"],
            "score": one["score"],
            "category_id": one["label"] + 1,
        }
        for one in objects
    ]


def test_an_image_has_the_objects_of_its_evaluation(
    scenes: Path, trained: Trained, detector: Detector
) -> None:
    assert not any(module.training for module in detector.network.modules())
    assert_same_value(dict(detector.network.state_dict()), load(trained.context, DETECTOR_FILE))
    evaluated = load(trained.context, DETECTIONS_FILE)
    for image_id in (3, 1, 2, 1):
        objects = detector.detect(scenes / "val2017" / f"{image_id:012d}.png")
        expected = [one for one in evaluated if one["image_id"] == image_id]
        assert len(objects) > 10
        assert in_cocos_format(objects, image_id) == expected
        scores = [one["score"] for one in objects]
        assert scores == sorted(scores, reverse=True)


def test_an_array_has_the_objects_of_its_file(scenes: Path, detector: Detector) -> None:
    path = scenes / "val2017" / "000000000001.png"
    with Image.open(path) as image:
        assert detector.detect(np.asarray(image.convert("RGB"))) == detector.detect(path)


def test_boxes_are_in_the_images_own_pixels(
    scenes: Path, detector: Detector, tmp_path: Path
) -> None:
    """An image of twice the size, without new content, has the same objects at twice the place."""
    path = scenes / "val2017" / "000000000001.png"
    with Image.open(path) as image:
        large = image.resize((128, 128), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    objects, twice = detector.detect(path), detector.detect(tmp_path / "large.png")
    assert len(twice) == len(objects)
    for small, big in zip(objects, twice, strict=True):
        assert big["bbox"] == pytest.approx([2 * value for value in small["bbox"]], rel=1e-4)
        assert big["score"] == pytest.approx(small["score"], rel=1e-4)
        assert big["label"] == small["label"]


def test_the_backbone_alone_begins_another_detector(detector: Detector, tmp_path: Path) -> None:
    state = detector.backbone_state()
    torch.save(state, tmp_path / "backbone.pt")
    given = {**SMALL_BACKBONE, "in_channels": 1, "checkpoint": str(tmp_path / "backbone.pt")}
    backbone = MODELS.build({**given, "out_strides": (4, 8, 16)})
    assert_same_value(dict(backbone.state_dict()), dict(state))


def test_weights_that_do_not_fit_are_refused(trained: Trained, tmp_path: Path) -> None:
    state = load(trained.context, DETECTOR_FILE)
    torch.save({**state, "neck.more": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(WeightsError, match="unexpected neck.more"):
        Detector(trained.config, tmp_path / "more.pt")
