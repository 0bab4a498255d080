"""Resumed = uninterrupted, to the bit; ranks agree; a detector learns what it is shown."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch.multiprocessing.spawn import spawn

from detection.coco.digit_scenes import make_digit_scenes
from detection.efficientdet import EfficientDet
from detection.recipe import CocoFiles, ImageFormat, detector_config
from detection.training import TRAINING_FILE, train_detector
from orchestration.jobs.worker import LEDGER_NAME, LocalWorkerContext
from tests.detection.runs import (
    CLASS_NAMES,
    DETECTIONS,
    DETECTOR,
    GREY,
    LOSSES,
    SMALL_DETECT,
    assert_same_end,
    kept,
    run,
    run_in_pieces,
    saved,
    small_config,
    small_scenes,
    train,
)
from tests.interrupted import CrashError, CrashingContext, assert_same_value, without_timings

NUM_RANKS = 2


class RankContext:
    """One of several processes on this machine; the first keeps the checkpoints."""

    def __init__(self, folder: Path, *, dies_after: int = 0) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.history: list[dict[str, float]] = []
        self._local = LocalWorkerContext(folder)
        self._dies_after = dies_after

    def restore(self) -> Any:
        return self._local.restore()

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        self.history.append(dict(metrics))
        if self.rank == 0:
            self._local.report(metrics, save)
        dist.barrier()
        if metrics["epoch"] == self._dies_after:
            raise CrashError


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


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_scenes(tmp_path_factory.mktemp("scenes") / "64")


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalWorkerContext:
    """Five epochs that nothing interrupted."""
    return run(small_config(scenes), tmp_path_factory.mktemp("whole"))


# --- interruptions ---


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 3},
        {"optimizer": "adamw", "lr": 0.03, "warmup_lr": 0.003, "clip_norm": None, "epochs": 3},
    ],
    ids=["sgd", "adamw"],
)
def test_an_interrupted_training_is_the_uninterrupted_one(
    scenes: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = small_config(scenes, **changes)
    whole = run(config, tmp_path / "whole")
    pieces = run_in_pieces(config, tmp_path / "pieces")
    assert_same_end(whole, pieces)
    epochs = config.train_cfg.max_epochs
    assert [row["epoch"] for row in whole.history] == list(range(1, epochs + 1))
    assert len({row["train/loss"] for row in whole.history}) == epochs
    assert len({row["train/lr"] for row in whole.history}) == epochs


def test_a_network_that_draws_is_interrupted_without_a_trace(scenes: Path, tmp_path: Path) -> None:
    """EfficientNet leaves out blocks by chance."""
    config = small_config(
        scenes,
        backbone={"type": "TorchvisionBackbone", "name": "efficientnet_b0", "weights": None},
        images=ImageFormat(),
        epochs=2,
    )
    whole = run(config, tmp_path / "whole")
    assert_same_end(whole, run_in_pieces(config, tmp_path / "pieces"))


@pytest.mark.parametrize(
    ("step", "number"), [("train_step", 2), ("train_step", 6), ("val_step", 2), ("train_step", 14)]
)
def test_a_training_that_dies_within_an_epoch_repeats_it(
    scenes: Path, whole: LocalWorkerContext, tmp_path: Path, step: str, number: int
) -> None:
    config = small_config(scenes)
    with dying_in(step, number), pytest.raises(CrashError):
        run(config, tmp_path / "again")
    assert_same_end(whole, run(config, tmp_path / "again"))


def test_a_finished_training_is_not_trained_again(scenes: Path, tmp_path: Path) -> None:
    config = small_config(scenes, epochs=2)
    whole = run(config, tmp_path / "job")
    with dying_in("train_step", 1):
        assert_same_end(whole, run(config, tmp_path / "job"))


def test_the_last_detections_are_in_every_checkpoint_after_them(
    scenes: Path, tmp_path: Path
) -> None:
    config = small_config(scenes)
    found = []
    for epoch in range(1, 6):
        context = CrashingContext(tmp_path / "pieces")
        with pytest.raises(CrashError):
            train(config, context)
        assert context.checkpoint is not None
        assert context.checkpoint.name == f"epoch_{epoch:06d}"
        file = context.checkpoint / DETECTIONS
        found.append(file.read_bytes() if file.exists() else None)
        assert (context.checkpoint / DETECTOR).exists() is (epoch == 5)
    first, second, third, fourth, fifth = found
    assert first is None
    assert second is not None
    assert second == third
    assert len({second, fourth, fifth}) == 3


def test_a_config_is_left_as_it_was(scenes: Path, tmp_path: Path) -> None:
    config = small_config(scenes, epochs=2)
    before = config.pretty_text
    run(config, tmp_path / "job")
    assert config.pretty_text == before


# --- what is reported and kept ---


def test_epochs_with_an_evaluation_report_it(whole: LocalWorkerContext) -> None:
    evaluated = [row["epoch"] for row in whole.history if "coco/bbox_mAP" in row]
    assert evaluated == [2, 4, 5]
    for row in whole.history:
        assert row["train/loss"] == pytest.approx(row["train/loss_cls"] + row["train/loss_bbox"])
        assert row["train/epoch_s"] > 0
        assert (row.get("val/epoch_s", 0.0) > 0) is ("coco/bbox_mAP" in row)


def test_the_last_epoch_reports_what_was_asked_for(scenes: Path, tmp_path: Path) -> None:
    context = LocalWorkerContext(tmp_path / "job")
    train_detector(
        small_config(scenes, epochs=2),
        context,
        detector_file="a.pt",
        detections_file="b.json",
        losses_file="c.json",
        at_the_end={"detector/params": 5.0},
    )
    assert [row.get("detector/params") for row in context.history] == [None, 5.0]
    assert context.checkpoint is not None
    files = {file.name for file in context.checkpoint.iterdir()}
    assert files == {"a.pt", "b.json", "c.json", TRAINING_FILE, LEDGER_NAME}


def test_losses_of_intervals_are_at_their_steps(whole: LocalWorkerContext) -> None:
    losses = kept(whole, LOSSES)
    assert losses.keys() == {"step/loss", "step/loss_cls", "step/loss_bbox"}
    # Three steps an epoch, and an interval of two: the epoch ends the second one.
    for name, points in losses.items():
        assert [step for step, _ in points] == [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]
        values = [value for _, value in points]
        means = [(2 * a + b) / 3 for a, b in zip(values[::2], values[1::2], strict=True)]
        assert means == pytest.approx([row[name.replace("step", "train")] for row in whole.history])


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(scenes: Path, tmp_path: Path) -> None:
    rates: list[float] = []
    original = EfficientDet.train_step

    def noted(self: EfficientDet, data: Any, optim_wrapper: Any) -> Any:
        rates.extend(optim_wrapper.get_lr()["lr"])
        return original(self, data, optim_wrapper)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EfficientDet, "train_step", noted)
        run(small_config(scenes, epochs=4), tmp_path / "job")
    peak = 1.6 * 4 / 128  # for a batch of 4
    rates_by_step = torch.tensor(rates).view(12, -1)
    assert torch.equal(rates_by_step, rates_by_step[:, :1].expand_as(rates_by_step))
    warmup = [peak * factor for factor in (0.1, 0.55, 1.0)]
    cosine = [peak * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)]
    assert rates_by_step[:, 0].tolist() == pytest.approx(warmup + cosine, rel=1e-5)


def test_the_detector_is_the_moving_average(whole: LocalWorkerContext) -> None:
    training, detector = saved(whole, TRAINING_FILE), saved(whole, DETECTOR)
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
    context = LocalWorkerContext(tmp_path / "job")
    with pytest.raises(ValueError, match=r"diverged in epoch 1 .*lower detect\.lr.*clip_norm"):
        train(config, context)
    assert context.checkpoint is None


def test_mixed_precision_without_a_gpu_is_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # wherever this runs
    config = small_config(scenes, precision="bfloat16")
    with pytest.raises(ValueError, match=r"on GPUs only.*detect\.precision to float32"):
        run(config, tmp_path / "job")


# --- several processes ---


@contextmanager
def collecting_runners() -> Iterator[list[Runner]]:
    """The runners that were trained within."""
    runners: list[Runner] = []
    original = Runner.train

    def collected(self: Runner) -> Any:
        runners.append(self)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "train", collected)
        yield runners


def trained_by_rank(config: Config, folder: Path) -> dict[str, Any]:
    """What a rank ends with: its network, its moving average, and what it reported."""
    context = RankContext(folder)
    with collecting_runners() as runners:
        train(config, context)
    (runner,) = runners
    (average,) = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    return {
        "network": runner.model.module.state_dict(),
        "average": average.state_dict(),
        "history": without_timings(context.history),
    }


def run_rank(rank: int, folder: str) -> None:
    """One rank of the group; finds the scenes in the folder and leaves its findings there."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(NUM_RANKS))
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS
    )
    try:
        place = Path(folder)
        config = small_config(place / "scenes", num_workers=NUM_RANKS, epochs=3)
        found = {"whole": trained_by_rank(config, place / "whole")}
        for epoch in (1, 2):
            with pytest.raises(CrashError):
                train(config, RankContext(place / "pieces", dies_after=epoch))
        found["pieces"] = trained_by_rank(config, place / "pieces")
        config.train_cfg.max_epochs = 1
        config.custom_hooks = [
            hook for hook in config.custom_hooks if hook.type != "SyncStatisticsHook"
        ]
        found["without hook"] = trained_by_rank(config, place / "without")
        torch.save(found, place / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where two ranks have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    small_scenes(folder / "scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        spawn(run_rank, (str(folder),), nprocs=NUM_RANKS)
    return folder


def of_ranks(folder: Path, what: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt")[what] for rank in range(NUM_RANKS)]


def statistics(network: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.items() if "running_" in name}


@pytest.mark.slow
def test_ranks_end_with_the_same_network_and_the_same_numbers(together: Path) -> None:
    first, second = of_ranks(together, "whole")
    assert_same_value(first, second)
    assert len(statistics(first["network"])) == len(statistics(first["average"])) > 20
    assert [row["epoch"] for row in first["history"]] == [1, 2, 3]
    assert all(row["train/loss"] > 0 for row in first["history"])


@pytest.mark.slow
def test_without_the_hook_every_rank_has_the_statistics_of_its_own_images(together: Path) -> None:
    first, second = of_ranks(together, "without hook")
    for part in ("network", "average"):
        ours, theirs = statistics(first[part]), statistics(second[part])
        assert not any(torch.equal(ours[name], theirs[name]) for name in ours)
    weights = [
        {name: value for name, value in found["network"].items() if "running_" not in name}
        for found in (first, second)
    ]
    assert_same_value(*weights)


@pytest.mark.slow
def test_ranks_that_were_interrupted_end_as_if_they_had_not_been(together: Path) -> None:
    whole, pieces = (LocalWorkerContext(together / name) for name in ("whole", "pieces"))
    assert_same_end(whole, pieces)
    for found, expected in zip(
        of_ranks(together, "pieces"), of_ranks(together, "whole"), strict=True
    ):
        assert_same_value(found["network"], expected["network"])
        assert_same_value(found["average"], expected["average"])


@pytest.mark.slow
def test_the_detector_of_several_ranks_is_their_moving_average(together: Path) -> None:
    context = LocalWorkerContext(together / "whole")
    average = {
        name.removeprefix("module."): value
        for name, value in of_ranks(together, "whole")[1]["average"].items()
        if name != "steps"
    }
    assert_same_value(saved(context, DETECTOR), average)


# --- a detector that works ---


@pytest.mark.slow
def test_a_detector_learns_eight_scenes_by_heart(tmp_path: Path) -> None:
    root = make_digit_scenes(tmp_path / "scenes", num_train=8, num_val=1, image_size=128)
    train_file = "annotations/instances_train2017.json"
    config = detector_config(
        {
            **SMALL_DETECT,
            "image_size": 128,
            "out_strides": (8, 16, 32),
            "epochs": 100,
            "batch_size": 8,
            "optimizer": "adamw",
            "lr": 0.064,
            "warmup_lr": 0.0064,
            "warmup_epochs": 5,
            "scale_range": (1.0, 1.0),
            "flip_prob": 0.0,
            "val_interval": 1000,
            "options": {
                "val_dataloader.dataset.ann_file": train_file,
                "val_dataloader.dataset.data_prefix.img": "train2017/",
                "val_evaluator.ann_file": str(root / train_file),
            },
        },
        backbone={
            "type": "SearchedBackbone",
            "space": "micro_detection",
            "arch": "1 1 1 1 1 1 1 1",
        },
        images=GREY,
        data=CocoFiles(str(root), CLASS_NAMES),
        seed=0,
    )
    history = run(config, tmp_path / "job").history
    assert history[-1]["coco/bbox_mAP"] > 0.9
    assert history[-1]["train/loss"] < 0.1 * history[0]["train/loss"]
