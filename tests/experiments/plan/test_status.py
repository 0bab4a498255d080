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

from experiments.commands import ask
from experiments.plan.graph import BASELINE, ExperimentPlan, list_stages
from experiments.plan.status import ExperimentStatus, StageStatus, look_up
from nas.space import format_architecture
from orchestration.store.claims import Claim, Claims, Holder
from orchestration.store.failure_log import FailureLog, FailureNote
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import plan_file, write_config
from tests.experiments.stage_work import put, supernet_of

BEAT_S = 0.05


def planned(folder: Path, **changes: Any) -> tuple[ExperimentPlan, Stage]:
    """An experiment, and its first supernet."""
    plan = plan_file(write_config(folder, **changes))
    return plan, supernet_of(plan.cells[0])


def status_of(plan: ExperimentPlan, folder: Path) -> ExperimentStatus:
    storage = folder / "runs"
    return look_up(list_stages(plan, StageStore(storage)), str(storage), patience_s=0.5)


def found(status: ExperimentStatus, stage: Stage) -> StageStatus:
    (one,) = [one for one in status.stages if one.listed.fingerprint == stage.fingerprint]
    return one


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


def test_missing_running_failed_and_done(bnnas: Any, tmp_path: Path) -> None:
    plan, supernet = planned(tmp_path, supernet__epochs=7)
    config = tmp_path / "small.yaml"
    status = status_of(plan, tmp_path)
    assert {stage.state for stage in status.stages} == {"missing"}
    assert status.members == {"small": "waiting", BASELINE: "waiting"}
    assert bnnas("status", config).status == 0
    assert not (tmp_path / "runs").exists()

    fail(tmp_path, supernet, "the loss is [nan]", failed_at=1_700_000_000.0)
    outcome = bnnas("status", config, "--json")
    assert outcome.status == 1
    document = json.loads(outcome.out)
    (failed,) = [stage for stage in document["stages"] if stage["status"] == "failed"]
    assert failed["error"] == "the loss is [nan]"
    assert failed["failed_at"] == "2023-11-14T22:13:20+00:00"
    assert {cell["name"]: cell["status"] for cell in document["cells"]}["small"] == "failed"
    assert (document["num_failed"], document["num_missing"]) == (1, 4)
    assert "the loss is [nan]" in " ".join(bnnas("status", config).out.split())

    # Tried again it is running, and not failed.
    with claimed(tmp_path, supernet, epoch=2) as claim:
        document = bnnas("status", config, "--json").json()
        shown = next(s for s in document["stages"] if s["fingerprint"] == supernet.fingerprint)
        assert shown["status"] == "running"
        assert (shown["epoch"], shown["num_epochs"]) == (2, 7)
        assert claim.holder.machine.startswith(shown["machine"])
        assert "epoch 2 of 7" in " ".join(bnnas("status", config).out.split())
    put(StageStore(tmp_path / "runs"), supernet)
    assert found(status_of(plan, tmp_path), supernet).state == "done"


def test_the_cells_of_a_sweep(bnnas: Any, tmp_path: Path) -> None:
    """Four cells: one is done, one runs, one has failed, one waits; so does the baseline."""
    grid = {"trainable": ["all", "bn"], "epochs": [1, 2]}
    path = write_config(tmp_path, grid=grid, supernet__warmup_epochs=0.5)
    plan, store = plan_file(path), StageStore(tmp_path / "runs")
    cells = {cell.config.name: cell for cell in plan.cells}
    done, running, failed, waiting = cells.values()
    random = done.baseline_archs[0]
    for cell in (done, running):
        made = put(store, supernet_of(cell))
        result = {"arch": format_architecture(random)}
        put(store, cell.search, result=result, made_from={"supernet": made.attempt})
    fail(tmp_path, supernet_of(failed), "gone")
    retrain = done.retrain(random)
    states = status_of(plan, tmp_path).members
    assert [states[cell.config.name] for cell in (done, running)] == ["waiting"] * 2
    with claimed(tmp_path, retrain, epoch=1):
        states = status_of(plan, tmp_path).members
        assert [states[cell.config.name] for cell in (done, running)] == ["running"] * 2
        assert states[BASELINE] == "running"
    put(store, retrain)
    with claimed(tmp_path, supernet_of(waiting)):
        states = status_of(plan, tmp_path).members
        assert [*states] == [*cells, BASELINE]
        assert [*states.values()] == ["done", "done", "failed", "running", "waiting"]
    document = json.loads(bnnas("status", path, "--json").out)
    assert [cell["status"] for cell in document["cells"]] == [
        *("done", "done", "failed", "waiting", "waiting")
    ]
    # Two supernets, two searches, one retraining that both found; one baseline is left, and
    # of the other cells supernet, search and retraining.
    assert (document["num_done"], document["num_failed"], document["num_missing"]) == (5, 1, 6)


def test_a_study_is_as_far_as_its_seeds(tmp_path: Path) -> None:
    correlate = {"num_architectures": 6, "indicators": ["bn", "accuracy", "flops", "naswot"]}
    plan, supernet = planned(tmp_path, seeds=[4, 2], correlate=correlate)
    store = StageStore(tmp_path / "runs")
    first, second = plan.cells
    made = put(store, supernet)
    put(store, first.score("naswot", plan.archs))
    put(store, first.score("accuracy", plan.archs), made_from={"supernet": made.attempt})
    for arch in plan.archs:
        put(store, first.retrain(arch))
    put(store, second.retrain(plan.archs[0]))
    fail(tmp_path, second.retrain(plan.archs[1]), "gone")
    status = status_of(plan, tmp_path)
    assert status.members == {"seed 4": "done", "seed 2": "failed"}
    assert [status.count(state) for state in ("done", "failed", "missing")] == [10, 1, 7]
    other = second.score("accuracy", plan.archs)
    with claimed(tmp_path, other, epoch=1):
        status = status_of(plan, tmp_path)
        assert status.members == {"seed 4": "done", "seed 2": "running"}
        one = found(status, other)
        # Ten architectures are a round, and there are six.
        assert (one.state, one.epoch, one.num_epochs) == ("running", 1, 1)


def test_a_process_of_this_machine_that_is_gone_is_not_running(tmp_path: Path) -> None:
    plan, supernet = planned(tmp_path)
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
    plan, supernet = planned(tmp_path)
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


def test_what_to_look_at_must_be_said(
    bnnas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="name a YAML file, or with --address"):
        ask.status()
    with pytest.raises(ValueError, match="no config file"):
        ask.status(str(tmp_path / "absent.yaml"))
    # With a cluster's address a file is still a file, whose storage says how far it is.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    config = write_config(tmp_path)
    assert bnnas("status", config).status == 0
    with pytest.raises(ValueError, match="leave out --address"):
        ask.status(str(config), address="http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9"):
        ask.status()
