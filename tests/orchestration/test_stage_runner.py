"""Have it or make it: executions are counted, with a real store and real tracking."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.device import describe_device
from orchestration.jobs.failure import JobError, JobStoppedError
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done, StageRuns
from orchestration.tracking.tracker import Tracker
from tests.orchestration.records import all_runs

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


def make_runner(folder: Path, uri: str, beat_s: float = 5.0) -> StageRunner:
    claims = Claims(folder / "store", beat_s=beat_s)
    return StageRunner(
        store=StageStore(folder / "store"),
        claims=claims,
        failures=FailureLog(folder / "store"),
        runs=StageRuns(Tracker(uri, "e"), claims),
        scaling=Scaling(),
        max_failures=0,
        code={"commit": "abc"},
    )


@pytest.fixture
def runner(tmp_path: Path, sqlite_uri: str) -> StageRunner:
    return make_runner(tmp_path, sqlite_uri)


def runs(runner: StageRunner) -> list[str]:
    return [run.info.run_id for run in all_runs(runner.runs.tracker.uri)]


def test_a_stage_is_made_once_and_shown_once(runner: StageRunner) -> None:
    make = Maker()
    first, second = (runner.compute(STAGE, make) for _ in range(2))
    assert make.num_calls == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.record == second.record
    assert first.record.result == {"arch": "0 1"}
    assert first.record.code == {"commit": "abc", "device": describe_device("cpu")}
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
        (folder / "drawn.txt").write_text("drawn", encoding="utf-8")

    done = runner.compute(STAGE, Maker(), inputs={"supernet": supernet}, draw=draw)
    assert done.run_id is not None
    client = MlflowClient(runner.runs.tracker.uri)
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
    note = runner.failures.get(STAGE.fingerprint)
    assert note is not None
    assert (note.name, note.message) == (STAGE.name, "no luck")
    assert not runner.compute(STAGE, Maker()).cached
    assert runner.failures.get(STAGE.fingerprint) is None


def test_who_waits_for_a_stage_that_fails_fails_too_and_does_not_make_it_again(
    tmp_path: Path, sqlite_uri: str
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def make() -> Outcome:
        entered.set()
        go_on.wait(30)
        raise ValueError("no luck")

    second = Maker()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(make_runner(tmp_path, sqlite_uri).compute, STAGE, make)
        assert entered.wait(30)
        waiting = pool.submit(make_runner(tmp_path, sqlite_uri).compute, STAGE, second)
        time.sleep(2.0)  # it has looked several times by now
        assert not waiting.done()
        go_on.set()
        with pytest.raises(ValueError, match="no luck"):
            first.result(30)
        with pytest.raises(JobError, match="search bn exact was waited for and failed: no luck"):
            waiting.result(30)
    assert second.num_calls == 0


def test_who_was_taken_for_dead_has_the_result_of_who_followed(
    tmp_path: Path, sqlite_uri: str
) -> None:
    slow = make_runner(tmp_path, sqlite_uri, beat_s=0.02)
    other = make_runner(tmp_path, sqlite_uri)

    def make() -> Outcome:
        holder = slow.claims.holder(STAGE.fingerprint)
        assert holder is not None
        slow.claims.remove(STAGE.fingerprint, holder.owner)
        assert not other.compute(STAGE, Maker()).cached
        time.sleep(0.5)  # it learns of it
        raise JobStoppedError("stopped")

    done = slow.compute(STAGE, make)
    assert (done.cached, done.record.result) == (True, {"arch": "0 1"})
