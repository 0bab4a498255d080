"""Have it or make it: executions are counted, with a real store and real tracking."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestration.scaling import Scaling
from orchestration.stage import Stage
from orchestration.stage_runner import Done, Outcome, StageRunner
from orchestration.stage_store import StageStore
from orchestration.tracking import Tracker
from tests.orchestration.conftest import MlflowServer

STAGE = Stage("search", {"seed": 0}, code_version=1, name="search bn exact")


class Maker:
    """Counts how often it is asked to make a result."""

    def __init__(self, error: Exception | None = None) -> None:
        self.num_calls = 0
        self.error = error

    def __call__(self) -> Outcome:
        self.num_calls += 1
        if self.error is not None:
            raise self.error
        return Outcome(result={"arch": "0 1"}, metrics={"top1": 0.5})


def make_runner(folder: Path, uri: str) -> StageRunner:
    return StageRunner(
        store=StageStore(folder / "store"),
        tracker=Tracker(uri, "runner"),
        scaling=Scaling(),
        max_failures=0,
        code={"commit": "abc"},
    )


@pytest.fixture
def runner(tmp_path: Path) -> StageRunner:
    return make_runner(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def runs(runner: StageRunner) -> list[str]:
    client = MlflowClient(runner.tracker.uri)
    experiment = client.get_experiment_by_name("runner")
    assert experiment is not None
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id])]


def test_a_stage_is_made_once_and_shown_once(runner: StageRunner) -> None:
    make = Maker()
    first, second = (runner.compute(STAGE, make) for _ in range(2))
    assert make.num_calls == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.record == second.record
    assert first.record.result == {"arch": "0 1"}
    assert first.record.code == {"commit": "abc"}
    assert [first.run_id] == [second.run_id] == runs(runner)


def test_threads_that_need_one_stage_make_it_once(runner: StageRunner) -> None:
    make, barrier = Maker(), threading.Barrier(4)

    def ask(_: int) -> Done:
        barrier.wait()
        return runner.compute(STAGE, make)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(ask, range(4)))
    assert make.num_calls == 1
    assert sorted(each.cached for each in done) == [False, True, True, True]
    assert {each.run_id for each in done} == set(runs(runner))


def test_inputs_become_tags_and_figures_become_artifacts(runner: StageRunner) -> None:
    supernet = runner.compute(Stage("supernet", {}, 1, name="supernet"), Maker())

    def draw(record: object, folder: Path) -> None:
        folder.mkdir()
        (folder / "drawn.txt").write_text("drawn", encoding="utf-8")

    done = runner.compute(STAGE, Maker(), inputs={"supernet": supernet}, draw=draw)
    assert done.run_id is not None
    client = MlflowClient(runner.tracker.uri)
    run = client.get_run(done.run_id)
    assert run.data.tags["bnnas.input.supernet"] == supernet.run_id
    assert run.data.tags["bnnas.stage"] == "search"
    assert run.data.tags["bnnas.fingerprint"] == STAGE.fingerprint
    assert run.data.metrics["top1"] == 0.5
    assert [file.path for file in client.list_artifacts(done.run_id, "figures")] == [
        "figures/drawn.txt"
    ]


def test_a_stage_that_fails_leaves_nothing_and_can_be_made_later(runner: StageRunner) -> None:
    with pytest.raises(ValueError, match="no luck"):
        runner.compute(STAGE, Maker(ValueError("no luck")))
    assert runner.store.get(STAGE.fingerprint) is None
    assert not runner.compute(STAGE, Maker()).cached


@pytest.mark.server
def test_what_a_server_missed_is_shown_by_the_next_call(
    tmp_path: Path, mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    runner, make = make_runner(tmp_path, mlflow_server.uri), Maker()
    mlflow_server.stop()
    with caplog.at_level(logging.WARNING):
        away = runner.compute(STAGE, make)
    assert away.run_id is None
    assert "not shown in MLflow" in caplog.text
    mlflow_server.start()
    back = runner.compute(STAGE, make)
    assert make.num_calls == 1
    assert back.cached
    assert [back.run_id] == runs(runner)
