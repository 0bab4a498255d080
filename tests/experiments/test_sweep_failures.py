"""Whatever dies during a sweep, the table in the end is that of a sweep in which nothing died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from orchestration.cluster.connect import cluster
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.configs import changed, small, write_yaml
from tests.experiments.sweeps import run_sweep_in
from tests.nas.examples import TINY
from tests.orchestration.conftest import MlflowServer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_EPOCHS = 30
Cells = list[dict[str, Any]]


def write(folder: Path, **changes: Any) -> Path:
    """Two cells, each with a supernet of its own, both long enough to be interrupted."""
    folder.mkdir(exist_ok=True)
    write_yaml(folder / "tiny.yaml", TINY.to_dict())
    values = changed(
        small("tiny.yaml"),
        name="interrupted",
        storage__path=str(folder / "runs"),
        grid={"trainable": ["all", "bn"]},
        data__max_train_images=640,
        supernet__epochs=NUM_EPOCHS,
        random_baseline__num_architectures=0,
    )
    return write_yaml(folder / "sweep.yaml", changed(values, **changes))


def found(cells: Cells) -> Cells:
    """What a table shows of the cells; not what it cost."""
    shown = ("name", "status", "arch", "flops", "params", "top1")
    return [{key: cell[key] for key in shown} for cell in cells]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    folder = tmp_path_factory.mktemp("undisturbed")
    here = "storage.path=runs"  # relative: what drivers make must come back to this folder
    done = command.run("sweep", write(folder), "--set", here, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return found(json.loads(done.stdout)["cells"])


def check_tracking(folder: Path, uri: str | None = None) -> None:
    """Every stored stage has one run, whose epochs are all there, once and in order."""
    client = MlflowClient(uri or f"sqlite:///{folder}/runs/mlflow.db")
    runs = client.search_runs(["1"], filter_string="tags.`bnnas.fingerprint` != ''")
    records = {record.fingerprint: record for record in StageStore(folder / "runs").list()}
    assert sorted(run.data.tags["bnnas.fingerprint"] for run in runs) == sorted(records)
    for run in runs:
        assert run.info.status == "FINISHED"
        history = records[run.data.tags["bnnas.fingerprint"]].history
        steps = [each.step for each in client.get_metric_history(run.info.run_id, "epoch")]
        assert steps == [row["epoch"] for row in history]
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert [each.value for each in losses] == [
            row["train/loss"] for row in history if "train/loss" in row
        ]


def wait_for(condition: Callable[[], Any], limit_s: float = 200.0) -> Any:
    end_s = time.monotonic() + limit_s
    while not (met := condition()):
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.02)
    return met


def begun(folder: Path) -> bool:
    """Whether a supernet has finished an epoch and saved it."""
    return bool(list((folder / "runs" / "jobs").glob("supernet-*/checkpoint_*/network.pt")))


def ray_processes(driver: subprocess.Popen[str], title: str) -> list[int]:
    """The processes of a driver's own cluster whose title begins with ``ray::`` and ``title``."""
    table = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    children: dict[int, list[tuple[int, str]]] = {}
    for pid, parent, arguments in rows:
        children.setdefault(int(parent), []).append((int(pid), arguments))
    matching: list[int] = []
    pending = [driver.pid]
    while pending:
        for child, arguments in children.get(pending.pop(), []):
            pending.append(child)
            if arguments.startswith(f"ray::{title}"):
                matching.append(child)
    return matching


@pytest.mark.parametrize(
    "victim",
    [
        "RayTrainWorker",  # trains
        "JobController.run",  # leads a job
        "ImplicitFunc",  # drives a cell
    ],
)
def test_a_process_of_the_cluster_that_dies(
    victim: str, undisturbed: Cells, tmp_path: Path
) -> None:
    process = command.start("sweep", write(tmp_path), "--json", cwd=tmp_path)
    wait_for(lambda: begun(tmp_path) or process.poll() is not None)
    pid = wait_for(lambda: ray_processes(process, victim))[0]
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert found(json.loads(out)["cells"]) == undisturbed
    check_tracking(tmp_path)


def test_the_sweep_itself_dies_and_the_same_command_goes_on(
    undisturbed: Cells, tmp_path: Path
) -> None:
    config = write(tmp_path)
    process = command.start("sweep", config, "--json", cwd=tmp_path)
    wait_for(lambda: begun(tmp_path) or process.poll() is not None)
    process.kill()
    process.communicate()
    again = command.run("sweep", config, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert found(json.loads(again.stdout)["cells"]) == undisturbed
    check_tracking(tmp_path)


def test_a_tracking_server_that_goes_away_costs_no_cell(undisturbed: Cells, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    server.start()
    try:
        config = write(tmp_path, tracking__uri=server.uri)
        process = command.start("sweep", config, "--json", "--max-concurrent", 1, cwd=tmp_path)
        wait_for(lambda: begun(tmp_path) or process.poll() is not None)
        server.stop()  # so that the second cell finds it away when it starts
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        assert found(json.loads(out)["cells"]) == undisturbed
        assert "MLflow does not show" in err
        server.start()
        again = command.run("sweep", config, "--json", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["executed"] == 0
        check_tracking(tmp_path, server.uri)
    finally:
        server.stop()


def test_two_sweeps_at_once_on_one_storage_share_the_work(
    undisturbed: Cells, tmp_path: Path
) -> None:
    config = write(tmp_path)
    both = [command.start("sweep", config, "--json", cwd=tmp_path) for _ in range(2)]
    results = []
    for process in both:
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    for result in results:
        assert found(result["cells"]) == undisturbed
    num_stages = len(list(StageStore(tmp_path / "runs").list()))
    assert sum(result["executed"] for result in results) == num_stages
    check_tracking(tmp_path)


def test_a_node_that_is_lost(undisturbed: Cells, tmp_path: Path) -> None:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    victim = nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    write(tmp_path)
    outcome: list[Any] = []
    try:
        with cluster(nodes.address):
            sweep = threading.Thread(target=lambda: outcome.append(run_sweep_in(tmp_path)))
            sweep.start()
            wait_for(lambda: begun(tmp_path) or not sweep.is_alive())
            nodes.remove_node(victim, allow_graceful=False)
            sweep.join(280)
    finally:
        nodes.shutdown()
    (result,) = outcome
    assert result.failures == {}
    assert found(result.to_json()["cells"]) == undisturbed
    check_tracking(tmp_path)
