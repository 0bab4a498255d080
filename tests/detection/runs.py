"""Trainings of a small detector in this process, and what two of them have to share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from detection import DETECTIONS_FILE, DETECTOR_FILE, LOSSES_FILE
from detection.coco.digit_scenes import make_digit_scenes
from detection.efficientdet import EfficientDet
from detection.recipe import detector_config
from detection.training import TRAINING_FILE, train_detector
from orchestration.jobs.worker import LocalWorkerContext
from tests.detection.examples import SMALL_DETECTOR, small_space
from tests.interrupted import assert_same_value, without_timings

NUM_TRAIN = 13  # three steps an epoch; the image that is left over is left out
LOG_INTERVAL = 2
FINAL = {"detector/params": 5.0}
CLASS_NAMES = tuple("0123456789")
GREY = {"mean": [0.5], "std": [0.25]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SMALL_BACKBONE = {"type": "SearchedBackbone", "space": small_space(1, 32), "arch": "0 0 0"}
SMALL_DETECT: dict[str, Any] = {
    "image_size": 64,
    "out_strides": (4, 8, 16),
    "epochs": 3,
    "batch_size": 4,
    "lr": 1.6,
    "warmup_lr": 0.16,
    "warmup_epochs": 1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 4e-5,
    "clip_norm": 10.0,
    "scale_range": (0.5, 1.5),
    "flip_prob": 0.5,
    "val_interval": 2,
    "ema_momentum": 0.1,
    "bn_momentum": 0.1,
    "precision": "float32",
    "options": {},
}


def small_scenes(folder: Path) -> Path:
    return make_digit_scenes(folder, num_train=NUM_TRAIN, num_val=3, image_size=64)


def small_config(
    root: str | Path,
    backbone: Any = SMALL_BACKBONE,
    pixels: Any = GREY,
    class_names: tuple[str, ...] = CLASS_NAMES,
    **changes: Any,
) -> Config:
    """A detector that trains an epoch in a fraction of a second.

    Changes are fields of `detect` or arguments of `detector_config`.
    """
    detect = dict(SMALL_DETECT)
    setting: dict[str, Any] = {"seed": 3}
    for name, value in changes.items():
        (detect if name in detect else setting)[name] = value
    detect["options"] = {**SMALL_DETECTOR, **detect["options"]}
    return detector_config(
        detect,
        backbone=backbone,
        pixels=pixels,
        data_root=str(root),
        class_names=class_names,
        **setting,
    )


def train(config: Config, context: Any) -> None:
    train_detector(config, context, log_interval=LOG_INTERVAL, final_metrics=FINAL)


def run(config: Config, folder: Path) -> LocalWorkerContext:
    context = LocalWorkerContext(folder)
    train(config, context)
    return context


def load(context: LocalWorkerContext, file: str) -> Any:
    """A file of the last checkpoint."""
    assert context.checkpoint is not None
    path = context.checkpoint / file
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return torch.load(path, weights_only=True)


def assert_same_end(ours: LocalWorkerContext, theirs: LocalWorkerContext) -> None:
    """Equal to the bit: history, training state, detector, detections, losses of all intervals."""
    assert without_timings(ours.history) == without_timings(theirs.history)
    mine, other = (load(context, TRAINING_FILE) for context in (ours, theirs))
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert_same_value(mine[part], other[part])
    for file in (DETECTOR_FILE, DETECTIONS_FILE, LOSSES_FILE):
        assert_same_value(load(ours, file), load(theirs, file))


@dataclass(frozen=True)
class Trained:
    """A training: its config before and after it, what it left, and the rate of every step."""

    config: Config
    config_text: str
    context: LocalWorkerContext
    rates: list[list[float]]

    @classmethod
    def on(cls, scenes: Path, folder: Path) -> Trained:
        config, rates = small_config(scenes), []
        text, train_step = config.pretty_text, EfficientDet.train_step

        def recorded(self: EfficientDet, data: Any, optim_wrapper: Any) -> Any:
            rates.append(optim_wrapper.get_lr()["lr"])
            return train_step(self, data, optim_wrapper)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EfficientDet, "train_step", recorded)
            return cls(config, text, run(config, folder), rates)

    @property
    def weights(self) -> Path:
        assert self.context.checkpoint is not None
        return self.context.checkpoint / DETECTOR_FILE
