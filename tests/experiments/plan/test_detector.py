"""Plans of detectors: where the backbone comes from, what it is known by, what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.coco.annotation_file import CocoError
from detection.coco.data import annotation_file, data_root, image_folder, prepare_images
from detection.coco.digit_scenes import make_digit_scenes
from experiments.config.detect import DetectConfig, DetectionData
from experiments.config.section import ConfigError
from experiments.plan.detector_plan import DetectorPlan
from experiments.plan.forecast import Estimate, forecast
from experiments.plan.graph import list_stages
from experiments.plan.status import look_up
from nas.network import Subnet
from nas.space import parse_architecture, space_from_dict
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import changed, plan_file, small_plan, write_yaml
from tests.experiments.detectors import (
    ARCH,
    DATA,
    DETECT,
    RETRAIN,
    SPACE,
    detector_plan,
    retrain_of,
    small_detector,
    without,
    write_detector,
)
from tests.experiments.stage_work import put

RANDOM = without(small_detector(), "data", "retrain")
NAMELESS = {"detect": DETECT}


def stages_of(plan: DetectorPlan) -> tuple[Stage, ...]:
    return (plan.detect,) if plan.retrain is None else (plan.retrain, plan.detect)


def retrained(folder: Path, **changes: Any) -> Stage:
    """A retrain stage that the store of a folder has."""
    stage = retrain_of(detector_plan(folder))
    put(StageStore(folder / "runs"), stage, **changes)
    return stage


def write_weights(path: Path, seed: int) -> Path:
    subnet = Subnet(space_from_dict(SPACE), parse_architecture(ARCH), seed=seed)
    torch.save(subnet.state_dict(), path)
    return path


# --- the stages ---


def test_a_detector_is_the_same_stage_whoever_found_its_backbone(tmp_path: Path) -> None:
    alone = detector_plan(tmp_path)
    found = small_plan(tmp_path, space="space.yaml", data=DATA, retrain=RETRAIN, detect=DETECT)
    arch = parse_architecture(ARCH)
    assert stages_of(alone) == (found.retrain(arch), found.detect(arch))
    assert alone.detect.inputs == {"retrain": retrain_of(alone).fingerprint}
    assert alone.is_pretrained
    random = detector_plan(tmp_path, RANDOM)
    assert (random.retrain, random.detect.inputs, random.is_pretrained) == (None, {}, False)
    assert random.detect.fingerprint != alone.detect.fingerprint


def test_a_torchvision_backbone_is_pretrained_where_it_has_weights(tmp_path: Path) -> None:
    values = {"torchvision": {"name": "resnet18"}, "detect": DETECT}
    random = detector_plan(tmp_path, values)
    trained = detector_plan(tmp_path, values, torchvision__weights="IMAGENET1K_V1")
    assert (random.is_pretrained, trained.is_pretrained) == (False, True)
    assert random.retrain is None
    assert random.detect.fingerprint != trained.detect.fingerprint


def test_what_a_detector_adds_to_the_fields_of_a_cell(tmp_path: Path) -> None:
    """The others decide what they do there, for the stages are the same."""
    ours = stages_of(detector_plan(tmp_path))
    same = detector_plan(tmp_path, name="other", cluster__num_workers=2, data__num_workers=2)
    assert stages_of(same) == ours
    for changes in ({"arch": "0 0 0"}, {"seed": 1}):
        theirs = stages_of(detector_plan(tmp_path, changed(small_detector(), **changes)))
        assert not {s.fingerprint for s in ours} & {s.fingerprint for s in theirs}


# --- a checkpoint ---


def test_a_retrain_stage_as_checkpoint_says_what_its_config_would(tmp_path: Path) -> None:
    whole = detector_plan(tmp_path)
    stage = retrained(tmp_path)
    record = StageStore(tmp_path / "runs").get(stage.fingerprint)
    for length in (8, 12, 64):
        plan = detector_plan(tmp_path, NAMELESS, checkpoint=stage.fingerprint[:length])
        assert plan.detect == whole.detect
        assert (plan.checkpoint, plan.retrain, plan.is_pretrained) == (record, None, True)
    # Who says the same once more says nothing wrong.
    values = {**NAMELESS, "space": "space.yaml", "arch": "1,0,1"}
    assert detector_plan(tmp_path, values, checkpoint=stage.fingerprint[:8]).detect == whole.detect


def test_a_fingerprint_that_names_no_stage_or_two(tmp_path: Path) -> None:
    stage = retrained(tmp_path)
    store = StageStore(tmp_path / "runs")

    def complaint(checkpoint: str) -> str:
        with pytest.raises(ConfigError) as caught:
            detector_plan(tmp_path, NAMELESS, checkpoint=checkpoint)
        return str(caught.value)

    assert "at least 8 digits" in complaint(stage.fingerprint[:7])
    assert "at least 8 digits" in complaint("nothing.pt")
    assert "no retrain stage" in complaint("0123456789")
    for end in "ab":
        put(store, stage, fingerprint="0123456789" + end * 54)
    assert "2 retrain stages" in complaint("0123456789")
    assert detector_plan(tmp_path, NAMELESS, checkpoint="0123456789a").checkpoint is not None
    # A detector is no network to begin with.
    detect = put(store, detector_plan(tmp_path).detect)
    assert "no retrain stage" in complaint(detect.fingerprint)


def test_a_stage_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = retrained(tmp_path).fingerprint[:12]
    with pytest.raises(ConfigError, match=r"arch is '0 0 0', but .* weights of '1 0 1'"):
        detector_plan(tmp_path, {**NAMELESS, "arch": "0 0 0"}, checkpoint=checkpoint)
    wider = write_yaml(tmp_path / "wider.yaml", {**SPACE, "head": {"channels": 17}})
    with pytest.raises(ConfigError, match="a network in another space"):
        detector_plan(tmp_path, {**NAMELESS, "space": str(wider)}, checkpoint=checkpoint)


def test_a_file_of_weights_is_known_by_its_content(tmp_path: Path) -> None:
    first = write_weights(tmp_path / "first.pt", seed=1)
    other = write_weights(tmp_path / "other.pt", seed=2)
    moved = shutil.copyfile(first, tmp_path / "moved.pt")
    stages = {
        path.stem: detector_plan(tmp_path, RANDOM, checkpoint=str(path)).detect
        for path in (first, other, moved)
    }
    assert stages["first"] == stages["moved"]
    assert stages["first"].fingerprint != stages["other"].fingerprint
    assert stages["first"].fingerprint != detector_plan(tmp_path, RANDOM).detect.fingerprint
    plan = detector_plan(tmp_path, RANDOM, checkpoint=str(first))
    assert plan.is_pretrained
    assert plan.weights == first


def test_a_file_does_not_say_what_network_it_is_of(tmp_path: Path) -> None:
    file = write_weights(tmp_path / "weights.pt", seed=1)
    for missing in ("space", "arch"):
        with pytest.raises(ConfigError, match=r"weights\.pt.* give space and arch, too"):
            detector_plan(tmp_path, without(RANDOM, missing), checkpoint=str(file))


# --- what cannot be ---


def test_a_backbone_that_cannot_be(tmp_path: Path) -> None:
    micro = {**RANDOM, "space": "micro", "arch": "0 0 0 0 0 0 0 0"}
    for values, message in (
        (micro, r"'micro' has .* 1, 2, 4, .* asks for 8, 16, 32"),
        ({**RANDOM, "arch": "0 0"}, "3"),
        ({**RANDOM, "arch": "0 0 7"}, r"index 7.* 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            detector_plan(tmp_path, values)


def test_a_batch_has_to_be_shared_and_to_have_two_values(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"detect.batch_size is 8, which 3 workers"):
        detector_plan(tmp_path, cluster__num_workers=3)
    with pytest.raises(ValueError, match=r"retrain.batch_size is 64, less than one"):
        detector_plan(tmp_path, detect__batch_size=130, cluster__num_workers=65)
    detector_plan(tmp_path, detect__batch_size=2, cluster__num_workers=1)
    with pytest.raises(ValueError, match="a single cell at image_size 128"):
        detector_plan(tmp_path, detect__batch_size=2, cluster__num_workers=2)
    detector_plan(tmp_path, detect__image_size=256, detect__batch_size=2, cluster__num_workers=2)


# --- its stages, listed ---


def test_a_detectors_stages_are_listed_with_what_there_is_and_would_cost(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")

    def listed(**changes: Any) -> list[tuple[str, bool]]:
        plan = plan_file(write_detector(tmp_path, **changes))
        found = list_stages(plan, store)
        assert found.members == ("scenes",)
        status = look_up(found, str(tmp_path / "runs"))
        costs.append(forecast(found, store, None).estimates[-1])
        return [(s.listed.stage.kind, s.state == "done") for s in status.stages]

    plan = detector_plan(tmp_path)
    costs: list[Estimate] = []
    assert listed() == [("retrain", False), ("detect", False)]
    assert costs[-1] == Estimate(None, "nothing comparable has run yet")
    made = put(store, retrain_of(plan))
    assert listed() == [("retrain", True), ("detect", False)]
    # Two epochs of half a minute within an hour.
    put(store, plan.detect, made_from={"retrain": made.attempt})
    assert listed() == [("retrain", True), ("detect", True)]
    assert costs[-1] == Estimate(0.0, "in the store")
    listed(detect__epochs=20)
    hours = (20 * 30 + (3600 - 2 * 30)) / 3600
    assert costs[-1].basis == "1 earlier run"
    assert costs[-1].device_hours == pytest.approx(hours)
    for change in ({"image_size": 256}, {"batch_size": 4}, {"data": {"name": "digit_scenes"}}):
        listed(detect={**DETECT, **change})
        assert costs[-1].device_hours is None
    # A backbone that was deleted is pretrained anew, and its detector is trained anew.
    store.delete(made.fingerprint)
    assert listed() == [("retrain", False), ("detect", False)]
    put(store, retrain_of(plan))
    assert listed() == [("retrain", True), ("detect", False)]


# --- the images ---


def detect(root: Path, **changes: Any) -> DetectConfig:
    data = {"name": "coco", "root": str(root)}
    return DetectConfig.model_validate({**DETECT, "data": data, **changes})


def of(detect: DetectConfig) -> tuple[dict[str, Any], int]:
    return detect.data.model_dump(), detect.batch_size


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return make_digit_scenes(tmp_path / "scenes", num_train=6, num_val=2, image_size=64)


def test_scenes_are_made_where_they_are_not_and_lie_beside_the_results(tmp_path: Path) -> None:
    config = DetectConfig.model_validate(DETECT)
    found = prepare_images(config.data.model_dump(), config.batch_size, tmp_path)
    assert found.root == data_root(config.data.model_dump(), tmp_path)
    assert found.root.parent == tmp_path
    assert (found.train.num_images, found.val.num_images) == (16, 8)
    assert found.categories == [{"id": n + 1, "name": str(n)} for n in range(10)]
    file = annotation_file(found.root, "val")
    made = file.stat().st_mtime_ns
    assert prepare_images(config.data.model_dump(), config.batch_size, tmp_path) == found
    assert file.stat().st_mtime_ns == made
    others = [DetectionData.model_validate({"name": "digit_scenes", "seed": n}) for n in (0, 1)]
    assert len({data_root(data.model_dump(), tmp_path) for data in (*others, config.data)}) == 3
    elsewhere = config.data.model_copy(update={"root": str(tmp_path / "mine")})
    assert data_root(elsewhere.model_dump(), tmp_path) == tmp_path / "mine"


def test_scenes_are_the_same_images_as_a_set_in_cocos_format(tmp_path: Path, scenes: Path) -> None:
    section = {"name": "digit_scenes", "num_train": 6, "num_val": 2, "image_size": 64}
    made = prepare_images(*of(detect(scenes, data=section, batch_size=6)), tmp_path)
    read = prepare_images(*of(detect(scenes, batch_size=6)), tmp_path)
    assert (made.train, made.val, made.categories) == (read.train, read.val, read.categories)


def test_images_that_cannot_be_used(tmp_path: Path, scenes: Path) -> None:
    def complaint(batch_size: int = 2, split: str = "val", **changes: Any) -> str:
        file = annotation_file(scenes, split)
        whole = file.read_bytes()
        document = json.loads(whole)
        document |= {name: change(document[name]) for name, change in changes.items()}
        file.write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(CocoError) as caught:
            prepare_images(*of(detect(scenes, batch_size=batch_size)), tmp_path)
        file.write_bytes(whole)
        return str(caught.value)

    prepare_images(*of(detect(scenes, batch_size=6)), tmp_path)
    assert "detect.batch_size is 7, but only 6 images" in complaint(7)
    text = complaint(6, "train", annotations=lambda found: [o for o in found if o["image_id"] > 2])
    assert "detect.batch_size is 6, but only 4 images" in text  # those without an object are not
    text = complaint(annotations=lambda found: [{**one, "iscrowd": 1} for one in found])
    assert "no object to find" in text
    text = complaint(categories=lambda found: found[::-1])
    assert "in another order (9, 8, 7, … instead of 0, 1, 2, …)" in text
    for split in ("train", "val"):
        image = min(image_folder(scenes, split).iterdir())
        content = image.read_bytes()
        image.unlink()
        assert f"({image.name})" in complaint()
        image.write_bytes(content)
