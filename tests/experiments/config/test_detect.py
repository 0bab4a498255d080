"""Configs of detectors: what may be combined, what goes over what, and one sentence otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.config.detect import DetectConfig
from experiments.config.experiment import DetectorConfig
from experiments.config.load import dump_config, load_detector, load_experiment
from experiments.config.section import ConfigError
from tests.experiments.configs import changed, complaint, small, write_yaml
from tests.experiments.detectors import ARCH, DETECT, SPACE, small_detector, without

SCENES = {"name": "digit_scenes"}
TORCHVISION = {"torchvision": {"name": "resnet18"}, "detect": DETECT}


def load(path: Path | None, overrides: list[str], given: dict[str, str]) -> DetectorConfig:
    detector = load_detector(path, overrides, given).detector
    assert detector is not None
    return detector


@pytest.mark.parametrize(
    "values",
    [
        small_detector("micro_detection"),
        {"checkpoint": "abcdef12", "detect": DETECT},
        {**TORCHVISION, "detect": {"data": {"name": "coco", "root": "coco"}}},
    ],
    ids=["pretrained", "checkpoint", "coco"],
)
def test_a_dumped_config_is_the_config(tmp_path: Path, values: dict[str, Any]) -> None:
    experiment = load_experiment(write_yaml(tmp_path / "detect.yaml", values))
    assert experiment.kind == "detect"
    assert experiment.detector is not None
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(experiment.detector), encoding="utf-8")
    assert load_detector(dumped) == load_experiment(dumped) == experiment


def test_options_go_over_the_file_and_so_do_overrides(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "detect.yaml", small_detector("micro_detection"))
    plain = load(path, [], {})
    assert load(path, ["detect.epochs=5", "seed=3"], {"arch": "0 0 0"}) == plain.model_copy(
        update={
            "arch": "0 0 0",
            "seed": 3,
            "detect": plain.detect.model_copy(update={"epochs": 5}),
        }
    )


def test_a_file_is_not_needed() -> None:
    overrides = ["detect.data.name=digit_scenes", "detect.image_size=128", "detect.batch_size=8"]
    backbone = {"space": "micro_detection", "arch": ARCH}
    detect = {"data": SCENES, "image_size": 128, "batch_size": 8}
    assert load(None, overrides, backbone) == DetectorConfig.model_validate(
        {**backbone, "detect": detect}
    )
    with pytest.raises(ConfigError, match=r"^bnnas detect: .*detect.data is missing: .*--set"):
        load(None, [], backbone)


def test_a_space_is_found_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "space.yaml", SPACE)
    path = write_yaml(tmp_path / "detect.yaml", small_detector("space.yaml"))
    monkeypatch.chdir("/")
    assert load(path, [], {}).space == str(tmp_path / "space.yaml")
    assert load(path, [], {"space": "micro_detection"}).space == "micro_detection"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"detect": DETECT}, ("space and arch are missing", "torchvision")),
        ({"arch": ARCH, "detect": DETECT}, ("space is missing",)),
        ({**TORCHVISION, "space": "spos"}, ("torchvision", "space say nothing")),
        (without(small_detector("spos"), "retrain"), ("data is given without retrain",)),
        (
            {**small_detector("spos"), "checkpoint": "abcdef12"},
            ("from retrain and from checkpoint", "leave out one"),
        ),
        (changed(TORCHVISION, detect={}), ("detect.data is missing", "--set detect.data.root")),
    ],
)
def test_there_is_one_backbone_with_weights_from_one_place(
    tmp_path: Path, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = complaint(tmp_path, values)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 100}, ("image_size is 100", "multiple of 128")),
        ({"out_strides": [8, 16]}, ("detect.out_strides", "three strides")),
        ({"out_strides": [8, 16, 64]}, ("detect.out_strides", "twice the one before")),
        ({"warmup_lr": 2}, ("warmup_lr is 2", "at most lr (1.6)")),
        ({"options": {"a.b": 1, "a": {"b": 2}}}, ("detect.options", "a.b is given twice")),
        ({"warmup_epochs": 2}, ("warmup_epochs is 2", "less than epochs (2)")),
        ({"scale_range": [2, 1]}, ("detect.scale_range", "[smallest, largest]")),
        ({"data": {"name": "coco"}}, ("detect.data", "root is missing", "annotations/")),
        (
            {"data": {"name": "coco", "root": "coco", "num_train": 3, "seed": 1}},
            ("num_train, seed belong to name: digit_scenes",),
        ),
        ({"data": {**SCENES, "image_size": 16}}, ("detect.data.image_size", "32")),
    ],
)
def test_a_wrong_value_names_its_field_alone_and_in_a_cell(
    tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    detect = {**DETECT, **changes}
    for values in (changed(TORCHVISION, detect=detect), changed(small(), detect=detect)):
        message = complaint(tmp_path, values)
        for word in words:
            assert word in message


def test_an_option_has_one_name_however_it_is_given(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"model.test_cfg.nms.type": "nms", "model.neck.num_stages": 2},
        {"model": {"neck": {"num_stages": 2}, "test_cfg": {"nms.type": "nms"}}},
    ]
    configs = [DetectConfig.model_validate({**DETECT, "options": options}) for options in given]
    assert configs[0] == configs[1]
    path = write_yaml(tmp_path / "detect.yaml", without(TORCHVISION, "detect"))
    overrides = ["detect.data.name=digit_scenes", "detect.options.model.neck.num_stages=2"]
    assert load(path, overrides, {}).detect.options == {"model.neck.num_stages": 2}


def test_a_search_is_no_detector(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "run.yaml", changed(small("micro_detection"), detect=DETECT))
    assert load_experiment(path).kind == "run"
    with pytest.raises(ConfigError, match="'bnnas run' starts it"):
        load_detector(path, [], {"arch": ARCH})
