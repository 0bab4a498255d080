"""The detector that was saved finds what its evaluation found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image

from detection.inference import Detector
from detection.recipe import ImageFormat
from detection.weights import WeightsError
from orchestration.jobs.worker import LocalWorkerContext
from tests.detection.runs import (
    DETECTIONS,
    DETECTOR,
    SMALL_BACKBONE,
    kept,
    run,
    saved,
    small_config,
    small_scenes,
)

TORCHVISION = {"type": "TorchvisionBackbone", "name": "shufflenet_v2_x1_0", "weights": None}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_scenes(tmp_path_factory.mktemp("scenes") / "64")


@pytest.fixture(scope="module")
def config(scenes: Path) -> Config:
    return small_config(scenes, epochs=2)


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> LocalWorkerContext:
    return run(config, tmp_path_factory.mktemp("job"))


def weights(trained: LocalWorkerContext) -> Path:
    assert trained.checkpoint is not None
    return trained.checkpoint / DETECTOR


def in_cocos_format(found: list[dict[str, Any]], image_id: int) -> list[dict[str, Any]]:
    """Category ids of the digit scenes are those of the labels, from 1."""
    return [
        {
            "image_id": image_id,
            "bbox": one["bbox"],
            "score": one["score"],
            "category_id": one["label"] + 1,
        }
        for one in found
    ]


def test_an_image_has_the_objects_that_the_evaluation_found(
    scenes: Path, config: Config, trained: LocalWorkerContext
) -> None:
    evaluated = kept(trained, DETECTIONS)
    detector = Detector(config, weights(trained), device="cpu")
    for image_id in (3, 1, 2, 1):
        found = detector.detect(scenes / "val2017" / f"{image_id:012d}.png")
        expected = [one for one in evaluated if one["image_id"] == image_id]
        assert len(found) > 10
        assert in_cocos_format(found, image_id) == expected
        scores = [one["score"] for one in found]
        assert scores == sorted(scores, reverse=True)


def test_boxes_are_in_the_images_own_pixels(
    scenes: Path, config: Config, trained: LocalWorkerContext, tmp_path: Path
) -> None:
    """An image of twice the size, without new content, has the same objects at twice the place."""
    detector = Detector(config, weights(trained), device="cpu")
    path = scenes / "val2017" / "000000000001.png"
    with Image.open(path) as image:
        large = image.resize((128, 128), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    found, twice = detector.detect(path), detector.detect(tmp_path / "large.png")
    assert len(twice) == len(found)
    for small, big in zip(found, twice, strict=True):
        assert big["bbox"] == pytest.approx([2 * value for value in small["bbox"]], rel=1e-4)
        assert big["score"] == pytest.approx(small["score"], rel=1e-4)
        assert big["label"] == small["label"]


def test_a_detector_is_in_evaluation_mode_with_the_weights_of_the_file(
    config: Config, trained: LocalWorkerContext
) -> None:
    detector = Detector(config, weights(trained), device="cpu")
    assert not any(module.training for module in detector.network.modules())
    state = saved(trained, DETECTOR)
    found = detector.network.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_the_backbone_alone_begins_another_detector(
    config: Config, trained: LocalWorkerContext, tmp_path: Path
) -> None:
    state = Detector(config, weights(trained), device="cpu").backbone_state()
    torch.save(state, tmp_path / "backbone.pt")
    given = {**SMALL_BACKBONE, "in_channels": 1, "checkpoint": str(tmp_path / "backbone.pt")}
    backbone = MODELS.build({**given, "out_strides": (4, 8, 16)})
    assert backbone.state_dict().keys() == state.keys()
    assert all(torch.equal(backbone.state_dict()[key], state[key]) for key in state)


def test_weights_that_do_not_fit_are_refused_by_name(
    scenes: Path, config: Config, trained: LocalWorkerContext, tmp_path: Path
) -> None:
    state = saved(trained, DETECTOR)
    name = next(key for key in state if key.startswith("neck.") and key.endswith("weight"))
    torch.save({k: v for k, v in state.items() if k != name}, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=f"missing {name}"):
        Detector(config, tmp_path / "less.pt")
    torch.save({**state, "neck.more": state[name]}, tmp_path / "more.pt")
    with pytest.raises(WeightsError, match="unexpected neck.more"):
        Detector(config, tmp_path / "more.pt")
    other = small_config(scenes, backbone=TORCHVISION, images=ImageFormat())
    with pytest.raises(WeightsError, match="missing backbone.parts"):
        Detector(other, weights(trained))
    with pytest.raises(WeightsError, match="cannot be read"):
        Detector(config, tmp_path / "absent.pt")
