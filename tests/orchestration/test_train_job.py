"""Train jobs on real workers: whatever is interrupted ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.device import processor
from orchestration.jobs.failure import JobError
from orchestration.jobs.job_result import JobResult, forget_job
from orchestration.jobs.train_job import run_train_job
from orchestration.jobs.trials import Trial, TrialResult, run_tasks
from orchestration.jobs.worker import LocalWorkerContext
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StorageError
from orchestration.tracking.live_run import LiveRun
from orchestration.tracking.tracker import Tracker
from tests.interrupted import own_processes
from tests.orchestration import jobs
from tests.orchestration.records import all_runs, steps

ROOT = Path(__file__).parents[2]
TORCH = {"epochs": 3, "seed": 7}
STAGE = Stage("supernet", TORCH, code_version=1, name="supernet")
SUMS = [1 / 7, 3 / 7, 6 / 7, 10 / 7]  # the losses of four epochs of `jobs.count`

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> LocalWorkerContext:
    """The torch job in this process, without Ray and without a crash."""
    context = LocalWorkerContext(tmp_path_factory.mktemp("whole"))
    jobs.train_torch(TORCH, context)
    return context


def check_same(result: JobResult, whole: LocalWorkerContext, to: Path) -> None:
    """Bit for bit the same training."""
    import torch

    assert result.history == whole.history
    folder = result.fetch(to)
    assert [path.name for path in folder.iterdir()] == ["state.pt"]
    found = torch.load(folder / "state.pt", weights_only=True)
    assert whole.checkpoint is not None
    expected = torch.load(whole.checkpoint / "state.pt", weights_only=True)
    assert found["num_steps"] == expected["num_steps"]
    for name, weight in expected["model"].items():
        assert torch.equal(found["model"][name], weight)


def executions(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def losses(result: JobResult) -> list[float]:
    return [row["train/loss"] for row in result.history]


def follow(uri: str) -> Callable[[], LiveRun]:
    """How a job is followed in MLflow."""
    return lambda: LiveRun(Tracker(uri, "e"), STAGE)


def python(program: str, **options: Any) -> subprocess.Popen[str]:
    """Start a program that finds the project."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.Popen(command, env=environment, text=True, **options)


# First, since after a controller's death Ray keeps what an elastic job could take for minutes.
def test_as_many_workers_as_there_is_room_for_are_one_and_go_on_without_a_tracking_server(
    ray_cluster: None, uninterrupted: LocalWorkerContext, tmp_path: Path
) -> None:
    result = run_train_job(
        jobs.train_torch,
        TORCH,
        name="two",
        storage_path=str(tmp_path),
        scaling=Scaling((1, 8)),
        follow=follow("http://127.0.0.1:9"),
    )
    check_same(result, uninterrupted, tmp_path / "fetched")
    assert result.device_hours == pytest.approx(2 * result.wall_s / 3600)


def test_a_crash_inside_an_epoch_changes_nothing_and_repeats_no_saved_step(
    ray_cluster: None, uninterrupted: LocalWorkerContext, sqlite_uri: str, tmp_path: Path
) -> None:
    seen: list[tuple[dict[str, float], bool]] = []
    ran = tmp_path / "ran"
    result = run_train_job(
        jobs.train_torch,
        {**TORCH, "die": 2, "marks": str(tmp_path), "executions": str(ran)},
        name="crash",
        storage_path=str(tmp_path / "store"),
        follow=follow(sqlite_uri),
        on_progress=lambda row: seen.append((row, threading.current_thread().name == "MainThread")),
    )
    assert (tmp_path / "died").exists()
    assert executions(ran) == list(range(30))
    check_same(result, uninterrupted, tmp_path / "fetched")
    assert seen == [(row, True) for row in uninterrupted.history]
    assert result.wall_s > 0
    assert result.device_hours == pytest.approx(result.wall_s / 3600)
    assert result.device == {"node": socket.gethostname(), "model": processor(), "num_workers": 1}
    (run,) = all_runs(sqlite_uri)
    assert run.data.tags["bnnas.fingerprint"] == STAGE.fingerprint
    for key in ("epoch", "train/loss", "system/cpu_utilization_percentage"):
        assert steps(sqlite_uri, run.info.run_id, key) == [1, 2, 3]


def test_a_job_that_may_not_go_on_stops_and_another_driver_goes_on_where_it_ended(
    ray_cluster: None, sqlite_uri: str, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    config = {"epochs": 4, "epoch_s": 0.5, "executions": str(ran), "nan_epoch": 2}
    store = f"file://{tmp_path}/store"  # as a URI: checkpoints are uploaded asynchronously
    first: list[dict[str, float]] = []
    with pytest.raises(JobError, match="was stopped"):
        run_train_job(
            jobs.count,
            config,
            name="cut",
            storage_path=store,
            follow=follow(sqlite_uri),
            on_progress=first.append,
            keep_going=lambda: len(first) < 2,
        )
    (run,) = all_runs(sqlite_uri)
    assert run.info.status == "RUNNING"
    num_done = len(executions(ran))
    seen: list[dict[str, float]] = []
    result = run_train_job(
        jobs.count, config, name="cut", storage_path=store, on_progress=seen.append
    )
    assert result.wall_s >= 4 * 0.5  # of both
    assert executions(ran)[:num_done] == list(range(1, num_done + 1))
    assert (executions(ran).count(2), executions(ran)[-1]) == (1, 4)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert repr(result.history) == repr(seen)
    assert repr(result.history[:2]) == repr(first[:2])
    assert repr(result.history[1]["train/loss"]) == "nan"
    assert json.loads((result.fetch(tmp_path / "f") / "state.json").read_text())["total"] == 10

    # Half a snapshot, as a power cut leaves it: the job starts over instead of failing for ever.
    snapshot = tmp_path / "store" / "jobs" / "cut" / "checkpoint_manager_snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes()[:40])
    config = {"epochs": 1, "executions": str(tmp_path / "again")}
    run_train_job(jobs.count, config, name="cut", storage_path=store)
    assert executions(tmp_path / "again") == [1]

    forget_job("cut", store)
    forget_job("cut", store)
    assert not (tmp_path / "store" / "jobs" / "cut").exists()


def test_whatever_is_killed_frees_the_cores_that_the_next_attempt_needs(
    ray_cluster: None, tmp_path: Path
) -> None:
    """The job takes both cores, and each attempt needs them again."""
    titles = {1: "ray::RayTrainWo", 2: "ray::TrainContr", 3: "ray::ImplicitFu"}

    def kill(index: int, event: Mapping[str, Any]) -> None:
        if title := titles.pop(int(event["epoch"]), None):
            os.kill(own_processes(title)[0], signal.SIGKILL)

    config = {"epochs": 4, "epoch_s": 0.5, "job": {"name": "k", "storage_path": str(tmp_path)}}
    (result,) = run_tasks(
        jobs.count_in_job,
        [Trial("k", config)],
        num_at_once=1,
        max_failures=1,
        on_event=kill,
        on_end=lambda *_: None,
    )
    assert titles == {}
    assert result == TrialResult({"losses": SUMS}, None)


def test_a_process_uses_one_cluster_after_another_and_no_thread_outlives_its_own(
    tmp_path: Path,
) -> None:
    program = f"""
        import contextlib, os, signal
        from orchestration.cluster.connect import cluster
        from orchestration.cluster.threads import live_threads
        from orchestration.jobs.train_job import run_train_job
        from orchestration.jobs.trials import Trial, run_tasks
        from tests.orchestration import jobs

        folder, where = {str(tmp_path)!r}, None

        def interrupt(*_):
            global where
            if where is None:
                where = [thread.name for thread in live_threads()]
                os.kill(os.getpid(), signal.SIGINT)

        def train(name, config, **options):
            run_train_job(jobs.count, config, name=name, storage_path=folder, **options)

        def sweep():
            arguments = [Trial("t", {{"from": 1000, "marks": folder}})]
            options = dict(num_at_once=1, max_failures=0, on_event=interrupt, on_end=interrupt)
            run_tasks(jobs.count_down, arguments, **options)

        with contextlib.suppress(KeyboardInterrupt), cluster(num_cpus=1):
            train("cut", {{"epochs": 100, "epoch_s": 0.2}}, on_progress=interrupt)
        assert (where, live_threads()) == ([], []), where
        where = None
        with contextlib.suppress(KeyboardInterrupt), cluster(num_cpus=1):
            sweep()
        assert (where, live_threads()) == (["tune"], []), where
        print("done")
    """
    process = python(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out.split()[-1:]) == (0, ["done"]), err
    assert "have not ended" not in err


def test_a_job_that_nobody_watches_does_not_go_on(ray_cluster: None, tmp_path: Path) -> None:
    config = {"epochs": 40, "epoch_s": 0.2, "executions": str(tmp_path / "ran")}

    def look_away(row: dict[str, float]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_train_job(
            jobs.count, config, name="w", storage_path=str(tmp_path), on_progress=look_away
        )
    num_done = len(executions(tmp_path / "ran"))
    time.sleep(1.0)
    assert len(executions(tmp_path / "ran")) == num_done < 40


def test_a_wrong_request_is_not_tried_again(
    ray_cluster: None, sqlite_uri: str, tmp_path: Path
) -> None:
    config = {"executions": str(tmp_path / "ran")}
    with pytest.raises(ValueError, match="^data.root is '/nowhere': give the folder"):
        run_train_job(
            jobs.refuse,
            config,
            name="wrong",
            storage_path=str(tmp_path / "store"),
            follow=follow(sqlite_uri),
        )
    assert executions(tmp_path / "ran") == [0]
    (run,) = all_runs(sqlite_uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["bnnas.error"].startswith("data.root is '/nowhere'")
    client = MlflowClient(sqlite_uri)
    (trace,) = client.list_artifacts(run.info.run_id)
    text = Path(client.download_artifacts(run.info.run_id, trace.path)).read_text()
    assert "in refuse" in text


def test_what_does_not_go_away_fails_the_job(ray_cluster: None, tmp_path: Path) -> None:
    config = {"executions": str(tmp_path / "ran")}
    with pytest.raises(JobError, match="failed once; last, worker 0 .* the fan is loud") as e:
        run_train_job(
            jobs.break_down, config, name="f", storage_path=str(tmp_path / "s"), max_failures=0
        )
    assert executions(tmp_path / "ran") == [0]
    assert "in break_down" in e.value.details


def test_an_unusable_storage_path_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="storage.path"):
        run_train_job(jobs.nothing, {}, name="n", storage_path=str(tmp_path / "file" / "below"))


def test_drivers_and_controllers_import_nothing_heavy() -> None:
    program = """
        import sys
        import orchestration.cluster.connect, orchestration.jobs.runner
        assert "orchestration.jobs.scoring_job" in sys.modules
        import orchestration.jobs.trials, orchestration.tracking.reader
        assert not {"torch", "mlflow", "ray", "pyarrow"} & set(sys.modules)
        import orchestration.jobs.fit, orchestration.jobs.trial_listener
        assert "torch" not in sys.modules
    """
    assert python(program).wait() == 0
