"""The detect stage's work in this process: resumed = uninterrupted; where its backbone begins."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from detection import DETECTIONS_FILE, DETECTOR_FILE, LOSSES_FILE
from detection.backbone import SearchedBackbone
from detection.coco.annotation_file import CocoError
from detection.training import TRAINING_FILE
from detection.weights import WeightsError
from experiments.plan.detector_plan import DetectorPlan
from experiments.stages import detect, retrain
from experiments.stages.detect import pixel_statistics
from experiments.stages.worker_place import IMAGES, WEIGHTS
from nas.network import Subnet
from nas.space import parse_architecture, space_from_dict
from orchestration.jobs.worker import LocalWorkerContext
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.store.storage import share_file
from tests.experiments.detectors import (
    ARCH,
    SPACE,
    detector_plan,
    retrain_of,
    small_detector,
    without,
)
from tests.experiments.stage_work import payload, put, run, run_in_pieces, saved
from tests.interrupted import CrashError, CrashingContext, assert_same_value, without_timings

CLASS_NAMES = [str(digit) for digit in range(10)]
GREY = {"mean": [0.3], "std": [0.4]}
PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"
RANDOM = without(small_detector(), "data", "retrain")
ONE_EPOCH: dict[str, Any] = {"detect__epochs": 1, "detect__warmup_epochs": 0}


def detect_payload(plan: DetectorPlan, folder: Path) -> dict[str, Any]:
    place = detect.DetectorPlace(
        storage_path=str(folder / "runs"),
        coco_root=str(folder / "scenes"),
        class_names=CLASS_NAMES,
        pixels=GREY,
        retrain=plan.detect.inputs.get("retrain"),
        num_loaders=0,
        log_interval=1,
        use_gpu=False,
    )
    return {"stage": dict(plan.detect.config), "place": asdict(place)}


def pretrain(plan: DetectorPlan, folder: Path) -> StageRecord:
    """Make the retrain stage in this process, and put it into the store."""
    stage = retrain_of(plan)
    context = run(retrain.work, payload(stage, folder), folder / "retrain")
    return put(StageStore(folder / "runs"), stage, context)


def subnet(seed: int) -> Subnet:
    return Subnet(space_from_dict(SPACE), parse_architecture(ARCH), seed=seed)


def trained_backbone(context: LocalWorkerContext) -> dict[str, torch.Tensor]:
    prefix = "backbone."
    state = saved(context, DETECTOR_FILE)
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def read_json(context: LocalWorkerContext, name: str) -> Any:
    assert context.checkpoint is not None
    return json.loads((context.checkpoint / name).read_text(encoding="utf-8"))


def check_costs(context: LocalWorkerContext) -> None:
    """What a detector costs is reported with its last epoch."""
    first, last = context.history
    assert not [name for name in first if name.startswith("detector/")]
    state = saved(context, DETECTOR_FILE)
    backbone = SearchedBackbone(SPACE, ARCH)
    num_params = sum(parameter.numel() for parameter in backbone.parameters())
    assert last["detector/params_backbone"] == num_params
    for cost in ("flops", "params"):
        parts = [last[f"detector/{cost}_{part}"] for part in ("backbone", "neck", "head")]
        assert last[f"detector/{cost}"] == sum(parts)
        assert min(parts) > 0
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    learnt = {key: value for key, value in state.items() if not key.endswith(buffers)}
    # Levels share the head's convolutions, which a state dict names once for each.
    tensors = {value.data_ptr(): value.numel() for value in learnt.values()}
    assert last["detector/params"] == sum(tensors.values())


def test_an_interrupted_detector_is_the_uninterrupted_one(tmp_path: Path) -> None:
    plan = detector_plan(tmp_path)
    pretrain(plan, tmp_path)
    config = detect_payload(plan, tmp_path)
    whole = run(detect.work, config, tmp_path / "whole")
    pieces = run_in_pieces(detect.work, config, tmp_path / "pieces")
    assert without_timings(whole.history) == without_timings(pieces.history)
    assert len(whole.history) == 2
    assert_same_value(saved(whole, DETECTOR_FILE), saved(pieces, DETECTOR_FILE))
    for name in (DETECTIONS_FILE, LOSSES_FILE):
        assert read_json(whole, name) == read_json(pieces, name)
    check_costs(whole)
    # Two steps an epoch, each with its own losses.
    assert [step for step, _ in read_json(whole, LOSSES_FILE)["step/loss"]] == [1, 2, 3, 4]


class Code:
    """What a pickle runs when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_code_in_a_checkpoint_is_not_run_when_a_training_goes_on(tmp_path: Path) -> None:
    plan = detector_plan(tmp_path, RANDOM)
    config = detect_payload(plan, tmp_path)
    context = CrashingContext(tmp_path / "job")
    with pytest.raises(CrashError):
        detect.work(config, context)
    assert context.checkpoint is not None
    file = context.checkpoint / TRAINING_FILE
    content = torch.load(file, weights_only=True)
    torch.save({**content, "more": Code(tmp_path / "was run")}, file)
    with pytest.raises(WeightsError, match="nothing in it was run"):
        run(detect.work, config, tmp_path / "job")
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("source", ["retrain", "file", "nothing"])
def test_the_backbone_begins_with_the_weights_that_it_is_said_to(
    tmp_path: Path, source: str
) -> None:
    """With a learning rate of next to nothing, they are also those at the end."""
    rates = {"detect__lr": 1e-12, "detect__warmup_lr": None, **ONE_EPOCH}
    if source == "retrain":
        plan = detector_plan(tmp_path, **rates)
        record = pretrain(plan, tmp_path)
        file = StageStore(tmp_path / "runs").fetch(record, WEIGHTS, tmp_path / WEIGHTS)
        expected = torch.load(file, weights_only=True)
    elif source == "file":
        expected = subnet(seed=7).state_dict()
        torch.save(expected, tmp_path / "own.pt")
        plan = detector_plan(tmp_path, RANDOM, checkpoint=str(tmp_path / "own.pt"), **rates)
        assert plan.weights is not None
        share_file(str(tmp_path / "runs"), plan.detect.config["weights"], plan.weights)
        plan.weights.unlink()  # a worker on another machine would not see it either
    else:
        plan = detector_plan(tmp_path, RANDOM, seed=3, **rates)
        expected = subnet(seed=3).state_dict()
    context = run(detect.work, detect_payload(plan, tmp_path), tmp_path / "job")
    found = trained_backbone(context)
    names = [name for name, _ in SearchedBackbone(SPACE, ARCH).named_parameters()]
    assert len(names) > 10
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-8)


def test_a_worker_names_the_keys_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(subnet(seed=0).classifier.state_dict(), tmp_path / "own.pt")
    plan = detector_plan(tmp_path, RANDOM, checkpoint=str(tmp_path / "own.pt"))
    assert plan.weights is not None
    share_file(str(tmp_path / "runs"), plan.detect.config["weights"], plan.weights)
    with pytest.raises(WeightsError, match="missing first_block"):
        run(detect.work, detect_payload(plan, tmp_path), tmp_path / "job")


def test_a_worker_that_finds_something_else_than_scenes_says_so(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "file").touch()
    config = detect_payload(detector_plan(tmp_path, RANDOM), tmp_path)
    with pytest.raises(CocoError, match="something else than digit scenes"):
        run(detect.work, config, tmp_path / "job")


def test_a_detector_is_fed_what_its_backbone_was_fed(tmp_path: Path) -> None:
    plan = detector_plan(tmp_path)
    record = pretrain(plan, tmp_path)
    store = StageStore(tmp_path / "runs")
    images = json.loads(store.read_bytes(record, IMAGES))
    fed = {"mean": list(images["mean"]), "std": list(images["std"])}
    assert pixel_statistics(plan.detect, record, store) == fed
    assert len(fed["mean"]) == 1
    grey = detector_plan(tmp_path, RANDOM).detect
    assert pixel_statistics(grey, None, store) == {"mean": [0.5], "std": [0.5]}
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    others: list[dict[str, Any]] = [
        {"space": "spos", "arch": PUBLISHED},
        {"torchvision": {"name": "resnet18"}},
    ]
    for backbone in others:
        stage = detector_plan(tmp_path, {**without(RANDOM, "space", "arch"), **backbone}).detect
        assert pixel_statistics(stage, None, store) == imagenet
