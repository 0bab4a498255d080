"""`bnnas status`: done, running, failed and missing, from real claims, notes and results."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from experiments.commands import ask
from experiments.plan.cell import CellPlan
from experiments.plan.graph import BASELINE, list_stages
from experiments.plan.status import ExperimentStatus, StageStatus, look_up
from experiments.plan.study import CorrelationPlan
from experiments.plan.sweep import SweepPlan
from orchestration.store.claims import Claim, Claims, Holder
from orchestration.store.failure_log import FailureLog, FailureNote
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import small_plan
from tests.experiments.stages import put
from tests.experiments.test_plan_command import study_plan, sweep_plan, write_study, write_sweep

BEAT_S = 0.05

app = typer.Typer()
app.command()(ask.plan)
app.command()(ask.status)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["status", *map(str, arguments)])


def status_of(plan: CellPlan | SweepPlan | CorrelationPlan, folder: Path) -> ExperimentStatus:
    storage = folder / "runs"
    return look_up(list_stages(plan, StageStore(storage)), str(storage), patience_s=0.5)


def found(status: ExperimentStatus, stage: Stage) -> StageStatus:
    (one,) = [one for one in status.stages if one.listed.fingerprint == stage.fingerprint]
    return one


def supernet_of(plan: CellPlan) -> Stage:
    assert plan.supernet is not None
    return plan.supernet


@contextmanager
def claimed(folder: Path, stage: Stage, **note: Any) -> Iterator[Claim]:
    """A claim on a stage that has told its note."""
    claims = Claims(folder / "runs", beat_s=BEAT_S)
    claim = claims.attempt(stage.fingerprint)
    assert claim is not None
    with claim:
        claim.set_note(note)
        while (holder := claims.holder(stage.fingerprint)) is None or holder.note != note:
            time.sleep(BEAT_S)
        yield claim


def fail(folder: Path, stage: Stage, message: str, failed_at: float = 1e9) -> None:
    note = FailureNote(stage.kind, stage.name, message, failed_at, owner="somebody")
    FailureLog(folder / "runs").put(stage.fingerprint, note)


def test_before_anything_ran_all_is_missing_and_nothing_failed(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    status = status_of(plan, tmp_path)
    assert {stage.state for stage in status.stages} == {"missing"}
    assert status.cells == {"small": "waiting", BASELINE: "waiting"}
    assert run(tmp_path / "small.yaml").exit_code == 0
    assert not (tmp_path / "runs").exists()


def test_a_stage_is_running_while_it_is_claimed(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, supernet__epochs=7)
    supernet = supernet_of(plan)
    with claimed(tmp_path, supernet, epoch=2) as claim:
        document = json.loads(run(tmp_path / "small.yaml", "--json").stdout)
        shown = next(s for s in document["stages"] if s["fingerprint"] == supernet.fingerprint)
        assert shown["status"] == "running"
        assert (shown["epoch"], shown["num_epochs"]) == (2, 7)
        assert claim.holder.machine.startswith(shown["machine"])
        text = run(tmp_path / "small.yaml").stdout
        assert "epoch 2 of 7" in " ".join(text.split())
    assert found(status_of(plan, tmp_path), supernet).state == "missing"


def test_a_stage_that_is_tried_again_after_a_failure_is_running(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    supernet = supernet_of(plan)
    fail(tmp_path, supernet, "no memory")
    assert found(status_of(plan, tmp_path), supernet).state == "failed"
    with claimed(tmp_path, supernet, epoch=1):
        assert found(status_of(plan, tmp_path), supernet).state == "running"
    put(StageStore(tmp_path / "runs"), supernet)
    assert found(status_of(plan, tmp_path), supernet).state == "done"


def test_a_failure_is_told_with_its_time_and_is_exit_status_1(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    fail(tmp_path, supernet_of(plan), "the loss is [nan]", failed_at=1_700_000_000.0)
    result = run(tmp_path / "small.yaml", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    (failed,) = [stage for stage in document["stages"] if stage["status"] == "failed"]
    assert failed["error"] == "the loss is [nan]"
    assert failed["failed_at"] == "2023-11-14T22:13:20+00:00"
    assert {cell["name"]: cell["status"] for cell in document["cells"]}["small"] == "failed"
    assert (document["num_failed"], document["num_missing"]) == (1, 4)
    table = run(tmp_path / "small.yaml")
    assert table.exit_code == 1
    assert "the loss is [nan]" in " ".join(table.stdout.split())


def test_the_cells_of_a_sweep(tmp_path: Path) -> None:
    """Four cells: one is done, one runs, one has failed, one waits; so does the baseline."""
    grid = {"trainable": ["all", "bn"], "epochs": [1, 2]}
    path = write_sweep(tmp_path, grid=grid)
    plan, store = sweep_plan(path), StageStore(tmp_path / "runs")
    cells = {cell.config.name: cell for cell in plan.cells}
    done, running, failed, waiting = cells.values()
    random = plan.baseline[0]
    for cell in (done, running):
        made = put(store, supernet_of(cell))
        result = {"arch": random.stage.config["arch"]}
        put(store, cell.search, result=result, made_from={"supernet": made.attempt})
    fail(tmp_path, supernet_of(failed), "gone")
    retrain = done.retrain(random.arch)
    assert retrain == random.stage
    status = status_of(plan, tmp_path)
    assert [status.cells[cell.config.name] for cell in (done, running)] == ["waiting"] * 2
    with claimed(tmp_path, retrain, epoch=1):
        states = status_of(plan, tmp_path).cells
        assert [states[cell.config.name] for cell in (done, running)] == ["running"] * 2
        assert states[BASELINE] == "running"
    put(store, retrain)
    with claimed(tmp_path, supernet_of(waiting)):
        states = status_of(plan, tmp_path).cells
        assert [*states] == [*cells, BASELINE]
        assert [*states.values()] == ["done", "done", "failed", "running", "waiting"]
    document = json.loads(run(path, "--json").stdout)
    assert [cell["status"] for cell in document["cells"]] == [
        *("done", "done", "failed", "waiting", "waiting")
    ]
    # Two supernets, two searches, one retraining that both found; one baseline is left, and
    # of the other cells supernet, search and retraining.
    assert (document["num_done"], document["num_failed"], document["num_missing"]) == (5, 1, 6)


def test_a_study_is_as_far_as_its_seeds(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    plan, store = study_plan(path), StageStore(tmp_path / "runs")
    first, second = plan.cells
    supernet = put(store, supernet_of(first))
    accuracy, naswot = plan.scores(first)
    put(store, naswot)
    put(store, accuracy, made_from={"supernet": supernet.attempt})
    for arch in plan.archs:
        put(store, first.retrain(arch))
    put(store, second.retrain(plan.archs[0]))
    fail(tmp_path, second.retrain(plan.archs[1]), "gone")
    status = status_of(plan, tmp_path)
    assert status.cells == {"seed 4": "done", "seed 2": "failed"}
    other, _ = plan.scores(second)
    with claimed(tmp_path, other, epoch=1):
        status = status_of(plan, tmp_path)
        assert status.cells == {"seed 4": "done", "seed 2": "running"}
        one = found(status, other)
        # Ten architectures are a round, and there are six.
        assert (one.state, one.epoch, one.num_epochs) == ("running", 1, 1)
    result = run(path, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["num_done"], document["num_failed"], document["num_missing"]) == (10, 1, 7)


def test_a_process_of_this_machine_that_is_gone_is_not_running(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    supernet = supernet_of(plan)
    code = (
        "import os, sys; from orchestration.store.claims import Claims; "
        "Claims(sys.argv[1]).attempt(sys.argv[2]); os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "runs"), supernet.fingerprint], check=True
    )
    assert list((tmp_path / "runs" / "claims" / supernet.fingerprint).iterdir())
    assert found(status_of(plan, tmp_path), supernet).state == "missing"


def test_another_machine_is_running_only_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    supernet = supernet_of(plan)
    claims = Claims(tmp_path / "runs")
    far = dataclasses.replace(Holder.this_process(), machine="far-away/boot", note={"epoch": 1})
    claims.write(supernet.fingerprint, far)
    silent = found(status_of(plan, tmp_path), supernet)
    assert (silent.state, silent.is_silent, silent.machine) == ("missing", True, "far-away")

    over = threading.Event()

    def live() -> None:
        beat = 0
        while not over.wait(BEAT_S):
            beat += 1
            claims.write(supernet.fingerprint, dataclasses.replace(far, beat=beat))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        alive = found(status_of(plan, tmp_path), supernet)
    finally:
        over.set()
        thread.join()
    assert (alive.state, alive.epoch, alive.machine) == ("running", 1, "far-away")


def test_what_to_look_at_must_be_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="name a YAML file, or with --address"):
        ask.status()
    with pytest.raises(ValueError, match="no config file"):
        ask.status(str(tmp_path / "absent.yaml"))
    # With a cluster's address a file is still a file, whose storage says how far it is.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    small_plan(tmp_path)
    assert run(tmp_path / "small.yaml").exit_code == 0
    with pytest.raises(ValueError, match="leave out --address"):
        ask.status(str(tmp_path / "small.yaml"), address="http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9"):
        ask.status()
