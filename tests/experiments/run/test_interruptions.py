"""Whatever dies or goes away, the end is that of an experiment in which nothing did."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from experiments.plan.graph import list_stages
from experiments.plan.status import look_up
from experiments.run.display import Display
from experiments.run.events import Event, StageDone
from experiments.run.result import Result
from experiments.stages import supernet
from experiments.stages.worker_place import WEIGHTS
from orchestration.jobs.worker import LocalWorkerContext
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.configs import plan_file, small_plan, write_config
from tests.experiments.recorded import run_file, tracked
from tests.experiments.stage_work import payload, run, saved, supernet_of
from tests.interrupted import assert_same_value, own_processes, without_timings
from tests.orchestration.conftest import MlflowServer
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_EPOCHS = 32
# One cell without a baseline, whose supernet takes long enough to be interrupted.
LONG: dict[str, Any] = {
    "data__max_train_images": 640,
    "supernet__epochs": NUM_EPOCHS,
    "retrain__epochs": 1,
    "retrain__warmup_epochs": 0,
    "random_baseline__num_architectures": 0,
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> LocalWorkerContext:
    """The supernet's training, in this process and at one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = payload(supernet_of(small_plan(folder, **LONG)), folder)
    return run(supernet.work, config, folder / "job")


def newest_checkpoint(folder: Path) -> str:
    """Name of the supernet's last one, which tells its time; empty where there is none."""
    files = (folder / "runs" / "jobs").glob("supernet-*/checkpoint_*/network.pt")
    return max((file.parent.name for file in files), default="")


def has_gone_on(process: subprocess.Popen[str], folder: Path, checkpoint: str) -> bool:
    """Whether a command has saved a later one; or has ended, which it should not."""
    return newest_checkpoint(folder) > checkpoint or process.poll() is not None


def check_end(folder: Path, result: Result, uninterrupted: LocalWorkerContext) -> None:
    """Weights and history of an uninterrupted supernet; every epoch tracked once and in order."""
    assert result.failures == {}
    record, *others = result.cells[0].records
    assert [each.kind for each in others] == ["search", "retrain"]
    assert without_timings(record.history) == without_timings(uninterrupted.history)
    store = StageStore(folder / "runs")
    weights = store.fetch(record, WEIGHTS, folder / WEIGHTS)
    import torch

    assert_same_value(torch.load(weights, weights_only=True), saved(uninterrupted))
    runs = tracked(folder)
    assert len(runs) == 1 + 3
    assert {each.info.status for each in runs} == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    (shown,) = tracked(folder, f"tags.`bnnas.fingerprint` = '{record.fingerprint}'")
    losses = client.get_metric_history(shown.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in losses] == [
        (row["epoch"], row["train/loss"]) for row in record.history
    ]


def is_interrupted(config: Path) -> bool:
    """What `bnnas status` says of the supernet and the cell."""
    storage = config.parent / "runs"
    status = look_up(list_stages(plan_file(config), StageStore(storage)), str(storage))
    states = [each.state for each in status.stages]
    assert states[1:] == ["missing", "missing"]
    return [states[0], *status.members.values()] == ["interrupted", "interrupted"]


@contextmanager
def beside(function: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread, and see that it was done."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    for failure in failures:
        raise failure


@pytest.mark.timeout(600)
def test_interrupted_and_killed_again_and_again_it_goes_on_where_it_stopped(
    ray_cluster: None, uninterrupted: LocalWorkerContext, tmp_path: Path
) -> None:
    """Its jobs take both cores of the cluster: the next attempt needs what the last one had."""
    import ray

    config = write_config(tmp_path, **LONG, cluster__cpus_per_worker=2)
    address, before = ray.get_runtime_context().gcs_address, ""
    for number in (signal.SIGINT, signal.SIGKILL):
        process = command.start("run", config, "--json", cwd=tmp_path, RAY_ADDRESS=address)
        wait_for(partial(has_gone_on, process, tmp_path, before), limit_s=200)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
            process.communicate()
        else:
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (130, "")
            assert "interrupted; the same command goes on where this one stopped." in err
            assert "Traceback" not in err
            (parent,) = tracked(tmp_path, "tags.`bnnas.stage` = 'cell'")
            assert {each.info.status for each in tracked(tmp_path)} == {"KILLED"}
        # It was stopped in the middle, and later than the one before.
        assert newest_checkpoint(tmp_path) > before
        assert not list(StageStore(tmp_path / "runs").list())
        wait_for(partial(is_interrupted, config), limit_s=30, pause_s=0.1)  # its job ends by itself
        before = newest_checkpoint(tmp_path)

    def kill_driver() -> None:
        wait_for(lambda: newest_checkpoint(tmp_path) > before, limit_s=200)
        for pid in wait_for(lambda: own_processes("ray::ImplicitFu"), limit_s=30):
            os.kill(pid, signal.SIGKILL)

    with beside(kill_driver):
        result = run_file(config)
    assert result.run_id == parent.info.run_id
    check_end(tmp_path, result, uninterrupted)


def test_two_at_once_on_one_storage_make_every_stage_once(
    ray_cluster: None, tmp_path: Path
) -> None:
    config = write_config(tmp_path, **{**LONG, "search": {"indicator": "flops"}})
    results: list[Result] = []
    with beside(lambda: results.append(run_file(config))):
        results.append(run_file(config))
    one, other = results
    assert one.failures == other.failures == {}
    stored = sorted(record.fingerprint for record in StageStore(tmp_path / "runs").list())
    assert sorted((*one.executed, *other.executed)) == stored
    assert one.cells[0].records == other.cells[0].records
    runs = tracked(tmp_path)
    assert len(runs) == 1 + len(stored)
    assert {each.info.status for each in runs} == {"FINISHED"}


class Saboteur(Display):
    """Stops the tracking server when the first stage is done."""

    def __init__(self, console: Console, server: MlflowServer) -> None:
        super().__init__(console)
        self._server = server

    def on_event(self, index: int, event: Event) -> None:
        super().on_event(index, event)
        if isinstance(event, StageDone):
            self._server.stop()


def test_a_tracking_server_that_goes_away_costs_warnings_and_no_result(
    ray_cluster: None, tmp_path: Path
) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    config = write_config(
        tmp_path, **{**LONG, "search": {"indicator": "flops"}, "tracking__uri": server.uri}
    )
    try:
        console = Console(record=True, width=200, file=(tmp_path / "shown").open("w"))
        result = run_file(config, display=Saboteur(console, server))
        assert result.failures == {}
        assert result.cells[0].stages[-1].mlflow_run_id is None
        assert "is stored, but MLflow does not show it" in console.export_text()

        server.start()
        again = run_file(config)
        assert again.executed == ()
        assert again.cells[0].records == result.cells[0].records
        client = MlflowClient(server.uri)
        assert again.run_id is not None
        assert client.get_run(again.run_id).info.status == "FINISHED"
        for stage, record in zip(again.cells[0].stages, again.cells[0].records, strict=True):
            epochs = client.get_metric_history(str(stage.mlflow_run_id), "epoch")
            assert [each.step for each in epochs] == [row["epoch"] for row in record.history]
        # All of it is shown now, so that nothing is told a third time.
        before = client.get_run(again.run_id).to_dictionary()
        assert run_file(config).run_id == again.run_id
        assert client.get_run(again.run_id).to_dictionary() == before
    finally:
        server.stop()
