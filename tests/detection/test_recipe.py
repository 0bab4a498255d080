"""Arguments land where they belong, the defaults are published, and the config trains alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn

from detection import DETECTOR_FILE
from detection.bifpn import EFFICIENTDET_BN
from detection.recipe import detector_config
from detection.training import TRAINING_FILE
from experiments.config.detect import DetectConfig
from tests.detection.runs import (
    CLASS_NAMES,
    GREY,
    IMAGENET,
    NUM_TRAIN,
    SMALL_BACKBONE,
    SMALL_DETECT,
    Trained,
    load,
    small_config,
)
from tests.interrupted import assert_same_value

PUBLISHED = Path(__file__).parents[2] / "detection" / "configs" / "efficientdet_d0_searched.py"
RESNET = {"type": "TorchvisionBackbone", "name": "resnet18", "weights": None}
SCENES = "/data/scenes"

# What is asked for, and what the config has then.
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"use_gpu": False},
        {
            "sync_bn": None,
            "env_cfg.dist_cfg.backend": "gloo",
            "env_cfg.cudnn_benchmark": False,
            "model_wrapper_cfg.type": "MMDistributedDataParallel",
            "model_wrapper_cfg.device_ids": None,
        },
    ),
    ({"batch_size": 24, "num_workers": 4}, {"train_dataloader.batch_size": 6}),
    (
        {"num_loaders": 3},
        {
            f"{split}_dataloader.{field}": value
            for split in ("train", "val")
            for field, value in (("num_workers", 3), ("persistent_workers", True))
        },
    ),
    ({"root": "/data/scenes/"}, {"data_root": "/data/scenes/"}),
    (
        {"root": SCENES},
        {
            "data_root": "/data/scenes/",
            "val_evaluator.ann_file": "/data/scenes/annotations/instances_val2017.json",
        },
    ),
    ({"seed": 17}, {"randomness.seed": 17, "train_dataloader.dataset.seed": 17}),
    (
        {"lr": 0.5, "momentum": 0.8, "weight_decay": 0.01, "clip_norm": 3.0},
        {
            "optim_wrapper.optimizer": {
                "type": "SGD",
                "momentum": 0.8,
                "lr": 0.5,
                "weight_decay": 0.01,
            },
            "optim_wrapper.clip_grad": {"max_norm": 3.0, "norm_type": 2},
        },
    ),
    (
        {"optimizer": "adamw", "lr": 0.5, "weight_decay": 0.01, "clip_norm": None},
        {
            "optim_wrapper.optimizer": {"type": "AdamW", "lr": 0.5, "weight_decay": 0.01},
            "optim_wrapper.clip_grad": None,
        },
    ),
    (
        {"precision": "bfloat16"},
        {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "bfloat16"},
    ),
    ({"lr": 0.5, "warmup_lr": None}, {"param_scheduler.0.start_factor": 0.1}),
    (
        {"epochs": 20, "warmup_epochs": 0},
        {
            "param_scheduler.0.type": "CosineAnnealingLR",
            "param_scheduler.0.begin": 0,
            "param_scheduler.0.T_max": 20,
            "param_scheduler.1": None,
        },
    ),
    ({"ema_momentum": 0.03}, {"custom_hooks.0.type": "EMAHook", "custom_hooks.0.momentum": 0.03}),
    (
        {"options": {"model.bbox_head.loss_cls.gamma": 2.0, "param_scheduler.0.start_factor": 0.5}},
        {
            "model.bbox_head.loss_cls.gamma": 2.0,
            "model.bbox_head.loss_cls.alpha": 0.25,
            "param_scheduler.0.start_factor": 0.5,
        },
    ),
]


def at(config: Any, path: str) -> Any:
    """What a dotted path leads to; None where there is nothing."""
    for key in path.split("."):
        if isinstance(config, list):
            config = config[int(key)] if int(key) < len(config) else None
        else:
            config = config.get(key)
    return config


@pytest.mark.parametrize(("changes", "expected"), FIELDS, ids=", ".join)
def test_a_field_decides_what_it_is_for(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    config = small_config(**{"root": SCENES, **changes})
    assert {path: at(config, path) for path in expected} == expected
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


# --- what is built from it ---


@pytest.mark.parametrize(
    ("backbone", "pixels"),
    [(SMALL_BACKBONE, GREY), (RESNET, IMAGENET)],
    ids=["ours", "theirs"],
)
def test_every_batch_norm_is_synchronised(backbone: Any, pixels: Any) -> None:
    config = small_config(
        SCENES, use_gpu=True, backbone=backbone, pixels=pixels, out_strides=(8, 16, 32)
    )
    network = MODELS.build(config.model)
    parts = (network.backbone, network.neck, network.bbox_head)

    def counts(kind: type[nn.Module]) -> list[int]:
        return [sum(isinstance(module, kind) for module in part.modules()) for part in parts]

    before = counts(nn.BatchNorm2d)
    assert all(number > 3 for number in before)
    convert_sync_batchnorm(network, config.sync_bn)
    assert counts(nn.SyncBatchNorm) == before
    assert counts(nn.BatchNorm2d) == [0, 0, 0]


@pytest.mark.parametrize(
    ("statistics", "channels", "color_type"),
    [(GREY, 1, "grayscale"), ({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, 3, "color")],
    ids=["grey", "RGB"],
)
def test_pixels_are_fed_as_the_classifier_saw_them(
    scenes: Path, statistics: Any, channels: int, color_type: str
) -> None:
    """(pixels in 0..1 − mean) / std; mmcv reads blue first, and the first mean is that of red."""
    config = small_config(scenes, pixels=statistics)
    train, val = (
        DATASETS.build(config[f"{split}_dataloader"].dataset) for split in ("train", "val")
    )
    assert (len(train), len(val)) == (NUM_TRAIN, 3)
    for dataset, folder in ((train, "train2017"), (val, "val2017")):
        assert Path(dataset[0]["data_samples"].img_path).parent == scenes / folder
        assert dataset.pipeline.transforms[0].color_type == color_type
        assert dataset[0]["inputs"].shape[0] == channels
    pixels_CHW = torch.arange(channels * 64 * 64).remainder(256).view(channels, 64, 64)
    preprocess = MODELS.build(config.model.data_preprocessor)
    fed = preprocess({"inputs": [pixels_CHW], "data_samples": None}, False)["inputs"]
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (statistics["mean"], statistics["std"])
    )
    torch.testing.assert_close(fed[0], (pixels_CHW.flip(0) / 255 - mean) / std)


@pytest.mark.parametrize(
    ("strides", "levels"), [((4, 8, 16), [4, 8, 16, 32, 64]), ((8, 16, 32), [8, 16, 32, 64, 128])]
)
def test_strides_decide_anchors_and_padding(strides: Any, levels: list[int]) -> None:
    config = small_config(SCENES, out_strides=strides, image_size=128, bn_momentum=0.25)
    assert config.model.data_preprocessor.pad_size_divisor == levels[-1]
    network = MODELS.build(config.model)
    features = network.extract_feat(torch.zeros(2, 1, 128, 128))
    assert [128 // feature.shape[-1] for feature in features] == levels
    assert [stride for stride, _ in network.bbox_head.prior_generator.strides] == levels
    norms = [
        {(m.momentum, m.eps) for m in part.modules() if isinstance(m, nn.BatchNorm2d)}
        for part in (network.backbone, network.neck, network.bbox_head)
    ]
    assert norms == [{(0.1, 1e-5)}, {(0.25, 1e-3)}, {(0.25, 1e-3)}]


def test_sizes_scales_and_flips_reach_the_pipelines(scenes: Path) -> None:
    config = small_config(scenes, image_size=128, scale_range=(0.25, 1.75), flip_prob=0.125)
    train, val = (
        {
            type(step).__name__: step
            for step in DATASETS.build(config[f"{split}_dataloader"].dataset).pipeline.transforms
        }
        for split in ("train", "val")
    )
    assert train["RandomResize"].scale == train["RandomCrop"].crop_size == (128, 128)
    assert train["RandomResize"].ratio_range == (0.25, 1.75)
    assert train["RandomFlip"].prob == 0.125
    assert val["Resize"].scale == (128, 128)
    assert config.model.data_preprocessor.batch_augments[0]["size"] == (128, 128)
    assert config.train_pipeline == config.train_dataloader.dataset.pipeline
    assert config.test_pipeline == config.val_dataloader.dataset.pipeline


def test_options_of_something_else_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'modell\.neck\.out_channels', but .*model, .*optim_wr"):
        small_config(SCENES, options={"modell.neck.out_channels": 32})


def test_a_config_leaves_its_arguments_and_other_configs_alone() -> None:
    detect = {**SMALL_DETECT, "options": {"model.test_cfg.score_thr": 0.2}}
    backbone = dict(SMALL_BACKBONE)
    given: Any = {"pixels": GREY, "data_root": SCENES, "class_names": CLASS_NAMES, "seed": 0}
    changed = detector_config(detect, backbone=backbone, **given)
    changed.model.backbone.arch = "1 1 1"
    assert detect == {**SMALL_DETECT, "options": {"model.test_cfg.score_thr": 0.2}}
    assert backbone == SMALL_BACKBONE
    fresh = detector_config(SMALL_DETECT, backbone=backbone, **given)
    assert fresh.model.test_cfg.score_thr == 0.05


# --- the defaults ---


def test_the_defaults_are_the_published_recipe() -> None:
    """Eight GPUs with 16 images each, on COCO's 80 classes."""
    published = Config.fromfile(PUBLISHED)
    config = detector_config(
        DetectConfig.model_validate({"data": {"root": "data/coco"}}).model_dump(),
        backbone=published.model.backbone,
        pixels=IMAGENET,
        data_root="data/coco",
        class_names=[f"class {number}" for number in range(80)],
        seed=0,
        num_workers=8,
        num_loaders=8,
        use_gpu=True,
    )
    ours, theirs = config.to_dict(), published.to_dict()
    for part in ("neck", "bbox_head"):  # theirs is the network's own default
        assert ours["model"][part].pop("norm_cfg") == EFFICIENTDET_BN
        assert "norm_cfg" not in theirs["model"][part]
    for split in ("train", "val", "test"):
        assert len(ours[f"{split}_dataloader"]["dataset"].pop("metainfo")["classes"]) == 80
    assert ours["train_dataloader"]["dataset"].pop("seed") == 0
    for split in ("val", "test"):  # whose loaders are as many as those of training
        assert ours[f"{split}_dataloader"].pop("num_workers") == 8
        assert theirs[f"{split}_dataloader"].pop("num_workers") == 2
    assert rounded(ours) == rounded(theirs)


def rounded(config: Any) -> Any:
    """To 12 digits: the last ones of numbers that were computed may differ."""
    return json.loads(json.dumps(config), parse_float=lambda text: float(f"{float(text):.12g}"))


# --- the config alone ---


def test_a_dumped_config_trains_the_same_detector_in_mmengine_alone(
    trained: Trained, tmp_path: Path
) -> None:
    trained.config.dump(tmp_path / "detector.py")
    config = Config.fromfile(tmp_path / "detector.py")
    assert config.to_dict() == trained.config.to_dict()
    config.work_dir = str(tmp_path / "work")
    Runner.from_cfg(config).train()
    theirs = torch.load(tmp_path / "work" / "epoch_3.pth", weights_only=False)
    ours = load(trained.context, TRAINING_FILE)
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert_same_value(theirs[part], ours[part])
    assert_same_value(theirs["state_dict"], load(trained.context, DETECTOR_FILE))
