"""The detector as configs make it: shapes, published sizes, costs, and a step of training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from detection.efficientdet import detector_cost
from nas.cost import flops_table, layer_costs, params_table
from nas.space import load_space, parse_architecture
from tests.detection.examples import small_space

CONFIGS = Path(__file__).parents[2] / "detection" / "configs"
ROWS = sorted(CONFIGS.glob("efficientdet_d0_*.py"))


def read(row: str) -> Config:
    config = Config.fromfile(CONFIGS / f"efficientdet_d0_{row}.py")
    if "weights" in config.model.backbone:
        config.model.backbone.weights = None  # nothing is downloaded here
    return config


def test_table_3_has_its_five_rows() -> None:
    assert [path.stem.removeprefix("efficientdet_d0_") for path in ROWS] == [
        "efficientnet_b0",
        "mobilenet_v2",
        "resnet18",
        "searched",
        "shufflenet_v2",
    ]


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_rows_differ_in_the_backbone_alone(path: Path) -> None:
    row, searched = (Config.fromfile(file).to_dict() for file in (path, ROWS[3]))
    del row["model"]["backbone"], searched["model"]["backbone"]
    assert row == searched


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_a_dumped_config_builds_the_same_detector(path: Path, tmp_path: Path) -> None:
    config = read(path.stem.removeprefix("efficientdet_d0_"))
    config.dump(tmp_path / "dumped.py")
    dumped = Config.fromfile(tmp_path / "dumped.py")
    assert dumped.to_dict() == config.to_dict()
    first, again = (MODELS.build(c.model) for c in (config, dumped))
    shapes = {name: value.shape for name, value in first.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def test_the_recipe_is_efficientdets() -> None:
    config = read("searched")
    batch_size = config.auto_scale_lr.base_batch_size
    assert (batch_size, config.optim_wrapper.optimizer.lr) == (128, 0.16)
    assert config.train_cfg.max_epochs == config.param_scheduler[-1].end == 300
    assert config.custom_hooks[0].momentum == pytest.approx(1 - 0.9998)
    assert config.model.test_cfg.nms.type == "soft_nms"
    detector = MODELS.build(config.model)
    assert detector.bbox_head.num_base_priors == 9


def test_the_pyramid_of_a_512_pixel_image() -> None:
    detector = MODELS.build(read("searched").model).to("meta").eval()
    levels = detector.extract_feat(torch.empty(2, 3, 512, 512, device="meta"))
    assert [tuple(level.shape) for level in levels] == [
        (2, 64, side, side) for side in (64, 32, 16, 8, 4)
    ]


def test_d0_has_its_published_size() -> None:
    """3.88 M parameters and 2.49 G multiply-adds, with the 90 classes of COCO's numbering."""
    model = read("efficientnet_b0").model
    model.bbox_head.num_classes = 90
    cost = detector_cost(model, 512)
    assert sum(cost.params.values()) == pytest.approx(3.88e6, rel=0.01)
    assert sum(cost.flops.values()) == pytest.approx(2.49e9, rel=0.01)
    # Neck and head alone: the published total less torchvision's EfficientNet-B0 without its head.
    backbone = 3_595_388
    assert cost.params["backbone"] == backbone
    assert cost.params["neck"] + cost.params["head"] == pytest.approx(3.88e6 - backbone, rel=0.05)


@pytest.mark.parametrize("arch", ["3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"])
def test_the_backbones_cost_is_what_nas_counts(arch: str) -> None:
    space, choices = load_space("spos"), parse_architecture(arch)
    model = read("searched").model
    model.backbone.update(arch=arch, checkpoint="not/there.pt")
    before = copy.deepcopy(model)
    cost = detector_cost(model, 224)
    assert model == before
    behind = [part for part in layer_costs(space, choices) if part.name in ("head", "classifier")]
    assert len(behind) == 2
    assert cost.flops["backbone"] == flops_table(space).of(choices) - sum(p.flops for p in behind)
    assert cost.params["backbone"] == params_table(space).of(choices) - sum(
        p.params for p in behind
    )
    wide = detector_cost(model, (224, 448))
    assert wide.params == cost.params
    assert wide.flops["backbone"] == 2 * cost.flops["backbone"]


def test_a_neck_for_another_backbone_is_refused() -> None:
    model = read("searched").model
    model.neck.in_channels = [40, 112, 320]
    with pytest.raises(ValueError, match=r"\[56, 128, 432\] channels.*\[40, 112, 320\]"):
        MODELS.build(model)
    model.neck.in_channels = [56, 128, 432]
    MODELS.build(model)


def small_model() -> Any:
    model = read("searched").model
    model.backbone.update(space=small_space(3, 64), arch=[0, 0, 0])
    model.neck.update(out_channels=16, num_stages=1)
    model.bbox_head.update(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1)
    model.data_preprocessor.update(batch_augments=None, pad_size_divisor=64)
    return model


def test_a_detector_learns_two_images_by_heart_and_finds_their_objects() -> None:
    torch.manual_seed(0)
    detector = MODELS.build(small_model())
    detector.init_weights()
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 10:42, 8:40] = 255
    images[1, 0, 20:52, 20:52] = 200
    boxes = [[8.0, 10, 40, 42], [20.0, 20, 52, 52]]
    samples = []
    for index, box in enumerate(boxes):
        sample = DetDataSample(metainfo={"img_shape": (64, 64), "scale_factor": (1.0, 1.0)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([index]))
        samples.append(sample)
    data = {"inputs": list(images), "data_samples": samples}
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.01)
    detector.train()
    for _ in range(60):
        losses = detector(**detector.data_preprocessor(copy.deepcopy(data), True), mode="loss")
        total, _ = detector.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for module in detector.modules():  # 60 steps are too few for a momentum of 0.01
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        detector(**detector.data_preprocessor(copy.deepcopy(data), True), mode="loss")
        found = detector.eval().test_step(copy.deepcopy(data))
    for index, (sample, box) in enumerate(zip(found, boxes, strict=True)):
        best = sample.pred_instances[0]
        assert int(best.labels) == index
        assert best.bboxes[0].tolist() == pytest.approx(box, abs=4)
        assert float(best.scores) > 0.5
