"""Configs of detectors: what may be combined, what goes over what, and one sentence otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.config.cell import Config
from experiments.config.detect import DetectConfig
from experiments.config.detection import DetectionConfig
from experiments.config.load import dump_config, load_config, load_detection, load_experiment
from experiments.config.section import ConfigError
from tests.experiments.configs import changed, small, write_yaml
from tests.experiments.detectors import ARCH, DETECT, SPACE, small_detector, without

SCENES = {"name": "digit_scenes"}
TORCHVISION = {"torchvision": {"name": "resnet18"}, "detect": DETECT}


def complaint(folder: Path, values: Any, *overrides: str, **given: str) -> str:
    """The message of the error, which has to be one sentence on one line."""
    with pytest.raises(ConfigError) as caught:
        load_detection(write_yaml(folder / "detect.yaml", values), overrides, given)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


@pytest.mark.parametrize(
    "values",
    [
        small_detector("micro_detection"),
        without(small_detector("micro_detection"), "data", "retrain"),
        {"checkpoint": "abcdef12", "detect": DETECT},
        TORCHVISION,
        {**TORCHVISION, "detect": {"data": {"name": "coco", "root": "coco"}}},
    ],
    ids=["pretrained", "random", "checkpoint", "torchvision", "coco"],
)
def test_a_dumped_config_is_the_config(tmp_path: Path, values: dict[str, Any]) -> None:
    config = load_detection(write_yaml(tmp_path / "detect.yaml", values))
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_detection(dumped) == load_experiment(dumped) == config


def test_an_experiment_may_end_in_detection_and_survives_a_dump(tmp_path: Path) -> None:
    values = changed(small("micro_detection"), detect=DETECT)
    config = load_config(write_yaml(tmp_path / "run.yaml", values))
    assert config.detect == DetectConfig.model_validate(DETECT)
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(config), encoding="utf-8")
    again = load_experiment(dumped)
    assert isinstance(again, Config)
    assert again == config


def test_options_go_over_the_file_and_so_do_overrides(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "detect.yaml", small_detector("micro_detection"))
    config = load_detection(path, ["detect.epochs=5", "seed=3"], {"arch": "0 0 0"})
    plain = load_detection(path)
    assert config == plain.model_copy(
        update={
            "arch": "0 0 0",
            "seed": 3,
            "detect": plain.detect.model_copy(update={"epochs": 5}),
        }
    )


def test_a_file_is_not_needed() -> None:
    overrides = ["detect.data.name=digit_scenes", "detect.image_size=128", "detect.batch_size=8"]
    config = load_detection(None, overrides, {"space": "micro_detection", "arch": ARCH})
    assert config == DetectionConfig.model_validate(
        {
            "space": "micro_detection",
            "arch": ARCH,
            "detect": {"data": SCENES, "image_size": 128, "batch_size": 8},
        }
    )
    with pytest.raises(ConfigError, match=r"^bnnas detect: .*detect.data is missing: .*--set"):
        load_detection(None, [], {"space": "micro_detection", "arch": ARCH})


def test_a_space_is_found_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "space.yaml", SPACE)
    path = write_yaml(tmp_path / "detect.yaml", small_detector("micro"))
    monkeypatch.chdir("/")
    space = str(tmp_path / "space.yaml")
    assert load_detection(path, ["space=space.yaml"]).space == space
    assert load_detection(path, [], {"space": "micro_detection"}).space == "micro_detection"


# --- backbones ---


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"detect": DETECT}, ("space and arch are missing", "torchvision")),
        ({"space": "spos", "detect": DETECT}, ("arch is missing",)),
        ({"arch": ARCH, "detect": DETECT}, ("space is missing",)),
        ({**TORCHVISION, "space": "spos"}, ("torchvision", "space say nothing")),
        (
            {**TORCHVISION, "space": "spos", "checkpoint": "abcdef12"},
            ("space, checkpoint say nothing",),
        ),
        (without(small_detector("spos"), "retrain"), ("data is given without retrain",)),
        (without(small_detector("spos"), "data"), ("retrain is given without data",)),
        (
            {**small_detector("spos"), "checkpoint": "abcdef12"},
            ("from retrain and from checkpoint", "leave out one"),
        ),
        ({**TORCHVISION, "name": "../up"}, ("name is '../up'", "no slashes")),
        (without(TORCHVISION, "detect"), ("detect.data is missing",)),
        (changed(TORCHVISION, detect={}), ("detect.data is missing", "--set detect.data.root")),
    ],
)
def test_there_is_one_backbone_with_weights_from_one_place(
    tmp_path: Path, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = complaint(tmp_path, values)
    for word in words:
        assert word in message


# --- the detect section ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 100}, ("image_size is 100", "multiple of 128")),
        ({"out_strides": [8, 16]}, ("detect.out_strides", "three strides")),
        ({"out_strides": [8, 16, 64]}, ("detect.out_strides", "twice the one before")),
        ({"out_strides": [0, 0, 0]}, ("detect.out_strides", "three strides")),
        ({"warmup_lr": 2}, ("warmup_lr is 2", "at most lr (1.6)")),
        ({"options": {"a.b": 1, "a": {"b": 2}}}, ("detect.options", "a.b is given twice")),
        ({"warmup_epochs": 2}, ("warmup_epochs is 2", "less than epochs (2)")),
        ({"scale_range": [2, 1]}, ("detect.scale_range", "[smallest, largest]")),
        ({"scale_range": [0, 1]}, ("detect.scale_range", "above 0")),
        ({"flip_prob": 1.5}, ("detect.flip_prob", "less than or equal to 1")),
        ({"lr": ".nan"}, ("detect.lr", "'.nan'")),
        ({"optimizer": "adam"}, ("detect.optimizer", "'sgd' or 'adamw'")),
        ({"ema_momentum": 0}, ("detect.ema_momentum", "greater than 0")),
        ({"batchsize": 8}, ("detect.batchsize", "did you mean 'batch_size'?")),
        ({"data": {"name": "voc"}}, ("detect.data.name", "'coco' or 'digit_scenes'")),
        ({"data": {"name": "coco"}}, ("detect.data", "root is missing", "annotations/")),
        (
            {"data": {"name": "coco", "root": "coco", "num_train": 3, "seed": 1}},
            ("num_train, seed belong to name: digit_scenes",),
        ),
        ({"data": {**SCENES, "image_size": 16}}, ("detect.data.image_size", "32")),
        ({"data": {**SCENES, "num_trains": 3}}, ("did you mean 'num_train'?",)),
    ],
)
def test_a_wrong_value_names_its_field(
    tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = complaint(tmp_path, changed(TORCHVISION, detect={**DETECT, **changes}))
    for word in words:
        assert word in message
    run = changed(small("micro_detection"), detect={**DETECT, **changes})
    with pytest.raises(ConfigError) as caught:
        load_config(write_yaml(tmp_path / "run.yaml", run))
    for word in words:
        assert word in str(caught.value)


def test_an_option_has_one_name_however_it_is_given(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"model.test_cfg.nms.type": "nms", "model.neck.num_stages": 2},
        {"model": {"neck": {"num_stages": 2}, "test_cfg": {"nms.type": "nms"}}},
        {"model.test_cfg": {"nms": {"type": "nms"}}, "model.neck": {"num_stages": 2}},
    ]
    configs = [DetectConfig.model_validate({**DETECT, "options": options}) for options in given]
    assert configs[0] == configs[1] == configs[2]
    path = write_yaml(tmp_path / "detect.yaml", without(TORCHVISION, "detect"))
    overrides = ["detect.data.name=digit_scenes", "detect.options.model.neck.num_stages=2"]
    assert load_detection(path, overrides).detect.options == {"model.neck.num_stages": 2}


# --- which command ---


def test_every_file_is_told_its_command(tmp_path: Path) -> None:
    run = changed(small("micro_detection"), detect=DETECT)
    assert "'bnnas run' starts it" in complaint(tmp_path, run)
    sweep = changed(run, grid={"epochs": [1, 2]})
    assert "'bnnas sweep' starts it" in complaint(tmp_path, sweep)
    path = write_yaml(tmp_path / "detect.yaml", TORCHVISION)
    with pytest.raises(ConfigError, match="start it with 'bnnas detect'"):
        load_config(path)
    assert isinstance(load_experiment(path), DetectionConfig)
    message = complaint(tmp_path, TORCHVISION, "supernet.epochs=3")
    assert "supernet is an unknown key" in message
