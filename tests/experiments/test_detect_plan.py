"""Plans of detectors: where the backbone comes from, what it is known by, what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.coco.annotation_file import CocoError
from detection.coco.data import annotation_file, data_root, image_folder, look_at
from detection.coco.digit_scenes import make_digit_scenes
from experiments.config.detect import DetectConfig, DetectionData
from experiments.config.section import ConfigError
from experiments.plan.detection import DetectionPlan
from experiments.plan.forecast import forecast
from experiments.plan.graph import list_stages
from experiments.plan.status import look_up
from nas.network import Subnet
from nas.space import parse_architecture, space_from_dict
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import small_plan, write_yaml
from tests.experiments.detectors import (
    ARCH,
    DATA,
    DETECT,
    RETRAIN,
    SPACE,
    detector_plan,
    small_detector,
    without,
)
from tests.experiments.stages import put

RANDOM = without(small_detector(), "data", "retrain")
NAMELESS = {"detect": DETECT}


def retrain_of(plan: DetectionPlan) -> Stage:
    assert plan.retrain is not None
    return plan.retrain


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
    assert alone.stages == (found.retrain(arch), found.detect(arch))
    assert alone.stage.inputs == {"retrain": retrain_of(alone).fingerprint}
    assert alone.is_pretrained


def test_without_pretraining_there_is_the_detector_alone(tmp_path: Path) -> None:
    plan = detector_plan(tmp_path, RANDOM)
    assert plan.stages == (plan.stage,)
    assert plan.stage.inputs == {}
    assert not plan.is_pretrained
    assert plan.stage.fingerprint != detector_plan(tmp_path).stage.fingerprint


def test_a_torchvision_backbone_is_pretrained_where_it_has_weights(tmp_path: Path) -> None:
    values = {"torchvision": {"name": "resnet18"}, "detect": DETECT}
    random = detector_plan(tmp_path, values)
    trained = detector_plan(tmp_path, values, torchvision__weights="IMAGENET1K_V1")
    assert (random.is_pretrained, trained.is_pretrained) == (False, True)
    assert random.stages == (random.stage,)
    assert random.stage.fingerprint != trained.stage.fingerprint


@pytest.mark.parametrize(
    ("field", "value", "kinds"),
    [
        ("name", "other", set()),
        ("arch", "0 0 0", {"retrain", "detect"}),
        ("seed", 1, {"retrain", "detect"}),
        ("retrain__epochs", 2, {"retrain", "detect"}),
        ("data__max_train_images", 256, {"retrain", "detect"}),
        ("data__num_workers", 2, set()),
        ("detect__epochs", 3, {"detect"}),
        ("detect__num_workers", 2, set()),
        ("cluster__num_workers", 2, set()),
    ],
)
def test_a_field_decides_the_stages_that_read_it(
    tmp_path: Path, field: str, value: Any, kinds: set[str]
) -> None:
    ours = detector_plan(tmp_path).stages
    theirs = detector_plan(tmp_path, **{field: value}).stages
    pairs = zip(ours, theirs, strict=True)
    assert {one.kind for one, other in pairs if one.fingerprint != other.fingerprint} == kinds


# --- a checkpoint ---


def test_a_retrain_stage_as_checkpoint_says_what_its_config_would(tmp_path: Path) -> None:
    whole = detector_plan(tmp_path)
    stage = retrained(tmp_path)
    record = StageStore(tmp_path / "runs").get(stage.fingerprint)
    for length in (8, 12, 64):
        plan = detector_plan(tmp_path, NAMELESS, checkpoint=stage.fingerprint[:length])
        assert plan.stage == whole.stage
        assert (plan.checkpoint, plan.stages) == (record, (plan.stage,))
        assert plan.is_pretrained
    # Who says the same once more says nothing wrong.
    values = {**NAMELESS, "space": "space.yaml", "arch": "1,0,1"}
    assert detector_plan(tmp_path, values, checkpoint=stage.fingerprint[:8]).stage == whole.stage


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
    detect = put(store, detector_plan(tmp_path).stage)
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
        path.stem: detector_plan(tmp_path, RANDOM, checkpoint=str(path)).stage
        for path in (first, other, moved)
    }
    assert stages["first"] == stages["moved"]
    assert stages["first"].fingerprint != stages["other"].fingerprint
    assert stages["first"].fingerprint != detector_plan(tmp_path, RANDOM).stage.fingerprint
    plan = detector_plan(tmp_path, RANDOM, checkpoint=str(first))
    assert plan.is_pretrained
    assert plan.weights == first


@pytest.mark.parametrize("missing", ["space", "arch"])
def test_a_file_does_not_say_what_network_it_is_of(tmp_path: Path, missing: str) -> None:
    file = write_weights(tmp_path / "weights.pt", seed=1)
    with pytest.raises(ConfigError, match=r"weights\.pt.* give space and arch, too"):
        detector_plan(tmp_path, without(RANDOM, missing), checkpoint=str(file))


# --- what cannot be ---


def test_strides_that_a_space_has_not_are_answered_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'micro' has .* 1, 2, 4, .* asks for 8, 16, 32"):
        detector_plan(tmp_path, {**RANDOM, "space": "micro", "arch": "0 0 0 0 0 0 0 0"})


def test_a_batch_has_to_be_shared_and_to_have_two_values(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"detect.batch_size is 8, which 3 workers"):
        detector_plan(tmp_path, cluster__num_workers=3)
    with pytest.raises(ValueError, match=r"retrain.batch_size is 64, which 5 workers"):
        detector_plan(tmp_path, detect__batch_size=10, cluster__num_workers=5)
    detector_plan(tmp_path, detect__batch_size=2, cluster__num_workers=1)
    with pytest.raises(ValueError, match="a single cell at image_size 128"):
        detector_plan(tmp_path, detect__batch_size=2, cluster__num_workers=2)
    detector_plan(tmp_path, detect__image_size=256, detect__batch_size=2, cluster__num_workers=2)


def test_an_architecture_has_to_be_one_of_the_space(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3"):
        detector_plan(tmp_path, arch="0 0")
    with pytest.raises(ValueError, match=r"index 7.* 0 to 1"):
        detector_plan(tmp_path, arch="0 0 7")


# --- its stages, listed ---


def test_a_detectors_stages_are_listed_with_what_there_is(tmp_path: Path) -> None:
    plan = detector_plan(tmp_path)
    store = StageStore(tmp_path / "runs")

    def listed() -> list[tuple[str, bool]]:
        found = list_stages(plan, store)
        assert found.cells == (found.name,) == ("scenes",)
        assert [one.fingerprint for one in found.stages] == [s.fingerprint for s in plan.stages]
        status = look_up(found, str(tmp_path / "runs"))
        assert [s.num_epochs for s in status.stages] == [1, 2]
        return [(s.listed.stage.kind, s.state == "done") for s in status.stages]

    assert listed() == [("retrain", False), ("detect", False)]
    made = put(store, retrain_of(plan))
    assert listed() == [("retrain", True), ("detect", False)]
    put(store, plan.stage, made_from={"retrain": made.attempt})
    assert listed() == [("retrain", True), ("detect", True)]
    # A backbone that was deleted is pretrained anew, and its detector is trained anew.
    store.delete(made.fingerprint)
    assert listed() == [("retrain", False), ("detect", False)]
    put(store, retrain_of(plan))
    assert listed() == [("retrain", True), ("detect", False)]


def test_a_detector_costs_what_comparable_ones_have_cost(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    plan = detector_plan(tmp_path)
    made_from = {"retrain": put(store, retrain_of(plan)).attempt}

    def estimate(other: DetectionPlan) -> tuple[float | None, str]:
        one = forecast(list_stages(other, store), store, None).estimates[-1]
        return one.device_hours, one.basis

    assert estimate(plan) == (None, "nothing comparable has run yet")
    put(store, plan.stage, made_from=made_from)  # two epochs of half a minute within an hour
    assert estimate(plan) == (0.0, "in the store")
    longer = detector_plan(tmp_path, detect__epochs=20)
    hours = (20 * 30 + (3600 - 2 * 30)) / 3600
    found, basis = estimate(longer)
    assert found == pytest.approx(hours)
    assert basis == "1 earlier run"
    for change in ({"image_size": 256}, {"batch_size": 4}, {"data": {"name": "digit_scenes"}}):
        other = detector_plan(tmp_path, detect={**DETECT, **change})
        assert estimate(other) == (None, "nothing comparable has run yet")


# --- the images ---


def detect(root: Path, **changes: Any) -> DetectConfig:
    data = {"name": "coco", "root": str(root)}
    return DetectConfig.model_validate({**DETECT, "data": data, **changes})


def of(detect: DetectConfig) -> tuple[dict[str, Any], int]:
    return detect.data.model_dump(), detect.batch_size


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return make_digit_scenes(tmp_path / "scenes", num_train=6, num_val=2, image_size=64)


def edit(root: Path, split: str, **changes: Any) -> None:
    """Change lists of an annotation file; a function is applied to what is there."""
    file = annotation_file(root, split)
    document = json.loads(file.read_text(encoding="utf-8"))
    for name, change in changes.items():
        document[name] = change(document[name])
    file.write_text(json.dumps(document), encoding="utf-8")


def test_scenes_are_made_where_they_are_not_and_lie_beside_the_results(tmp_path: Path) -> None:
    config = DetectConfig.model_validate(DETECT)
    found = look_at(config.data.model_dump(), config.batch_size, tmp_path)
    assert found.root == data_root(config.data.model_dump(), tmp_path)
    assert found.root.parent == tmp_path
    assert (found.train.num_images, found.val.num_images) == (16, 8)
    assert found.categories == [{"id": n + 1, "name": str(n)} for n in range(10)]
    file = annotation_file(found.root, "val")
    made = file.stat().st_mtime_ns
    assert look_at(config.data.model_dump(), config.batch_size, tmp_path) == found
    assert file.stat().st_mtime_ns == made
    others = [DetectionData.model_validate({"name": "digit_scenes", "seed": n}) for n in (0, 1)]
    assert len({data_root(data.model_dump(), tmp_path) for data in (*others, config.data)}) == 3
    elsewhere = config.data.model_copy(update={"root": str(tmp_path / "mine")})
    assert data_root(elsewhere.model_dump(), tmp_path) == tmp_path / "mine"


def test_scenes_are_the_same_images_as_a_set_in_cocos_format(tmp_path: Path, scenes: Path) -> None:
    section = {"name": "digit_scenes", "num_train": 6, "num_val": 2, "image_size": 64}
    made = look_at(*of(detect(scenes, data=section, batch_size=6)), tmp_path)
    read = look_at(*of(detect(scenes, batch_size=6)), tmp_path)
    assert (made.train, made.val, made.categories) == (read.train, read.val, read.categories)


def test_a_batch_is_of_images_that_train(tmp_path: Path, scenes: Path) -> None:
    look_at(*of(detect(scenes, batch_size=6)), tmp_path)
    with pytest.raises(CocoError, match=r"detect.batch_size is 7, but only 6 images"):
        look_at(*of(detect(scenes, batch_size=7)), tmp_path)
    edit(scenes, "train", annotations=lambda found: [one for one in found if one["image_id"] > 2])
    with pytest.raises(CocoError, match=r"detect.batch_size is 6, but only 4 images"):
        look_at(*of(detect(scenes, batch_size=6)), tmp_path)


def test_validation_without_an_object_evaluates_nothing(tmp_path: Path, scenes: Path) -> None:
    edit(scenes, "val", annotations=lambda found: [{**one, "iscrowd": 1} for one in found])
    with pytest.raises(CocoError, match=r"no object to find"):
        look_at(*of(detect(scenes, batch_size=2)), tmp_path)


def test_both_splits_number_their_classes_alike(tmp_path: Path, scenes: Path) -> None:
    edit(scenes, "val", categories=lambda found: found[::-1])
    with pytest.raises(CocoError, match=r"in another order \(9, 8, 7, … instead of 0, 1, 2, …\)"):
        look_at(*of(detect(scenes, batch_size=2)), tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_image_is_there(tmp_path: Path, scenes: Path, split: str) -> None:
    gone = min(image_folder(scenes, split).iterdir())
    gone.unlink()
    with pytest.raises(CocoError, match=rf"1 of the \d images .* \({gone.name}\)"):
        look_at(*of(detect(scenes, batch_size=2)), tmp_path)
