"""Plans: every field of a config decides exactly the stages that it is said to decide."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from detection.coco.data import annotation_file
from detection.coco.digit_scenes import make_digit_scenes
from experiments.config.cell import Config
from experiments.config.detect import DetectConfig, DetectionData
from experiments.plan.cell import CellPlan, plan_cell
from experiments.plan.decides import FIELDS
from nas.cost import flops_table, params_table
from nas.data import ImageSpec
from nas.search import InfeasibleBudgetError
from nas.space import load_space, space_from_dict
from orchestration.store.stage import Stage
from tests.experiments.configs import changed, small, write_yaml
from tests.nas.examples import RAGGED_YAML, TINY

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

# Another valid value for every field of a config.
OTHER: dict[str, Any] = {
    "name": "another",
    "space": "spos",
    "seed": 1,
    "data.name": "cifar10",
    "data.root": "/other",
    "data.resolution": 64,
    "data.search_val_fraction": 0.2,
    "data.augment": False,
    "data.max_train_images": 256,
    "data.split_seed": 1,
    "data.skip_unreadable": True,
    "data.num_workers": 2,
    **{
        f"{section}.{field}": value
        for section in ("supernet", "retrain")
        for field, value in {
            "epochs": 4,
            "batch_size": 32,
            "lr": 0.5,
            "warmup_lr": 0.2,
            "warmup_epochs": 0,
            "momentum": 0.8,
            "weight_decay": 0.0,
            "decay_bn_and_bias": True,
            "label_smoothing": 0.0,
            "clip_norm": 5.0,
            "gamma_init": 0.7,
            "precision": "bfloat16",
        }.items()
    },
    "supernet.trainable": "all",
    "supernet.sampler": "fair",
    "supernet.early_bird": {"window": 5},
    "search.indicator": "bn",
    "search.searcher": "random",
    "search.max_flops": 1e7,
    "search.min_flops": 1e6,
    "search.max_params": 3e5,
    "search.top_k": 3,
    "search.evolution.num_iterations": 4,
    "search.evolution.population": 9,
    "search.evolution.num_parents": 5,
    "search.evolution.num_mutations": 4,
    "search.evolution.num_crossovers": 4,
    "search.evolution.mutation_prob": 0.2,
    "search.recalibration_images": 64,
    "search.batch_size": 32,
    "random_baseline.num_architectures": 3,
    "correlate.num_architectures": 5,
    "correlate.num_strata": 2,
    "correlate.num_bins": 2,
    "correlate.indicators": ["bn"],
    "detect": {"data": {"name": "digit_scenes"}, "image_size": 128},
    "storage.path": "elsewhere",
    "tracking.uri": "http://localhost:5000",
    "tracking.experiment": "another",
    "cluster.address": "10.0.0.1:6379",
    "cluster.num_workers": 2,
    "cluster.use_gpu": True,
    "cluster.cpus_per_worker": 2.0,
    "cluster.max_failures": 0,
}

# Another valid value for every field of the detect section that decides what a detector does …
OTHER_DETECT: dict[str, Any] = {
    "image_size": 384,
    "out_strides": [4, 8, 16],
    "epochs": 30,
    "batch_size": 64,
    "lr": 0.1,
    "warmup_lr": 0.01,
    "warmup_epochs": 2,
    "optimizer": "adamw",
    "momentum": 0.8,
    "weight_decay": 0.0,
    "clip_norm": None,
    "scale_range": [0.5, 1.5],
    "flip_prob": 0.0,
    "val_interval": 5,
    "ema_momentum": 0.001,
    "bn_momentum": 0.1,
    "precision": "bfloat16",
    "options": {"model.test_cfg.score_thr": 0.01},
    "data.num_train": 10,
    "data.num_val": 10,
    "data.image_size": 64,
    "data.seed": 1,
}
# … and for those that say where, how fast, and what is shown.
DETECT_PLACES: dict[str, Any] = {
    "data.root": "/elsewhere",
    "num_workers": 3,
    "log_interval": 7,
    "num_images_shown": 1,
}


def plan(values: dict[str, Any], images: ImageSpec = IMAGES) -> CellPlan:
    return plan_cell(Config.model_validate(values), images)


def with_field(values: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    *sections, last = field.split(".")
    copy = dict(values)
    inner = copy
    for section in sections:
        inner[section] = dict(inner.get(section, {}))
        inner = inner[section]
    inner[last] = value
    return copy


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field; a section that may be left out counts as one field."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from fields_of(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def decided_by(field: str) -> frozenset[str]:
    """What FIELDS says; a field under two of its keys would have two answers."""
    parts = field.split(".")
    keys = [key for n in range(len(parts)) if (key := ".".join(parts[: n + 1])) in FIELDS]
    assert len(keys) == 1, f"{field} is classified by {keys or 'nothing'}"
    return FIELDS[keys[0]]


def own_fingerprints(cell: CellPlan) -> dict[str, str]:
    """By what each stage's own config says, without what its inputs add."""
    layers = cell.space.layers
    cheapest = tuple(-1 if layer.fixed_identity else 0 for layer in layers)
    found = [cell.supernet, cell.search, cell.retrain(cheapest), cell.detect(cheapest)]
    stages = [stage for stage in found if stage is not None]
    stages.append(cell.score("accuracy", [cheapest]))
    return {
        stage.kind: Stage(stage.kind, stage.config, stage.code_version).fingerprint
        for stage in stages
    }


def differing(before: CellPlan, after: CellPlan) -> set[str]:
    ours, theirs = own_fingerprints(before), own_fingerprints(after)
    return {kind for kind in ours if ours[kind] != theirs.get(kind)}


def test_every_field_is_classified_once_and_tested() -> None:
    fields = list(fields_of(Config))
    assert sorted(OTHER) == sorted(fields)
    used = {key for key in FIELDS if any(f"{field}.".startswith(f"{key}.") for field in fields)}
    assert used == set(FIELDS)


@pytest.mark.parametrize("field", OTHER)
def test_a_field_decides_what_it_is_said_to_decide(field: str) -> None:
    images = IMAGES
    if field == "data.resolution":
        images = ImageSpec(3, OTHER[field], 10)
    before, after = plan(DETECTING), plan(with_field(DETECTING, field, OTHER[field]), images)
    assert differing(before, after) == decided_by(field)
    # What the supernet is decides the search too, through its fingerprint.
    assert before.supernet is not None
    assert after.supernet is not None
    assert before.search.inputs == {"supernet": before.supernet.fingerprint}
    if decided_by(field) & {"supernet", "search"}:
        assert before.search.fingerprint != after.search.fingerprint
    else:
        assert before.search.fingerprint == after.search.fingerprint
        assert before.supernet.fingerprint == after.supernet.fingerprint


DATA_FIELDS = [field for field in OTHER if field.startswith("data.") and decided_by(field)]


@pytest.mark.parametrize(
    "field", [*DATA_FIELDS, "search.recalibration_images", "search.batch_size"]
)
def test_an_additive_indicator_reads_no_image(field: str) -> None:
    base = changed(DETECTING, search__indicator="bn")
    after = plan(with_field(base, field, OTHER[field]))
    # Neither does a detector, which knows the resolution from the space.
    assert differing(plan(base), after) == decided_by(field) - {"search", "detect"}


# --- the detect section ---


def test_every_field_of_the_detect_section_is_tested() -> None:
    names = {name for name in DetectConfig.model_fields if name != "data"}
    names |= {f"data.{name}" for name in DetectionData.model_fields if name != "name"}
    assert {*OTHER_DETECT, *DETECT_PLACES} == names


@pytest.mark.parametrize("field", OTHER_DETECT)
def test_a_field_of_the_detect_section_decides_the_detector_alone(field: str) -> None:
    after = plan(with_field(DETECTING, f"detect.{field}", OTHER_DETECT[field]))
    assert differing(plan(DETECTING), after) == {"detect"}


@pytest.mark.parametrize("field", DETECT_PLACES)
def test_where_how_fast_and_what_is_shown_decide_nothing(field: str) -> None:
    after = plan(with_field(DETECTING, f"detect.{field}", DETECT_PLACES[field]))
    assert differing(plan(DETECTING), after) == set()


@pytest.mark.parametrize(
    "field", [field for field in OTHER if "retrain" in decided_by(field) and field != "space"]
)
def test_what_the_retraining_is_decides_the_detector_too(field: str) -> None:
    images = ImageSpec(3, OTHER[field], 10) if field == "data.resolution" else IMAGES
    before, after = plan(DETECTING), plan(with_field(DETECTING, field, OTHER[field]), images)
    arch = before.baseline_archs[0]
    ours, theirs = detector_inputs(before, arch), detector_inputs(after, arch)
    assert ours == {"retrain": before.retrain(arch).fingerprint}
    assert ours != theirs


def detector_inputs(cell: CellPlan, arch: tuple[int, ...]) -> dict[str, str]:
    stage = cell.detect(arch)
    assert stage is not None
    return dict(stage.inputs)


def test_another_architecture_is_another_detector() -> None:
    cell = plan(DETECTING)
    stages = [cell.detect(arch) for arch in cell.baseline_archs]
    assert len({stage.fingerprint for stage in stages if stage is not None}) == len(stages) == 2
    assert plan(BASE).detect(cell.baseline_archs[0]) is None


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


# --- places and names ---


def test_only_a_folder_of_images_is_named_by_its_place() -> None:
    base = changed(BASE, data__name="cifar10")
    assert differing(plan(base), plan(changed(base, data__root="/other"))) == set()


def test_a_relative_root_is_the_place_that_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert differing(built_in, plan(changed(BASE, space=str(wider)))) == {
        "supernet",
        "search",
        "retrain",
        "score",
    }


def test_an_indicator_without_a_supernet_has_none() -> None:
    for indicator in ("flops", "params", "random", "naswot", "synflow"):
        cell = plan(changed(BASE, search__indicator=indicator))
        assert cell.supernet is None
        assert cell.search.inputs == {}
        assert [stage.kind for stage in cell.known] == ["search", "retrain", "retrain"]


# --- what cannot be, is said before anything runs ---


def test_a_budget_below_the_cheapest_names_the_cheapest() -> None:
    space = load_space("micro").for_images(in_channels=3, resolution=32, num_classes=10)
    cheapest = flops_table(space).minimum
    plan(changed(BASE, search__max_flops=cheapest))
    with pytest.raises(InfeasibleBudgetError, match=f"cheapest possible one has {cheapest:.0f}"):
        plan(changed(BASE, search__max_flops=cheapest - 1))
    dearest = flops_table(space).maximum
    with pytest.raises(InfeasibleBudgetError, match=f"dearest possible one has {dearest:.0f}"):
        plan(changed(BASE, search__min_flops=dearest + 1))


def test_budgets_that_exclude_each_other() -> None:
    space = load_space("micro").for_images(in_channels=3, resolution=32, num_classes=10)
    values = changed(
        BASE,
        search__min_flops=flops_table(space).maximum,
        search__max_params=params_table(space).minimum,
    )
    with pytest.raises(InfeasibleBudgetError, match=r"flops .* and params .* together"):
        plan(values)


def test_strict_fairness_needs_equally_many_candidates(tmp_path: Path) -> None:
    (tmp_path / "ragged.yaml").write_text(RAGGED_YAML, encoding="utf-8")
    values = changed(BASE, space=str(tmp_path / "ragged.yaml"))
    plan(values)
    with pytest.raises(ValueError, match="'fair' needs the same number of candidates"):
        plan(changed(values, supernet__sampler="fair"))


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
        assert plan(with_field(base, field, OTHER[field])).baseline_archs == archs
    assert plan(changed(base, seed=1)).baseline_archs != archs
    fewer = plan(changed(base, random_baseline__num_architectures=5))
    assert fewer.baseline_archs == archs[:5]


def test_a_space_smaller_than_the_baseline_gives_all_of_it(tmp_path: Path) -> None:
    one_choice = {**TINY.to_dict(), "stages": [{"channels": 8, "layers": 1, "stride": 1}]}
    one_choice |= {"candidates": [[3, 1], [5, 1]], "fixed_identity": []}
    path = write_yaml(tmp_path / "two.yaml", one_choice)
    values = changed(BASE, space=str(path), random_baseline__num_architectures=5)
    assert sorted(plan(values).baseline_archs) == [(0,), (1,)]
    assert plan(changed(values, random_baseline__num_architectures=0)).baseline == ()


def test_a_retraining_is_the_same_stage_whoever_found_the_architecture() -> None:
    cell = plan(BASE)
    for arch, stage in zip(cell.baseline_archs, cell.baseline, strict=True):
        assert cell.retrain(arch).fingerprint == stage.fingerprint
        assert stage.inputs == {}
        rebuilt = space_from_dict(stage.config["space"])
        rebuilt.validate(arch)
        assert flops_table(rebuilt).of(arch) == flops_table(cell.space).of(arch)
