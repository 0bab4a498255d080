"""`bnnas plan`: every stage once, what is there, what is not known yet; nothing is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from experiments.commands import ask
from experiments.config.load import load_correlation, load_sweep
from experiments.plan.study import CorrelationPlan, plan_correlation
from experiments.plan.sweep import SweepPlan, plan_sweep
from nas.data import describe_data
from nas.space import format_architecture
from orchestration.store.stage_store import StageStore
from tests.experiments.command import environment
from tests.experiments.configs import changed, small, small_plan, write_config, write_yaml
from tests.experiments.stages import put
from tests.nas.examples import TINY

ACCURACY = {"recalibration_images": 64, "batch_size": 64}
GRID = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [1, 2, 3]}
LIGHT = """
import sys
from pathlib import Path
from experiments.commands.ask import plan, status
plan(Path(sys.argv[1]), json=True, probe=False)
status(sys.argv[1], json=True)
assert not {"ray", "mlflow", "torch"} & set(sys.modules), sorted(sys.modules)
"""

app = typer.Typer()
app.command()(ask.plan)
app.command()(ask.status)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def planned(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def write_sweep(folder: Path, **changes: Any) -> Path:
    write_yaml(folder / "tiny.yaml", TINY.to_dict())
    values = changed(small("tiny.yaml"), storage__path=str(folder / "runs"), grid=GRID)
    values = changed(values, name="ablation", supernet__warmup_epochs=0.5)
    return write_yaml(folder / "sweep.yaml", changed(values, **changes))


def sweep_plan(path: Path) -> SweepPlan:
    return plan_sweep(load_sweep(path), describe_data("digits"))


def write_study(folder: Path, **changes: Any) -> Path:
    """Two seeds; for each a supernet, the scores of two indicators, and six retrainings."""
    correlate = {"num_architectures": 6, "indicators": ["bn", "accuracy", "flops", "naswot"]}
    write_config(folder, seeds=[4, 2], correlate=correlate, search=ACCURACY, **changes)
    return (folder / "small.yaml").rename(folder / "study.yaml")


def study_plan(path: Path) -> CorrelationPlan:
    return plan_correlation(load_correlation(path), describe_data("digits"))


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [stage for stage in document["stages"] if stage["kind"] == kind]


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with what is in it and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_stages_of_a_cell_before_anything_ran(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    document = planned(tmp_path / "small.yaml", "--no-probe")
    known = [stage for stage in document["stages"] if stage["fingerprint"] is not None]
    assert [stage["fingerprint"] for stage in known] == [s.fingerprint for s in plan.known]
    (unknown,) = [stage for stage in document["stages"] if stage["fingerprint"] is None]
    assert (unknown["kind"], unknown["cells"]) == ("retrain", ["small"])
    assert not any(stage["cached"] for stage in document["stages"])
    assert (document["name"], document["num_cached"], document["num_missing"]) == ("small", 0, 5)
    assert document["device_hours_estimate"] is None
    assert {stage["device_hours_estimate"] for stage in document["stages"]} == {None, 0.0}


def test_twelve_cells_need_six_supernets_and_at_most_twelve_retrainings(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    plan = sweep_plan(path)
    document = planned(path, "--no-probe")
    supernets, searches = of_kind(document, "supernet"), of_kind(document, "search")
    assert len(supernets) == 6
    for stage in supernets:
        first, second = (name.split("-") for name in stage["cells"])
        assert (first[0], first[2]) == (second[0], second[2])
    assert [len(stage["cells"]) for stage in searches] == [1] * 12
    known = {stage["fingerprint"] for stage in document["stages"]} - {None}
    assert known == {stage.fingerprint for stage in plan.known}
    unknown = [stage for stage in of_kind(document, "retrain") if stage["fingerprint"] is None]
    names = [name for stage in unknown for name in stage["cells"]]
    assert sorted(names) == sorted(cell.config.name for cell in plan.cells)
    assert len({stage["name"] for stage in document["stages"] if stage in unknown}) == 12


def test_what_a_search_has_found_is_known_and_equal_finds_are_one_stage(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={"indicator": ["accuracy", "bn"]})
    store, plan = StageStore(tmp_path / "runs"), sweep_plan(path)
    supernet = plan.cells[0].supernet
    assert supernet is not None
    made = put(store, supernet)
    arch = plan.cells[0].baseline_archs[0]
    for cell in plan.cells:
        put(
            store,
            cell.search,
            result={"arch": format_architecture(arch)},
            metrics={"num_evaluated": 24.0},
            made_from={"supernet": made.attempt},
        )
    document = planned(path, "--no-probe")
    assert document["num_cached"] == 3
    retrain = plan.cells[0].retrain(arch)
    (shared,) = [s for s in document["stages"] if s["fingerprint"] == retrain.fingerprint]
    assert shared["cells"] == [*(cell.config.name for cell in plan.cells), "random"]
    assert None not in {stage["fingerprint"] for stage in document["stages"]}
    put(store, retrain, metrics={"flops": 1000.0})
    assert planned(path, "--no-probe")["num_cached"] == 4
    # A search is made anew with its supernet; then nobody knows what it will find.
    store.delete(supernet.fingerprint)
    again = planned(path, "--no-probe")
    assert [stage["cached"] for stage in of_kind(again, "search")] == [False, False]
    assert sum(stage["fingerprint"] is None for stage in again["stages"]) == 2
    assert again["num_cached"] == 1


def test_the_total_is_what_is_still_to_be_spent(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    store = StageStore(tmp_path / "runs")
    assert plan.supernet is not None
    put(store, plan.supernet, device_hours=7.0)
    for arch in plan.baseline_archs:
        put(store, plan.retrain(arch), metrics={"flops": 1000.0}, device_hours=0.25)
    document = planned(tmp_path / "small.yaml", "--no-probe")
    (supernet,) = of_kind(document, "supernet")
    assert (supernet["cached"], supernet["device_hours_estimate"]) == (True, 0.0)
    # The retraining of what is not found yet, as long as the two before it.
    assert document["device_hours_estimate"] == pytest.approx(0.25)
    assert sum(s["device_hours_estimate"] for s in document["stages"]) == pytest.approx(0.25)


def test_a_plan_with_measurements_changes_nothing(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={"indicator": ["accuracy", "bn"]})
    store, plan = StageStore(tmp_path / "runs"), sweep_plan(path)
    put(store, plan.baseline[0].stage, metrics={"flops": 1000.0})
    before = content(tmp_path)
    document = planned(path)
    assert content(tmp_path) == before
    total = sum(stage["device_hours_estimate"] for stage in document["stages"])
    assert document["device_hours_estimate"] == pytest.approx(total)
    bases = {stage["basis"].partition(",")[0] for stage in document["stages"]}
    assert bases == {
        "in the store",
        "1 earlier run",
        "computed",
        "measured on this machine's CPU",
    }


def test_a_study_needs_supernets_scores_and_all_its_retrainings(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    plan = study_plan(path)
    document = planned(path, "--no-probe")
    assert document["name"] == "small"
    kinds = [stage["kind"] for stage in document["stages"]]
    assert kinds == ["supernet"] * 2 + ["score"] * 4 + ["retrain"] * 12
    assert {stage["fingerprint"] for stage in document["stages"]} == {
        stage.fingerprint for stage in plan.stages
    }
    for cell in plan.cells:
        name = f"seed {cell.config.seed}"
        ours = [stage for stage in document["stages"] if stage["cells"] == [name]]
        assert len(ours) == 1 + 2 + 6
        retrainings = {cell.retrain(arch).fingerprint for arch in plan.archs}
        assert retrainings <= {stage["fingerprint"] for stage in ours}
    assert (document["num_cached"], document["num_missing"]) == (0, 18)
    assert {stage["device_hours_estimate"] for stage in document["stages"]} == {None}


def test_a_study_costs_what_earlier_runs_say(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    store, plan = StageStore(tmp_path / "runs"), study_plan(path)
    first, second = plan.cells
    assert first.supernet is not None
    supernet = put(store, first.supernet, device_hours=0.25)
    accuracy, _ = plan.scores(first)
    put(
        store,
        accuracy,
        metrics={"num_scored": 6.0},
        device_hours=0.5,
        made_from={"supernet": supernet.attempt},
    )
    put(store, second.retrain(plan.archs[0]), metrics={"flops": 1000.0})
    document = planned(path, "--no-probe")
    cached = {stage["fingerprint"] for stage in document["stages"] if stage["cached"]}
    assert cached == {
        first.supernet.fingerprint,
        accuracy.fingerprint,
        second.retrain(plan.archs[0]).fingerprint,
    }
    by_name = {(stage["name"], *stage["cells"]): stage for stage in of_kind(document, "score")}
    # Half an hour for six architectures, as many as the other seed has.
    other = by_name["score accuracy", "seed 2"]
    assert other["device_hours_estimate"] == pytest.approx(0.5)
    assert other["basis"] == "1 earlier run"
    assert by_name["score naswot", "seed 4"]["device_hours_estimate"] is None
    assert None not in {s["device_hours_estimate"] for s in of_kind(document, "retrain")}
    # Scores are of one supernet, and are made anew with it.
    store.delete(first.supernet.fingerprint)
    again = planned(path, "--no-probe")
    assert not [stage for stage in of_kind(again, "score") if stage["cached"]]


def test_a_study_scores_at_the_cost_of_an_earlier_search(tmp_path: Path) -> None:
    earlier = small_plan(tmp_path, search={"indicator": "accuracy", **ACCURACY})
    store, path = StageStore(tmp_path / "runs"), write_study(tmp_path)
    put(store, earlier.search, metrics={"num_evaluated": 12.0}, device_hours=0.5)
    scores = {stage["name"]: stage for stage in of_kind(planned(path, "--no-probe"), "score")}
    assert scores["score accuracy"]["device_hours_estimate"] == pytest.approx(0.5 / 12 * 6)
    assert scores["score naswot"]["device_hours_estimate"] is None


def test_a_study_is_measured_where_nothing_ran(tmp_path: Path) -> None:
    document = planned(write_study(tmp_path))
    assert document["device_hours_estimate"] > 0
    bases = {stage["basis"].partition(",")[0] for stage in document["stages"]}
    assert bases == {"measured on this machine's CPU"}


@pytest.mark.parametrize("write", [write_sweep, write_study])
def test_neither_command_needs_a_cluster_a_tracker_or_torch(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path)
    before = content(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path) == before


def test_people_read_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    path = write_sweep(tmp_path)
    text = run(path, "--no-probe").stdout
    for cell in sweep_plan(path).cells:
        assert f"retrain what {cell.config.name} finds" in text
    assert "at most 12" in text
    assert "at most 32 to make, 0 in the store" in text
    assert "unknown" in text


def test_an_override_is_planned_too(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    ours = planned(path, "--no-probe")
    theirs = planned(path, "--no-probe", "--set", "retrain.epochs=9")
    both = {s["fingerprint"] for s in ours["stages"]} & {s["fingerprint"] for s in theirs["stages"]}
    kinds = {stage["kind"] for stage in ours["stages"] if stage["fingerprint"] in both - {None}}
    assert kinds == {"supernet", "search"}
