"""Arguments land where they belong, the defaults are published, and the config trains alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from torch import nn

from detection.bifpn import EFFICIENTDET_BN
from detection.recipe import CocoFiles, ImageFormat, detector_config
from detection.training import TRAINING_FILE
from experiments.config.detect import DetectConfig
from tests.detection.runs import (
    CLASS_NAMES,
    DETECTOR,
    GREY,
    NUM_TRAIN,
    SMALL_BACKBONE,
    SMALL_DETECT,
    run,
    saved,
    small_config,
    small_scenes,
)
from tests.interrupted import assert_same_value

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "detection" / "configs" / "efficientdet_d0_searched.py"

SCENES = CocoFiles("/data/scenes", CLASS_NAMES)

# Knows MMEngine and a file, and nothing else.
PLAIN_SCRIPT = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner

config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
Runner.from_cfg(config).train()
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_scenes(tmp_path_factory.mktemp("scenes") / "64")


def config_of(
    *,
    images: ImageFormat = GREY,
    data: CocoFiles = SCENES,
    backbone: Any = SMALL_BACKBONE,
    **changes: Any,
) -> Config:
    """Changes are fields of `detect` or arguments of `detector_config`."""
    detect = dict(SMALL_DETECT)
    setting: dict[str, Any] = {"seed": 3}
    for name, value in changes.items():
        (detect if name in detect else setting)[name] = value
    return detector_config(detect, backbone=backbone, images=images, data=data, **setting)


def datasets(config: Config) -> list[Any]:
    return [config.train_dataloader.dataset, config.val_dataloader.dataset]


# --- where it is computed ---


def test_gpus_synchronise_batch_norm_and_talk_by_nccl() -> None:
    config = config_of(use_gpu=True)
    assert config.sync_bn == "torch"
    assert config.env_cfg.dist_cfg.backend == "nccl"
    assert config.env_cfg.cudnn_benchmark is True
    assert "model_wrapper_cfg" not in config


def test_cpus_have_plain_batch_norm_and_talk_by_gloo() -> None:
    config = config_of()
    assert config.sync_bn is None
    assert config.env_cfg.dist_cfg.backend == "gloo"
    assert config.env_cfg.cudnn_benchmark is False
    wrapper = config.model_wrapper_cfg
    assert (wrapper.type, wrapper.device_ids) == ("MMDistributedDataParallel", None)


@pytest.mark.parametrize(
    ("backbone", "images"),
    [
        (SMALL_BACKBONE, GREY),
        ({"type": "TorchvisionBackbone", "name": "resnet18", "weights": None}, ImageFormat()),
    ],
    ids=["searched", "torchvision"],
)
def test_every_batch_norm_is_synchronised(backbone: Any, images: ImageFormat) -> None:
    config = config_of(
        use_gpu=True, backbone=backbone, images=images, out_strides=(8, 16, 32), image_size=128
    )
    network = MODELS.build(config.model)
    parts = (network.backbone, network.neck, network.bbox_head)
    before = [count(part, nn.BatchNorm2d) for part in parts]
    assert all(number > 3 for number in before)
    convert_sync_batchnorm(network, config.sync_bn)
    assert [count(part, nn.SyncBatchNorm) for part in parts] == before
    assert count(network, nn.BatchNorm2d) == 0


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def test_workers_share_a_batch() -> None:
    assert config_of(batch_size=24, num_workers=4).train_dataloader.batch_size == 6
    assert config_of(batch_size=24).train_dataloader.batch_size == 24


def test_loaders_stay_where_there_are_any() -> None:
    for number in (0, 3):
        config = config_of(num_loaders=number)
        for loader in (config.train_dataloader, config.val_dataloader):
            assert (loader.num_workers, loader.persistent_workers) == (number, number > 0)


# --- what is detected on ---


def test_grey_images_stay_grey(scenes: Path) -> None:
    config = small_config(scenes)
    preprocessor = config.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == ([127.5], [63.75])
    assert preprocessor.bgr_to_rgb is False
    for dataset in datasets(config):
        built = DATASETS.build(dataset)
        assert built.pipeline.transforms[0].color_type == "grayscale"
        assert built[0]["inputs"].shape[0] == 1


def test_colour_images_are_fed_as_rgb(scenes: Path) -> None:
    images = ImageFormat(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    config = small_config(scenes, images=images)
    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == pytest.approx([25.5, 51.0, 76.5])
    assert preprocessor.std == pytest.approx([102.0, 127.5, 153.0])
    assert preprocessor.bgr_to_rgb is True
    for dataset in datasets(config):
        built = DATASETS.build(dataset)
        assert built.pipeline.transforms[0].color_type == "color"
        assert built[0]["inputs"].shape[0] == 3
    # mmcv reads blue first: the first mean is that of red.
    bgr_CHW = torch.tensor([30.0, 20.0, 10.0]).view(3, 1, 1).expand(3, 64, 64)
    fed = MODELS.build(preprocessor)({"inputs": [bgr_CHW], "data_samples": None}, False)["inputs"]
    expected = [(10 - 25.5) / 102, (20 - 51) / 127.5, (30 - 76.5) / 153]
    assert fed[0, :, 0, 0].tolist() == pytest.approx(expected)


def test_pixels_are_fed_as_the_classifier_saw_them(scenes: Path) -> None:
    """(pixels in 0..1 − mean) / std."""
    config = small_config(scenes)
    pixels = torch.arange(64 * 64).remainder(256).view(1, 64, 64)
    preprocess = MODELS.build(config.model.data_preprocessor)
    fed = preprocess({"inputs": [pixels], "data_samples": None}, False)["inputs"]
    torch.testing.assert_close(fed[0], (pixels / 255 - 0.5) / 0.25)


def test_classes_are_counted_and_named_for_both_data_sets() -> None:
    config = config_of(data=CocoFiles("/data/pets", ["cat", "dog", "ant"]))
    assert config.model.bbox_head.num_classes == 3
    for dataset in datasets(config):
        assert dataset.metainfo.classes == ("cat", "dog", "ant")


def test_files_are_below_the_root(scenes: Path) -> None:
    for root in ("/data/scenes", "/data/scenes/"):
        config = config_of(data=CocoFiles(root, CLASS_NAMES))
        assert config.data_root == "/data/scenes/"
        assert [dataset.data_root for dataset in datasets(config)] == ["/data/scenes/"] * 2
        file = "/data/scenes/annotations/instances_val2017.json"
        assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == file
    train, val = (DATASETS.build(dataset) for dataset in datasets(small_config(scenes)))
    assert (len(train), len(val)) == (NUM_TRAIN, 3)
    assert Path(train[0]["data_samples"].img_path).parent == scenes / "train2017"
    assert Path(val[0]["data_samples"].img_path).parent == scenes / "val2017"


def test_a_test_is_a_validation() -> None:
    config = config_of()
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


# --- the network ---


@pytest.mark.parametrize(
    ("strides", "levels"), [((4, 8, 16), [4, 8, 16, 32, 64]), ((8, 16, 32), [8, 16, 32, 64, 128])]
)
def test_strides_decide_anchors_and_padding(strides: Any, levels: list[int]) -> None:
    config = config_of(out_strides=strides, image_size=128)
    assert config.model.backbone.out_strides == strides
    assert config.model.bbox_head.anchor_generator.strides == levels
    assert config.model.data_preprocessor.pad_size_divisor == levels[-1]
    network = MODELS.build(config.model)
    features = network.extract_feat(torch.zeros(2, 1, 128, 128))
    assert [128 // feature.shape[-1] for feature in features] == levels
    assert [stride for stride, _ in network.bbox_head.prior_generator.strides] == levels


def test_the_backbone_is_the_one_that_was_given() -> None:
    given = {"type": "TorchvisionBackbone", "name": "resnet18", "weights": None}
    backbone = config_of(backbone=given, out_strides=(8, 16, 32)).model.backbone
    assert backbone.to_dict() == {**given, "out_strides": (8, 16, 32)}


def test_momentum_of_batch_norm_is_that_of_neck_and_head() -> None:
    network = MODELS.build(config_of(bn_momentum=0.25).model)
    norms = {
        part: {
            (module.momentum, module.eps)
            for module in getattr(network, part).modules()
            if isinstance(module, nn.BatchNorm2d)
        }
        for part in ("backbone", "neck", "bbox_head")
    }
    assert norms["neck"] == norms["bbox_head"] == {(0.25, 1e-3)}
    assert norms["backbone"] == {(0.1, 1e-5)}


# --- the training ---


def test_sizes_scales_and_flips_reach_the_pipelines(scenes: Path) -> None:
    config = small_config(scenes, image_size=128, scale_range=(0.25, 1.75), flip_prob=0.125)
    train, val = (DATASETS.build(dataset).pipeline.transforms for dataset in datasets(config))
    steps = {type(step).__name__: step for step in train}
    assert steps["RandomResize"].scale == (128, 128)
    assert steps["RandomResize"].ratio_range == (0.25, 1.75)
    assert steps["RandomCrop"].crop_size == (128, 128)
    assert steps["RandomFlip"].prob == 0.125
    (resize,) = [step for step in val if type(step).__name__ == "Resize"]
    assert resize.scale == (128, 128)
    assert config.model.data_preprocessor.batch_augments[0]["size"] == (128, 128)
    assert config.train_pipeline == config.train_dataloader.dataset.pipeline
    assert config.test_pipeline == config.val_dataloader.dataset.pipeline


def test_seeds_reach_runner_and_augmentations() -> None:
    config = config_of(seed=17)
    assert config.randomness.seed == config.train_dataloader.dataset.seed == 17


def test_the_optimiser_is_the_one_that_was_asked_for() -> None:
    sgd = config_of(lr=0.5, momentum=0.8, weight_decay=0.01, clip_norm=3.0).optim_wrapper
    assert sgd.optimizer == {"type": "SGD", "momentum": 0.8, "lr": 0.5, "weight_decay": 0.01}
    assert sgd.clip_grad == {"max_norm": 3.0, "norm_type": 2}
    assert sgd.type == "OptimWrapper"
    adamw = config_of(optimizer="adamw", lr=0.5, weight_decay=0.01, clip_norm=None).optim_wrapper
    assert adamw.optimizer == {"type": "AdamW", "lr": 0.5, "weight_decay": 0.01}
    assert adamw.clip_grad is None
    half = config_of(precision="bfloat16").optim_wrapper
    assert (half.type, half.dtype) == ("AmpOptimWrapper", "bfloat16")
    assert half.optimizer == config_of().optim_wrapper.optimizer


def test_the_schedule_warms_up_and_then_falls() -> None:
    config = config_of(epochs=20, lr=0.5, warmup_lr=0.05, warmup_epochs=3, val_interval=7)
    warmup, cosine = config.param_scheduler
    assert warmup.start_factor == pytest.approx(0.1)
    assert (warmup.begin, warmup.end) == (0, 3)
    assert (cosine.begin, cosine.end, cosine.T_max) == (3, 20, 17)
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (20, 7)
    assert config.max_epochs == 20


def test_a_warmup_begins_at_a_tenth_where_nothing_else_is_said() -> None:
    warmup, _ = config_of(lr=0.5, warmup_lr=None).param_scheduler
    assert warmup.start_factor == 0.1


def test_without_warmup_epochs_there_is_none() -> None:
    (cosine,) = config_of(epochs=20, warmup_epochs=0).param_scheduler
    assert cosine.type == "CosineAnnealingLR"
    assert (cosine.begin, cosine.end, cosine.T_max) == (0, 20, 20)


def test_the_moving_average_has_its_momentum() -> None:
    hooks = {hook.type: hook for hook in config_of(ema_momentum=0.03).custom_hooks}
    assert hooks["EMAHook"].momentum == 0.03


def test_options_override_anything() -> None:
    config = config_of(
        options={
            "model.test_cfg.score_thr": 0.2,
            "model.bbox_head.loss_cls.gamma": 2.0,
            "optim_wrapper.optimizer.lr": 7.0,
            "param_scheduler.0.start_factor": 0.5,
            "train_cfg.val_begin": 4,
            "randomness.deterministic": True,
        }
    )
    assert config.model.test_cfg.score_thr == 0.2
    assert config.model.test_cfg.nms_pre == 1000
    assert config.model.bbox_head.loss_cls.gamma == 2.0
    assert config.optim_wrapper.optimizer.lr == 7.0
    assert config.param_scheduler[0].start_factor == 0.5
    assert config.train_cfg.val_begin == 4
    assert config.randomness == {"seed": 3, "deterministic": True}
    head = MODELS.build(config.model).bbox_head
    assert head.loss_cls.gamma == 2.0
    assert head.test_cfg.score_thr == 0.2


def test_options_of_something_else_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'modell\.neck\.out_channels', but .*model, .*optim_wr"):
        config_of(options={"modell.neck.out_channels": 32})


def test_a_config_leaves_its_arguments_and_other_configs_alone() -> None:
    detect = {**SMALL_DETECT, "options": {"model.test_cfg.score_thr": 0.2}}
    backbone = dict(SMALL_BACKBONE)
    given = detector_config(
        detect, backbone=backbone, images=GREY, data=CocoFiles("/data", CLASS_NAMES), seed=0
    )
    given.model.backbone.arch = "1 1 1"
    assert detect == {**SMALL_DETECT, "options": {"model.test_cfg.score_thr": 0.2}}
    assert backbone == SMALL_BACKBONE
    assert config_of().model.test_cfg.score_thr == 0.05


# --- the defaults ---


def test_the_defaults_are_the_published_recipe() -> None:
    """Eight GPUs with 16 images each, on COCO's 80 classes."""
    published = Config.fromfile(PUBLISHED)
    config = detector_config(
        DetectConfig.model_validate({"data": {"root": "data/coco"}}).model_dump(),
        backbone=published.model.backbone,
        images=ImageFormat(),
        data=CocoFiles("data/coco", [f"class {number}" for number in range(80)]),
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
    assert_same_numbers(ours, theirs)


def assert_same_numbers(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal but for the last digit of numbers that were computed."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_same_numbers(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same_numbers(mine, other, f"{where}.{index}")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-12), where
    else:
        assert ours == theirs, where


# --- the config alone ---


@pytest.mark.slow
def test_a_dumped_config_trains_the_same_detector_in_mmengine_alone(
    scenes: Path, tmp_path: Path
) -> None:
    config = small_config(scenes, epochs=2)
    config.dump(tmp_path / "detector.py")
    assert Config.fromfile(tmp_path / "detector.py").to_dict() == config.to_dict()
    (tmp_path / "plain.py").write_text(PLAIN_SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "plain.py", "detector.py", "work"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = torch.load(tmp_path / "work" / "epoch_2.pth", weights_only=False)
    context = run(config, tmp_path / "job")
    ours = saved(context, TRAINING_FILE)
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert_same_value(theirs[part], ours[part])
    assert_same_value(theirs["state_dict"], saved(context, DETECTOR))
