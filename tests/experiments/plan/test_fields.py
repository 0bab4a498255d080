"""Every field of a config decides exactly the stages that it is said to decide."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detection.coco.data import annotation_file
from detection.coco.digit_scenes import make_digit_scenes
from experiments.config.experiment import CellConfig
from experiments.config.section import Section
from experiments.plan.cell_plan import CellPlan, plan_cell
from experiments.plan.decides import FIELDS
from nas.cost import flops_table
from nas.data import ImageSpec
from nas.space import load_space
from orchestration.store.stage import Stage
from tests.experiments.configs import changed, small, write_yaml
from tests.nas.examples import TINY

IMAGES = ImageSpec(in_channels=3, resolution=32, num_classes=10)

# Where every field can matter: `data.root` decides only for a folder of images, which nothing but
# its place names, and what search reads of the images only for an indicator that is not additive.
BASE = changed(
    small(),
    data__name="imagefolder",
    data__root="/images",
    search__indicator="accuracy",
    search__searcher="evolution",
)
# The same in a space that a detector can be built on.
DETECTING = changed(
    BASE,
    space="micro_detection",
    detect={"data": {"name": "digit_scenes"}, "image_size": 256},
    cluster__use_gpu=True,  # which half precision needs
)
# Another valid value, where it does not follow from the one in DETECTING.
OTHER: dict[str, Any] = {
    "name": "another",
    "space": "spos",
    "data.name": "cifar10",
    "data.root": "/other",
    "data.resolution": 64,
    "data.max_train_images": 256,
    "supernet.clip_norm": 5.0,
    "supernet.precision": "bfloat16",
    "supernet.trainable": "all",
    "supernet.sampler": "fair",
    "supernet.early_bird": {"window": 5},
    "search.indicator": "bn",
    "search.searcher": "random",
    "search.max_flops": 1e7,
    "search.min_flops": 1e6,
    "search.max_params": 3e5,
    "retrain.clip_norm": 5.0,
    "retrain.precision": "bfloat16",
    "correlate.indicators": ["bn"],
    "detect.image_size": 384,
    "detect.out_strides": [4, 8, 16],
    "detect.warmup_lr": 0.01,
    "detect.optimizer": "adamw",
    "detect.clip_norm": None,
    "detect.scale_range": [0.5, 1.5],
    "detect.precision": "bfloat16",
    "detect.options": {"model.test_cfg.score_thr": 0.01},
    "detect.data.root": "/elsewhere",
    "storage.path": "elsewhere",
    "tracking.uri": "http://localhost:5000",
    "tracking.experiment": "another",
    "cluster.address": "10.0.0.1:6379",
    "cluster.num_workers": 2,
    "cluster.memory_per_worker": 4.0,
    "cluster.accelerator_type": "A100",
    "cluster.labels": {"zone": "a"},
    "cluster.cluster_workers": 8,
    "cluster.tune_callbacks": ["package.module:Class"],
    "cluster.runtime_env": {"pip": ["rich"]},
}
# Of the detect section: where, how fast, and what is shown.
DETECT_PLACES = {
    f"detect.{name}" for name in ("data.root", "num_workers", "log_interval", "num_images_shown")
}


def plan(values: dict[str, Any], images: ImageSpec = IMAGES) -> CellPlan:
    return plan_cell(CellConfig.model_validate(values), images)


def with_field(values: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    *sections, last = field.split(".")
    copy = dict(values)
    inner = copy
    for section in sections:
        inner[section] = dict(inner.get(section, {}))
        inner = inner[section]
    inner[last] = value
    return copy


def values_of(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field with its value; a section that is left out counts as one field."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from values_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def another(field: str, value: Any) -> Any:
    if field in OTHER:
        return OTHER[field]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2


FIELDS_OF_DETECTING = {
    field: another(field, value)
    for field, value in values_of(CellConfig.model_validate(DETECTING))
    if field != "detect.data.name"  # whose other value has a test of its own
}


def decided_by(field: str) -> frozenset[str]:
    """What FIELDS says; a field under two of its keys would have two answers."""
    if field in DETECT_PLACES:
        return frozenset()
    parts = field.split(".")
    keys = [key for n in range(len(parts)) if (key := ".".join(parts[: n + 1])) in FIELDS]
    assert len(keys) == 1, f"{field} is classified by {keys or 'nothing'}"
    return FIELDS[keys[0]]


def planned_with(field: str, base: dict[str, Any] = DETECTING) -> CellPlan:
    value = FIELDS_OF_DETECTING[field]
    images = ImageSpec(3, value, 10) if field == "data.resolution" else IMAGES
    return plan(with_field(base, field, value), images)


def cheapest(cell: CellPlan) -> tuple[int, ...]:
    return tuple(-1 if layer.fixed_identity else 0 for layer in cell.space.layers)


def own_fingerprints(cell: CellPlan) -> dict[str, str]:
    """By what each stage's own config says, without what its inputs add."""
    arch = cheapest(cell)
    found = [cell.supernet, cell.search, cell.retrain(arch), cell.score("accuracy", [arch])]
    if cell.config.detect is not None:
        found.append(cell.detect(arch))
    return {
        stage.kind: Stage(stage.kind, stage.config, stage.code_version).fingerprint
        for stage in found
        if stage is not None
    }


def differing(before: CellPlan, after: CellPlan) -> set[str]:
    ours, theirs = own_fingerprints(before), own_fingerprints(after)
    return {kind for kind in ours if ours[kind] != theirs.get(kind)}


def test_every_key_of_the_classification_is_that_of_a_field() -> None:
    used = {
        key for key in FIELDS for field in FIELDS_OF_DETECTING if f"{field}.".startswith(f"{key}.")
    }
    assert used == set(FIELDS)


@pytest.mark.parametrize("field", FIELDS_OF_DETECTING)
def test_a_field_decides_the_stages_that_it_is_said_to(field: str) -> None:
    before, after = plan(DETECTING), planned_with(field)
    decided = decided_by(field)
    assert differing(before, after) == decided
    # What a stage reads decides it too, through its fingerprint.
    assert before.supernet is not None
    assert before.search.inputs == {"supernet": before.supernet.fingerprint}
    is_same = before.search.fingerprint == after.search.fingerprint
    assert is_same == (not decided & {"supernet", "search"})
    ours, theirs = before.detect(cheapest(before)), after.detect(cheapest(after))
    assert ours.inputs == {"retrain": before.retrain(cheapest(before)).fingerprint}
    assert (ours.fingerprint == theirs.fingerprint) == (not decided & {"retrain", "detect"})


def test_an_additive_indicator_reads_no_image() -> None:
    base = changed(DETECTING, search__indicator="bn", search__searcher="exact")
    for field, value in FIELDS_OF_DETECTING.items():
        reads_images = field.startswith("data.") and decided_by(field)
        if reads_images or field in ("search.recalibration_images", "search.batch_size"):
            # Neither does a detector, which knows the resolution from the space.
            after = plan(with_field(base, field, value))
            assert differing(plan(base), after) == decided_by(field) - {"search", "detect"}


def test_an_indicator_without_a_supernet_has_none() -> None:
    for indicator in ("flops", "params", "random", "naswot", "synflow"):
        searcher = {"searcher": None, "indicator": indicator}
        cell = plan(changed(BASE, search=searcher))
        assert cell.supernet is None
        assert cell.search.inputs == {}
        assert [stage.kind for stage in cell.known] == ["search", "retrain", "retrain"]


# --- places and names ---


def test_images_in_cocos_format_are_known_by_the_content_of_their_annotation_files(
    tmp_path: Path,
) -> None:
    here = make_digit_scenes(tmp_path / "here", num_train=2, num_val=1, image_size=32)
    there = shutil.copytree(here, tmp_path / "there")

    def planned(root: Path) -> CellPlan:
        return plan(changed(DETECTING, detect__data={"name": "coco", "root": str(root)}))

    before = planned(here)
    assert differing(before, planned(there)) == set()
    assert differing(before, plan(DETECTING)) == {"detect"}
    for split in ("train", "val"):
        file = annotation_file(there, split)
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"scikit-learn", b"scikit_learn"))
        assert differing(before, planned(there)) == {"detect"}
        file.write_bytes(whole)
    assert differing(before, planned(there)) == set()


def test_a_root_is_the_place_that_it_means_where_nothing_else_names_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar = changed(BASE, data__name="cifar10")
    assert differing(plan(cifar), plan(changed(cifar, data__root="/other"))) == set()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    here = own_fingerprints(plan(changed(BASE, data__root="images")))
    same = own_fingerprints(plan(changed(BASE, data__root=str(tmp_path / "images"))))
    monkeypatch.chdir(tmp_path / "there")
    there = own_fingerprints(plan(changed(BASE, data__root="images")))
    assert here == same
    assert all(here[kind] != there[kind] for kind in here)


def test_a_space_is_what_it_contains_and_not_its_name(tmp_path: Path) -> None:
    copy = {**load_space("micro").to_dict(), "name": "mine"}
    path = write_yaml(tmp_path / "mine.yaml", copy)
    built_in, own = plan(BASE), plan(changed(BASE, space=str(path)))
    assert own.space.name == "mine"
    assert [s.fingerprint for s in built_in.known] == [s.fingerprint for s in own.known]
    wider = write_yaml(tmp_path / "wider.yaml", {**copy, "head": {"channels": 129}})
    kinds = {"supernet", "search", "retrain", "score"}
    assert differing(built_in, plan(changed(BASE, space=str(wider)))) == kinds


# --- the random baseline ---


def test_the_baseline_is_legal_distinct_and_independent_of_the_search() -> None:
    space = load_space("micro").for_images(in_channels=3, resolution=32, num_classes=10)
    flops = flops_table(space)
    budget = (flops.minimum + flops.maximum) / 2
    base = changed(BASE, search__max_flops=budget, random_baseline__num_architectures=20)
    archs = plan(base).baseline_archs
    assert len(set(archs)) == 20
    assert flops.of_many(archs).max() <= budget
    for field in ("search.searcher", "search.indicator", "supernet.epochs", "search.top_k"):
        assert planned_with(field, base).baseline_archs == archs
    assert plan(changed(base, seed=1)).baseline_archs != archs
    fewer = plan(changed(base, random_baseline__num_architectures=5))
    assert fewer.baseline_archs == archs[:5]


def test_a_space_smaller_than_the_baseline_gives_all_of_it(tmp_path: Path) -> None:
    one_choice = {**TINY.to_dict(), "stages": [{"channels": 8, "layers": 1, "stride": 1}]}
    one_choice |= {"candidates": [[3, 1], [5, 1]], "fixed_identity": []}
    path = write_yaml(tmp_path / "two.yaml", one_choice)
    values = changed(BASE, space=str(path), random_baseline__num_architectures=5)
    assert sorted(plan(values).baseline_archs) == [(0,), (1,)]
    assert plan(changed(values, random_baseline__num_architectures=0)).baseline_archs == ()
