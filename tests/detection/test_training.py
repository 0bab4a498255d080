"""Resumed = uninterrupted, to the bit; what is reported and kept; a detector learns."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from detection import DETECTIONS_FILE, DETECTOR_FILE, LOSSES_FILE
from detection.coco.digit_scenes import make_digit_scenes
from detection.efficientdet import EfficientDet
from detection.training import TRAINING_FILE
from orchestration.jobs.worker import LEDGER_NAME, LocalWorkerContext
from tests.detection.runs import (
    FINAL,
    IMAGENET,
    Trained,
    assert_same_end,
    load,
    run,
    small_config,
    train,
)
from tests.interrupted import CrashError, CrashingContext, assert_same_value, in_pieces


@contextmanager
def dying_in(step: str, number: int) -> Iterator[None]:
    """Die when `train_step` or `val_step` is called for the so-and-so-many-th time."""
    original = getattr(EfficientDet, step)
    num_calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == number:
            raise CrashError
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EfficientDet, step, counted)
        yield


# --- interruptions ---


def test_a_training_in_pieces_is_the_uninterrupted_one(trained: Trained, tmp_path: Path) -> None:
    """Every checkpoint since the first evaluation has the detections of the last one."""
    detections = []
    for epoch in (1, 2, 3):
        context = CrashingContext(tmp_path)
        with pytest.raises(CrashError):
            train(trained.config, context)
        assert context.checkpoint is not None
        assert context.checkpoint.name == f"epoch_{epoch:06d}"
        file = context.checkpoint / DETECTIONS_FILE
        detections.append(file.read_bytes() if file.exists() else None)
        assert (context.checkpoint / DETECTOR_FILE).exists() is (epoch == 3)
    assert detections[0] is None
    assert len(set(detections)) == 3
    with dying_in("train_step", 1):  # what is finished is not trained again
        assert_same_end(trained.context, run(trained.config, tmp_path))


@pytest.mark.parametrize(("step", "number"), [("train_step", 2), ("val_step", 2)])
def test_a_training_that_dies_within_an_epoch_repeats_it(
    trained: Trained, tmp_path: Path, step: str, number: int
) -> None:
    with dying_in(step, number), pytest.raises(CrashError):
        run(trained.config, tmp_path)
    assert_same_end(trained.context, run(trained.config, tmp_path))


def test_a_network_that_draws_resumes_likewise(scenes: Path, tmp_path: Path) -> None:
    """EfficientNet leaves out blocks by chance; with another optimiser, too."""
    backbone = {"type": "TorchvisionBackbone", "name": "efficientnet_b0", "weights": None}
    recipe: Any = {"optimizer": "adamw", "lr": 0.03, "warmup_lr": 0.003, "clip_norm": None}
    config = small_config(scenes, epochs=2, backbone=backbone, pixels=IMAGENET, **recipe)
    whole = run(config, tmp_path / "whole")
    pieces = in_pieces(lambda context: train(config, context), tmp_path / "pieces")
    assert_same_end(whole, pieces)
    assert len({row["train/loss"] for row in whole.history}) == 2


def test_loaders_change_nothing_and_end_with_the_training(
    scenes: Path, trained: Trained, tmp_path: Path
) -> None:
    assert_same_end(trained.context, run(small_config(scenes, num_loaders=2), tmp_path))
    assert multiprocessing.active_children() == []


# --- what is reported and kept ---


def test_epochs_report_their_losses_and_evaluations(trained: Trained) -> None:
    history = trained.context.history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["epoch"] for row in history if "coco/bbox_mAP" in row] == [2, 3]
    assert [row.get("detector/params") for row in history] == [None, None, *FINAL.values()]
    for row in history:
        assert row["train/loss"] == pytest.approx(row["train/loss_cls"] + row["train/loss_bbox"])
        assert row["train/epoch_s"] > 0
        assert (row.get("val/epoch_s", 0.0) > 0) is ("coco/bbox_mAP" in row)
    assert {file.name for file in trained.weights.parent.iterdir()} == {
        *(DETECTOR_FILE, DETECTIONS_FILE, LOSSES_FILE, TRAINING_FILE, LEDGER_NAME)
    }
    assert trained.config.pretty_text == trained.config_text  # the config is left as it was


def test_losses_of_intervals_are_at_their_steps(trained: Trained) -> None:
    losses = load(trained.context, LOSSES_FILE)
    assert losses.keys() == {"step/loss", "step/loss_cls", "step/loss_bbox"}
    # Three steps an epoch, and an interval of two: the epoch ends the second one.
    for name, points in losses.items():
        assert [step for step, _ in points] == [2, 3, 5, 6, 8, 9]
        values = [value for _, value in points]
        means = [(2 * a + b) / 3 for a, b in zip(values[::2], values[1::2], strict=True)]
        epochs = [row[name.replace("step", "train")] for row in trained.context.history]
        assert means == pytest.approx(epochs)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(trained: Trained) -> None:
    peak = 1.6 * 4 / 128  # for a batch of 4
    assert all(len(set(rates)) == 1 for rates in trained.rates)  # of all parameters
    warmup = [peak * factor for factor in (0.1, 0.55, 1.0)]
    cosine = [peak * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert [rates[0] for rates in trained.rates] == pytest.approx(warmup + cosine, rel=1e-5)


def test_the_detector_is_the_moving_average(trained: Trained) -> None:
    training, detector = (load(trained.context, name) for name in (TRAINING_FILE, DETECTOR_FILE))
    assert_same_value(training["state_dict"], detector)
    last_step = {
        key.removeprefix("module."): value
        for key, value in training["ema_state_dict"].items()
        if key != "steps"
    }
    assert last_step.keys() == detector.keys()
    num_different = sum(not torch.equal(last_step[key], detector[key]) for key in detector)
    assert num_different > 0.9 * sum(v.is_floating_point() for v in detector.values())


def test_a_loss_that_is_no_number_is_named(scenes: Path, tmp_path: Path) -> None:
    config = small_config(scenes, lr=1e30, warmup_lr=1e30, warmup_epochs=0, clip_norm=None)
    context = LocalWorkerContext(tmp_path)
    with pytest.raises(ValueError, match=r"diverged in epoch 1 .*lower detect\.lr.*clip_norm"):
        train(config, context)
    assert context.checkpoint is None


def test_mixed_precision_without_a_gpu_is_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # wherever this runs
    config = small_config(scenes, precision="bfloat16")
    with pytest.raises(ValueError, match=r"on GPUs only.*detect\.precision to float32"):
        run(config, tmp_path)


# --- a detector that works ---


@pytest.mark.slow
def test_a_detector_learns_four_scenes_by_heart(tmp_path: Path) -> None:
    root = make_digit_scenes(tmp_path / "scenes", num_train=4, num_val=1, image_size=64)
    train_file = "annotations/instances_train2017.json"
    config = small_config(
        root,
        epochs=70,
        optimizer="adamw",
        lr=0.64,
        warmup_lr=0.064,
        warmup_epochs=3,
        scale_range=(1.0, 1.0),
        flip_prob=0.0,
        val_interval=1000,
        options={
            "val_dataloader.dataset.ann_file": train_file,
            "val_dataloader.dataset.data_prefix.img": "train2017/",
            "val_evaluator.ann_file": str(root / train_file),
            "model.test_cfg.nms_pre": 1000,
        },
    )
    history = run(config, tmp_path / "job").history
    assert history[-1]["coco/bbox_mAP"] > 0.9
    assert history[-1]["train/loss"] < 0.1 * history[0]["train/loss"]
