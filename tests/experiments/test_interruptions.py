"""What is cut off costs nothing that was finished: Ctrl-C, and a tracking server that goes away."""

from __future__ import annotations

import io
import json
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from experiments.config.places import open_tracker
from experiments.run.display import Display
from experiments.run.one import run_cell
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done
from tests.experiments import command
from tests.experiments.configs import small_plan, write_config
from tests.orchestration.conftest import MlflowServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHAIN_ONLY = {"random_baseline__num_architectures": 0}
LONG = {**CHAIN_ONLY, "data__max_train_images": 640, "supernet__epochs": 60}


def cell_status(uri: str, run_id: str) -> str:
    return str(MlflowClient(uri).get_run(run_id).info.status)


def test_ctrl_c_ends_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config, plan = write_config(tmp_path, **LONG), small_plan(tmp_path, **LONG)
    assert plan.supernet is not None
    job = tmp_path / "runs" / "jobs" / f"supernet-{plan.supernet.fingerprint}"
    process = command.start("run", config, "--json", cwd=tmp_path)
    end_s = time.monotonic() + 200
    while not list(job.glob("checkpoint_*/network.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "interrupted; the same command goes on where this one stopped." in err
    assert "Traceback" not in err
    assert StageStore(tmp_path / "runs").get(plan.supernet.fingerprint) is None
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    (parent,) = MlflowClient(uri).search_runs(["1"], filter_string="tags.`bnnas.group` != ''")
    assert parent.info.status == "KILLED"

    again = command.run("run", config, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert result["mlflow_run_id"] == parent.info.run_id
    assert cell_status(uri, parent.info.run_id) == "FINISHED"
    supernet = result["stages"][0]
    assert len(MlflowClient(uri).get_metric_history(supernet["mlflow_run_id"], "epoch")) == 60


class Saboteur(Display):
    """Stops the tracking server when the first stage is done."""

    def __init__(self, console: Console, server: MlflowServer) -> None:
        super().__init__(console, quiet=True)
        self._server = server

    def done(self, done: Done) -> None:
        super().done(done)
        _ = done.run_id  # waits until it is shown, or cannot be
        self._server.stop()


def test_a_tracking_server_that_goes_away_costs_warnings_and_no_result(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    plan = small_plan(tmp_path, **CHAIN_ONLY, search__indicator="flops", tracking__uri=server.uri)
    tracker = open_tracker(plan.config)
    try:
        shown = io.StringIO()
        cell = run_cell(plan, tracker, Saboteur(Console(file=shown, width=200), server))
        search, retrained = cell.chain
        assert search.run_id is not None
        assert retrained.run_id is None
        assert "top1" in cell.metrics
        told = " ".join(shown.getvalue().split())
        assert "is stored, but MLflow does not show it" in told
        assert "MLflow does not show small as FINISHED" in told

        server.start()
        assert cell.run_id is not None
        assert cell_status(server.uri, cell.run_id) == "RUNNING"
        again = run_cell(plan, tracker, Display(Console(file=shown), quiet=True))
        assert all(done.cached for done in again.chain)
        assert again.run_id == cell.run_id
        assert again.chain[0].run_id == search.run_id
        assert again.metrics == cell.metrics
        assert cell_status(server.uri, cell.run_id) == "FINISHED"
        late = again.chain[1].run_id
        assert late is not None
        epochs = MlflowClient(server.uri).get_metric_history(late, "epoch")
        assert [metric.step for metric in epochs] == [1, 2]
    finally:
        server.stop()
