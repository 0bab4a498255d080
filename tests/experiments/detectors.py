"""A small detector of digits in scenes that the tests of detection share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection import DETECTIONS_FILE
from detection.coco.data import data_root
from experiments.config.load import load_detector
from experiments.plan.detector_plan import DetectorPlan, plan_detector
from experiments.run.result import Result
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from tests.detection.examples import SMALL_DETECTOR, small_space
from tests.experiments.configs import Values, changed, write_yaml

# Strides 8, 16 and 32, two candidates a layer.
SPACE: Values = small_space(1, 32, ((3, 1), (3, 2)))
ARCH = "1 0 1"
SCENES: Values = {"name": "digit_scenes", "num_train": 16, "num_val": 8, "image_size": 64}
DETECT: Values = {
    "data": SCENES,
    "image_size": 128,
    "epochs": 2,
    "batch_size": 8,
    "lr": 1.6,
    "warmup_lr": 0.16,
    "scale_range": [0.8, 1.25],
    "flip_prob": 0,
    "val_interval": 1,
    "ema_momentum": 0.5,
    "bn_momentum": 0.1,
    "num_images_shown": 3,
    "options": {**SMALL_DETECTOR, "model.test_cfg.max_per_img": 20},
}
DATA: Values = {"name": "digits", "resolution": 32, "max_train_images": 128}
RETRAIN: Values = {
    "epochs": 1,
    "batch_size": 64,
    "lr": 1.0,
    "warmup_lr": 0.1,
    "warmup_epochs": 0,
}


def small_detector(space: str = "space.yaml") -> Values:
    """A backbone that is pretrained for two steps, and a detector that is trained for four."""
    return {
        "name": "scenes",
        "space": space,
        "arch": ARCH,
        "data": DATA,
        "retrain": RETRAIN,
        "detect": DETECT,
    }


def without(values: Values, *names: str) -> Values:
    """A copy without some of the keys."""
    return {name: value for name, value in values.items() if name not in names}


def write_detector(folder: Path, values: Values | None = None, **changes: Any) -> Path:
    """`small_detector`, its space and its storage under `folder`; returns the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(folder / "space.yaml", SPACE)
    values = changed(values or small_detector(), storage__path=str(folder / "runs"))
    return write_yaml(folder / "detect.yaml", changed(values, **changes))


def detector_plan(folder: Path, values: Values | None = None, **changes: Any) -> DetectorPlan:
    """What such a config plans."""
    return plan_config(write_detector(folder, values, **changes))


def plan_config(path: Path, *overrides: str) -> DetectorPlan:
    """What a detector's config plans."""
    config = load_detector(path, overrides).detector
    assert config is not None
    return plan_detector(config)


def retrain_of(plan: DetectorPlan) -> Stage:
    assert plan.retrain is not None
    return plan.retrain


@dataclass(frozen=True)
class Detected:
    """A small detector, made by the engine, and its answer; nobody changes it.

    Attributes:
        folder: where the config, `runs` and all else lie.
        made: what the engine says of it.
    """

    folder: Path
    made: Result

    @property
    def config(self) -> Path:
        """The YAML file."""
        return self.folder / "detect.yaml"

    @property
    def result(self) -> dict[str, Any]:
        """What `--json` prints."""
        return self.made.to_json()

    @property
    def storage(self) -> Path:
        """Where the stages lie."""
        return self.folder / "runs"

    @property
    def store(self) -> StageStore:
        """The stages."""
        return StageStore(self.storage)

    @property
    def plan(self) -> DetectorPlan:
        """What was asked for."""
        return plan_config(self.config)

    @property
    def scenes(self) -> Path:
        """The images that it was trained and evaluated on."""
        section = self.plan.config.detect.data
        return data_root(section.model_dump(), self.storage)

    def record(self, kind: str) -> StageRecord:
        """One of its stages, `retrain` or `detect`."""
        return next(each for each in self.made.records if each.kind == kind)

    @property
    def checkpoint(self) -> str:
        """What `predict` and `export` are told."""
        return self.record("detect").fingerprint[:12]

    def detections(self) -> list[dict[str, Any]]:
        """What the last evaluation has found."""
        found: list[dict[str, Any]] = json.loads(
            self.store.read_bytes(self.record("detect"), DETECTIONS_FILE)
        )
        return found
