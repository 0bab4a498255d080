"""What a report says of an experiment that is empty, half done, failed, odd, or somebody else's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from experiments.evidence.evidence import Evidence
from experiments.evidence.report import Report, build_report
from experiments.report.make import make_report
from orchestration.run_reader import read_experiment
from orchestration.tracking import Tracker

EXPERIMENT = "odd"


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    found = Tracker(f"sqlite:///{tmp_path}/mlflow.db", EXPERIMENT)
    found.check()
    return found


def start(tracker: Tracker, kind: str, name: str, parent: str | None = None, **params: Any) -> str:
    tags = {"bnnas.stage": kind, "mlflow.source.name": "bnnas sweep s.yaml"}
    return tracker.start_group(name, tags, params, group=name, parent_run_id=parent)


def cell(tracker: Tracker, sweep: str, trainable: str, seed: int = 0) -> str:
    name = f"{trainable}-bn-3-seed{seed}"
    params = {"trainable": trainable, "indicator": "bn", "epochs": 3, "seed": seed}
    return start(tracker, "cell", name, sweep, **params)


def sweep_of(tracker: Tracker) -> str:
    return start(tracker, "sweep", "s", space="tiny", data="digits")


def report(tracker: Tracker, folder: Path) -> tuple[Report, str]:
    """The report, and its page."""
    experiment = read_experiment(tracker.uri, EXPERIMENT)
    page = make_report(experiment, folder / "report").page.read_text("utf-8")
    return build_report(Evidence(experiment)), page


def test_an_empty_experiment_says_what_would_fill_it(tracker: Tracker, tmp_path: Path) -> None:
    found, page = report(tracker, tmp_path)
    assert "Nothing is tracked" in found.gaps[0]
    assert found.gaps[0].split("`")[0] in page
    filled = {"comparison", "cost", "detection"}  # by what others have published
    for section in found.sections:
        assert section.missing, section.key
        assert section.key in filled or not section.tables
    assert all("`" in " ".join(s.missing) for s in found.sections if s.key != "lineage")


def test_a_half_finished_sweep_shows_what_is_there(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    done = cell(tracker, sweep, "all")
    tracker.finish_group(done, metrics={"top1": 0.75, "flops": 1e5, "params": 1e4})
    cell(tracker, sweep, "bn")
    found, page = report(tracker, tmp_path)
    gaps = " ".join(found.sections[0].missing)
    assert "has not come to its end (1 of 2 cells at work)" in gaps
    assert "`bnnas sweep s.yaml` goes on with it" in gaps
    assert ">75.00</span>" in page
    assert "not yet" in page


def test_a_failed_sweep_says_which_cells_and_why(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    lost = cell(tracker, sweep, "bn")
    tracker.finish_group(lost, "FAILED", tags={"bnnas.error": "the fan <is> loud"})
    tracker.finish_group(sweep, "FAILED")
    found, page = report(tracker, tmp_path)
    gaps = " ".join(found.sections[0].missing)
    assert "1 of 1 cells of the sweep s have failed (bn-bn-3-seed0: the fan <is> loud)" in gaps
    assert "the fan &lt;is&gt; loud" in page
    assert "no cell has come to its end" in page


def test_a_number_that_is_none_is_left_out_and_named(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    for seed, top1 in enumerate((0.5, 0.7, math.nan)):
        run_id = cell(tracker, sweep, "bn", seed)
        tracker.finish_group(run_id, metrics={"top1": top1})
    tracker.finish_group(sweep)
    found, page = report(tracker, tmp_path)
    assert "The top-1 of bn-bn-3-seed2 is no number" in " ".join(found.sections[0].missing)
    assert ">60.00</span> ±" in page
    assert "not finite" in page


def test_runs_of_another_program_are_counted_and_left_out(tracker: Tracker, tmp_path: Path) -> None:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    for _ in range(2):
        run = client.create_run(experiment.experiment_id, run_name="somebody-else")
        client.log_metric(run.info.run_id, "top1", 0.99)
    sweep = sweep_of(tracker)
    tracker.finish_group(cell(tracker, sweep, "bn"), metrics={"top1": 0.5})
    found, page = report(tracker, tmp_path)
    assert "2 run(s) of the experiment are of another program" in " ".join(found.gaps)
    assert "somebody-else" not in page
    assert "99.00" not in page


def test_names_of_runs_are_no_paths_and_do_not_collide(tracker: Tracker, tmp_path: Path) -> None:
    for number in range(2):
        sweep = tracker.start_group(
            "../a b", {"bnnas.stage": "sweep"}, {"space": "tiny"}, group=f"g{number}"
        )
        run_id = start(tracker, "cell", f"c{number}", sweep, trainable="bn", epochs=1)
        tracker.finish_group(run_id, metrics={"top1": 0.1 * (number + 1)})
        tracker.finish_group(sweep)
    report(tracker, tmp_path)
    tables = {path.name for path in (tmp_path / "report" / "tables").glob("ablation*.csv")}
    assert tables == {"ablation-..-a-b.csv", "ablation-..-a-b-2.csv"}
    assert len(list(tmp_path.iterdir())) <= 3  # database, artifacts, report
