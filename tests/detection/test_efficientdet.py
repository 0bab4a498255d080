"""The detector as configs make it: shapes, published sizes, costs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from detection.efficientdet import detector_cost
from nas.cost import flops_table, layer_costs, params_table
from nas.space import load_space, parse_architecture

CONFIGS = Path(__file__).parents[2] / "detection" / "configs"
ROWS = sorted(CONFIGS.glob("efficientdet_d0_*.py"))


def read(row: str) -> Config:
    config = Config.fromfile(CONFIGS / f"efficientdet_d0_{row}.py")
    if "weights" in config.model.backbone:
        config.model.backbone.weights = None  # nothing is downloaded here
    return config


def test_table_3_has_its_five_rows_which_differ_in_the_backbone_alone() -> None:
    names = [path.stem.removeprefix("efficientdet_d0_") for path in ROWS]
    assert names == ["efficientnet_b0", "mobilenet_v2", "resnet18", "searched", "shufflenet_v2"]
    rows = [Config.fromfile(path).to_dict() for path in ROWS]
    backbones = [row["model"].pop("backbone") for row in rows]
    assert all(row == rows[0] for row in rows)
    assert len({str(backbone) for backbone in backbones}) == 5


def test_the_recipe_is_efficientdets() -> None:
    config = read("searched")
    batch_size = config.auto_scale_lr.base_batch_size
    assert (batch_size, config.optim_wrapper.optimizer.lr) == (128, 0.16)
    assert config.train_cfg.max_epochs == config.param_scheduler[-1].end == 300
    assert config.custom_hooks[0].momentum == pytest.approx(1 - 0.9998)
    assert config.model.test_cfg.nms.type == "soft_nms"
    detector = MODELS.build(config.model).to("meta").eval()
    assert detector.bbox_head.num_base_priors == 9
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


def test_the_backbones_cost_is_what_nas_counts() -> None:
    model = read("searched").model
    space, choices = load_space("spos"), parse_architecture(model.backbone.arch)
    model.backbone.checkpoint = "not/there.pt"
    before = copy.deepcopy(model)
    cost = detector_cost(model, 224)
    assert model == before
    behind = [part for part in layer_costs(space, choices) if part.name in ("head", "classifier")]
    assert len(behind) == 2
    assert cost.flops["backbone"] == flops_table(space).of(choices) - sum(p.flops for p in behind)
    assert cost.params["backbone"] == params_table(space).of(choices) - sum(
        p.params for p in behind
    )
    large = detector_cost(model, 448)
    assert large.params == cost.params
    assert large.flops["backbone"] == 4 * cost.flops["backbone"]


def test_a_neck_for_another_backbone_is_refused() -> None:
    model = read("searched").model
    model.neck.in_channels = [40, 112, 320]
    with pytest.raises(ValueError, match=r"\[56, 128, 432\] channels.*\[40, 112, 320\]"):
        MODELS.build(model)
    model.neck.in_channels = [56, 128, 432]
    MODELS.build(model)
