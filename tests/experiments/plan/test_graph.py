"""The graph of an experiment: every stage once, what is there, what is not known yet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.load import load_experiment
from experiments.plan.forecast import forecast
from experiments.plan.graph import BASELINE, PlannedStage, StageList, list_stages, plan_experiment
from nas.cost import flops_table
from nas.space import format_architecture
from orchestration.store.stage_store import StageStore
from tests.experiments.command import ROOT, environment
from tests.experiments.configs import ACCURACY, plan_file, small_plan, write_config
from tests.experiments.stage_work import put, supernet_of
from tests.nas.examples import RAGGED_YAML

GRID = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [1, 2, 3]}
CORRELATE = {
    "num_architectures": 6,
    "num_strata": 2,
    "indicators": ["bn", "accuracy", "flops", "naswot"],
}
LIGHT = """
import sys
from pathlib import Path
from experiments.commands.ask import plan, status
plan(Path(sys.argv[1]), json=True, probe=False)
status(sys.argv[1], json=True)
assert not {"ray", "mlflow", "torch"} & set(sys.modules), sorted(sys.modules)
"""


def write_sweep(folder: Path, **changes: Any) -> Path:
    return write_config(
        folder, **{"grid": GRID, "name": "ablation", "supernet__warmup_epochs": 0.5, **changes}
    )


def write_study(folder: Path, **changes: Any) -> Path:
    """Two seeds; for each a supernet, the scores of two indicators, and six retrainings."""
    images = {name: ACCURACY[name] for name in ("recalibration_images", "batch_size")}
    return write_config(
        folder, **{"seeds": [4, 2], "correlate": CORRELATE, "search": images, **changes}
    )


def listed(path: Path) -> StageList:
    return list_stages(plan_file(path), StageStore(path.parent / "runs"))


def of_kind(found: StageList, kind: str) -> list[PlannedStage]:
    return [one for one in found.stages if one.stage.kind == kind]


def test_fingerprints_of_published_configs_are_what_they_were() -> None:
    """Results that users have in their stores stay results of the same config."""
    recorded = json.loads((Path(__file__).parent / "fingerprints.json").read_text("utf-8"))
    for name, known in recorded.items():
        path = ROOT / "experiments" / "configs" / f"{name}.yaml"
        plan = plan_experiment(load_experiment(path, ["storage.path=/nowhere", *known["set"]]))
        found = list_stages(plan, StageStore("/nowhere")).stages
        assert [[one.stage.kind, one.fingerprint] for one in found] == known["stages"]


# --- a cell and a sweep ---


def test_the_stages_of_a_cell_before_anything_ran(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = listed(tmp_path / "small.yaml")
    known = [one.fingerprint for one in found.stages if one.is_known]
    assert known == [stage.fingerprint for stage in plan.known]
    (unknown,) = [one for one in found.stages if not one.is_known]
    assert (unknown.stage.kind, unknown.members) == ("retrain", ("small",))
    document = forecast(found, StageStore(tmp_path / "runs"), None).to_json()
    assert (document["name"], document["num_cached"], document["num_missing"]) == ("small", 0, 5)
    assert document["device_hours_estimate"] is None


def test_twelve_cells_need_six_supernets_and_at_most_twelve_retrainings(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    plan, found = plan_file(path), listed(path)
    supernets, searches = of_kind(found, "supernet"), of_kind(found, "search")
    assert len(supernets) == 6
    for one in supernets:
        first, second = (name.split("-") for name in one.members)
        assert (first[0], first[2]) == (second[0], second[2])
    assert [len(one.members) for one in searches] == [1] * 12
    known = {one.fingerprint for one in found.stages} - {None}
    assert known == {stage.fingerprint for stage in plan.known}
    unknown = [one for one in of_kind(found, "retrain") if not one.is_known]
    names = [name for one in unknown for name in one.members]
    assert sorted(names) == sorted(cell.config.name for cell in plan.cells)
    assert len({one.name for one in unknown}) == 12


def test_what_a_search_has_found_is_known_and_equal_finds_are_one_stage(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={"indicator": ["accuracy", "bn"]})
    store, plan = StageStore(tmp_path / "runs"), plan_file(path)
    made = put(store, supernet_of(plan.cells[0]))
    arch = plan.cells[0].baseline_archs[0]
    for cell in plan.cells:
        found = {"arch": format_architecture(arch)}
        put(store, cell.search, result=found, made_from={"supernet": made.attempt})
    retrain = plan.cells[0].retrain(arch)
    (shared,) = [one for one in listed(path).stages if one.fingerprint == retrain.fingerprint]
    assert shared.members == (*(cell.config.name for cell in plan.cells), "random")
    assert all(one.is_known for one in listed(path).stages)
    put(store, retrain)
    assert sum(one.record is not None for one in listed(path).stages) == 4
    # A search is made anew with its supernet; then nobody knows what it will find.
    store.delete(made.fingerprint)
    again = listed(path)
    assert [one.record for one in of_kind(again, "search")] == [None, None]
    assert sum(not one.is_known for one in again.stages) == 2
    assert sum(one.record is not None for one in again.stages) == 1


def test_sweeping_one_more_field_is_one_more_line(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={"supernet.lr": [0.5, 1.0], "indicator": ["bn"]})
    plan, found = plan_file(path), listed(path)
    assert [cell.config.name for cell in plan.cells] == ["bn-bn-3-lr0.5", "bn-bn-3-lr1.0"]
    assert len(of_kind(found, "supernet")) == len(of_kind(found, "search")) == 2
    alone = small_plan(tmp_path, supernet__lr=0.5, supernet__warmup_epochs=0.5)
    assert plan.cells[0].until_search == alone.until_search


# --- a correlation study ---


def test_a_study_needs_supernets_scores_and_all_its_retrainings(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    plan, found = plan_file(path), listed(path)
    kinds = [one.stage.kind for one in found.stages]
    assert kinds == ["supernet"] * 2 + ["score"] * 4 + ["retrain"] * 12
    for cell in plan.cells:
        ours = [one for one in found.stages if one.members == (f"seed {cell.config.seed}",)]
        assert len(ours) == 1 + 2 + 6
        retrainings = {cell.retrain(arch).fingerprint for arch in plan.archs}
        assert retrainings <= {one.fingerprint for one in ours}
    # Two strata of equal width, with three different architectures each.
    assert len(set(plan.archs)) == 6
    table = flops_table(plan.cells[0].space)
    is_small_B = table.of_many(plan.archs) < (table.minimum + table.maximum) / 2
    assert np.count_nonzero(is_small_B) == 3
    flops_only = {**CORRELATE, "indicators": ["flops"]}
    assert {s.kind for s in plan_file(write_study(tmp_path, correlate=flops_only)).known} == {
        "retrain"
    }


def test_a_studys_scores_cost_what_others_did_and_are_made_anew_with_the_supernet(
    tmp_path: Path,
) -> None:
    path = write_study(tmp_path)
    store, plan = StageStore(tmp_path / "runs"), plan_file(path)
    first = plan.cells[0]
    supernet = put(store, supernet_of(first))
    put(
        store,
        first.score("accuracy", plan.archs),
        metrics={"num_scored": 6.0},
        device_hours=0.5,
        made_from={"supernet": supernet.attempt},
    )
    document = forecast(listed(path), store, None).to_json()
    scores = {(s["name"], *s["cells"]): s for s in document["stages"] if s["kind"] == "score"}
    assert scores["score accuracy", "seed 4"]["cached"]
    # Half an hour for six architectures, as many as the other seed has.
    other = scores["score accuracy", "seed 2"]
    assert other["device_hours_estimate"] == pytest.approx(0.5)
    assert other["basis"] == "1 earlier run"
    assert scores["score naswot", "seed 4"]["device_hours_estimate"] is None
    store.delete(supernet.fingerprint)
    assert [one.record for one in of_kind(listed(path), "score")] == [None] * 4


# --- what cannot be ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"epochs": []}}, r"grid\.epochs"),
        ({"grid": {"supernet.size": [1]}}, "no field of a config"),
        ({"grid": {"tracking.uri": ["a"]}}, "cannot be an axis"),
        ({"grid": {"trainable": ["all", "some"]}}, "'some'"),
        ({"grid": {"indicator": ["flops"], "epochs": [2, 3]}}, "the same, because the indicator"),
        ({"seeds": [1, 1], "correlate": CORRELATE}, "names 1 more than once"),
        ({"correlate": {"num_architectures": 4000}}, "only [0-9]+ could be found"),
        ({"correlate": {"indicators": ["bn", "bn"]}}, "each once"),
        ({"search__max_flops": 10}, "flops of at most 10"),
        ({"search__min_flops": 48_000, "search__max_params": 1400}, "and params .* together"),
        ({"space": "ragged.yaml", "supernet__sampler": "fair"}, "'fair' needs the same number"),
        ({"supernet__batch_size": 500}, "only 128 images"),
        ({"cluster__num_workers": 99}, "less than one image for each of 99 workers"),
        ({"data": {"name": "digits", "max_train_images": 5}}, "less than one image for each"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_it_is_planned(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "ragged.yaml").write_text(RAGGED_YAML, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        plan_file(write_config(tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


# --- the commands ---


def test_plan_and_status_change_nothing_and_need_no_cluster_tracker_or_torch(
    tmp_path: Path,
) -> None:
    path = write_sweep(tmp_path)
    put(StageStore(tmp_path / "runs"), supernet_of(plan_file(path).cells[0]))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_people_read_a_table_of_the_plan(
    bnnas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    path = write_sweep(tmp_path)
    text = bnnas("plan", path, "--no-probe").out
    for cell in plan_file(path).cells:
        assert f"retrain what {cell.config.name} finds" in text
    assert "at most 32 to make, 0 in the store" in text
    ours = bnnas("plan", path, "--no-probe", "--json").json()["stages"]
    longer = "--set=retrain.epochs=9"
    theirs = bnnas("plan", path, "--no-probe", "--json", longer).json()["stages"]
    common = {s["fingerprint"] for s in ours} & {s["fingerprint"] for s in theirs} - {None}
    assert {s["kind"] for s in ours if s["fingerprint"] in common} == {"supernet", "search"}


# --- further axes ---


def test_every_cell_is_planned_with_its_own_images(tmp_path: Path) -> None:
    grid = {"data.name": ["digits", "fashion_mnist"]}
    cells = plan_file(write_config(tmp_path, grid=grid)).cells
    sizes = [(cell.config.data.name, cell.space.resolution) for cell in cells]
    assert sorted(sizes) == [("digits", 8), ("fashion_mnist", 28)]


def test_each_recipe_has_a_random_baseline_of_its_own(tmp_path: Path) -> None:
    grid = {"retrain.lr": [1.0, 2.0], "indicator": ["bn", "flops"]}
    plan = plan_file(write_config(tmp_path, grid=grid))
    drawn = [chain for chain in plan.chains if chain.member == BASELINE]
    recipes = [task.config.retrain for task in drawn]
    assert sorted(each.lr for each in recipes if each is not None) == [1.0, 1.0, 2.0, 2.0]
    other = plan_file(write_config(tmp_path, grid={**grid, "retrain.lr": [1.0, 3.0]}))
    assert plan.group != other.group


def test_what_decides_no_result_is_no_axis(tmp_path: Path) -> None:
    path = write_config(tmp_path, grid={"data.num_workers": [0, 1]})
    with pytest.raises(ValueError, match=r"what they differ in decides no result"):
        plan_file(path)
