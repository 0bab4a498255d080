"""Trainings of a small detector in this process, and what two of them have to share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from detection.coco.digit_scenes import make_digit_scenes
from detection.recipe import CocoFiles, ImageFormat, detector_config
from detection.training import TRAINING_FILE, train_detector
from orchestration.jobs.worker import LocalWorkerContext
from tests.detection.examples import SMALL_DETECTOR, small_space
from tests.interrupted import assert_same_value, in_pieces, without_timings

DETECTOR, DETECTIONS, LOSSES = "detector.pt", "detections.json", "losses.json"
NUM_TRAIN = 13  # three steps an epoch; the image that is left over is left out
LOG_INTERVAL = 2
CLASS_NAMES = tuple("0123456789")
GREY = ImageFormat((0.5,), (0.25,))
SMALL_BACKBONE = {"type": "SearchedBackbone", "space": small_space(1, 32), "arch": "0 0 0"}
SMALL_DETECT: dict[str, Any] = {
    "image_size": 64,
    "out_strides": (4, 8, 16),
    "epochs": 5,
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
    root: Path, backbone: Any = SMALL_BACKBONE, images: ImageFormat = GREY, **changes: Any
) -> Config:
    """A detector that trains an epoch in a fraction of a second."""
    detect = dict(SMALL_DETECT)
    setting: dict[str, Any] = {"seed": 3}
    for name, value in changes.items():
        (detect if name in detect else setting)[name] = value
    detect["options"] = {**SMALL_DETECTOR, **detect["options"]}
    return detector_config(
        detect,
        backbone=backbone,
        images=images,
        data=CocoFiles(str(root), CLASS_NAMES),
        **setting,
    )


def train(config: Config, context: Any) -> None:
    train_detector(
        config,
        context,
        detector_file=DETECTOR,
        detections_file=DETECTIONS,
        losses_file=LOSSES,
        log_interval=LOG_INTERVAL,
    )


def run(config: Config, folder: Path) -> LocalWorkerContext:
    context = LocalWorkerContext(folder)
    train(config, context)
    return context


def run_in_pieces(config: Config, folder: Path) -> LocalWorkerContext:
    """One epoch a process."""
    return in_pieces(lambda context: train(config, context), folder)


def saved(context: LocalWorkerContext, file: str) -> Any:
    assert context.checkpoint is not None
    return torch.load(context.checkpoint / file, weights_only=True)


def kept(context: LocalWorkerContext, file: str) -> Any:
    assert context.checkpoint is not None
    return json.loads((context.checkpoint / file).read_text(encoding="utf-8"))


def assert_same_training(ours: LocalWorkerContext, theirs: LocalWorkerContext) -> None:
    """Equal weights, moving average, optimiser, schedule and history, to the bit."""
    assert without_timings(ours.history) == without_timings(theirs.history)
    mine, other = (saved(context, TRAINING_FILE) for context in (ours, theirs))
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert_same_value(mine[part], other[part])


def assert_same_end(ours: LocalWorkerContext, theirs: LocalWorkerContext) -> None:
    """Also the detector, what it found, and the losses of all intervals."""
    assert_same_training(ours, theirs)
    assert_same_value(saved(ours, DETECTOR), saved(theirs, DETECTOR))
    for file in (DETECTIONS, LOSSES):
        assert kept(ours, file) == kept(theirs, file)
