"""A stranger's cluster as plain processes on loopback: what `deploy/` describes, and a lost node.

PostgreSQL, a stand-in for S3 and an MLflow server between them, as `deploy/mlflow` has it; a Ray
head without CPUs, which wants a token, and two nodes. Where PostgreSQL is not installed, SQLite
stands in for it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from experiments.plan.graph import list_stages
from nas.cost import flops_table
from orchestration.store.stage_store import StageStore
from tests.deploy.servers import KEYS, free_port, s3_client
from tests.experiments.command import Client
from tests.experiments.configs import plan_file, write_config
from tests.interrupted import own_processes
from tests.nas.examples import TINY
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif("BNNAS_OWN_CLUSTER" not in os.environ, reason="make test-cluster runs it"),
]
NUM_EPOCHS = 24
# Two cells that find the smallest network, and a supernet that takes long enough to lose a node.
SWEEP: dict[str, Any] = {
    "data__max_train_images": 640,
    "supernet__epochs": NUM_EPOCHS,
    "search__max_flops": flops_table(TINY).minimum,
    "grid": {"search.top_k": [1, 2]},
    "retrain__epochs": 1,
    "retrain__warmup_epochs": 0,
    "random_baseline__num_architectures": 0,
    "cluster__runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}},
}


@dataclass
class OwnCluster:
    """A head without CPUs and two nodes with one each.

    Attributes:
        address: of the head's dashboard.
        token: what lets one in.
        raylets: process ids of the nodes' raylets.
    """

    address: str
    token: str
    raylets: list[int]


CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
port, folder = int(sys.argv[1]), sys.argv[2]
free = {"dashboard_agent_listen_port": 0}  # other clusters run on this machine
head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port, "temp_dir": folder}
cluster = Cluster(initialize_head=True, head_node_args={**head, **free})
# Each with a folder of its own, as on machines of their own: Ray unpacks what was submitted there.
nodes = [cluster.add_node(num_cpus=1, temp_dir=f"{folder}/{number}", **free) for number in (1, 2)]
cluster.wait_for_nodes()
print(json.dumps([node.all_processes["raylet"][0].process.pid for node in nodes]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[OwnCluster]:
    token, port = secrets.token_hex(16), free_port()
    folder = tempfile.mkdtemp(prefix="bnnas-")  # the path of a socket must be short
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PATH": os.defpath,  # its `python`, if there is one, knows nothing of this project
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
    }
    with (tmp_path / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(port), folder],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    raylets = json.loads(process.stdout.readline() or (tmp_path / "cluster.log").read_text())
    try:
        yield OwnCluster(f"http://127.0.0.1:{port}", token, raylets)
    finally:
        process.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_sweep_outlives_a_node(
    cluster: OwnCluster,
    mlflow_server: str,
    s3: str,
    tmp_path: Path,
) -> None:
    uri = f"s3://runs/deep?endpoint_override={s3}&scheme=http&region=us-east-1"
    config = write_config(tmp_path, **SWEEP, storage__path=uri, tracking__uri=mlflow_server)
    bnnas = Client(cluster, tmp_path)
    bnnas.variables |= KEYS
    submitted = bnnas.run("submit", config, "--no-wait", *(f"--env={name}" for name in KEYS))
    assert submitted.returncode == 0, submitted.stderr
    submission_id = submitted.stdout.strip()
    assert submission_id.startswith("small-")

    def checkpoints() -> list[str]:
        found = (
            s3_client(s3).list_objects_v2(Bucket="runs", Prefix="deep/jobs/").get("Contents", [])
        )
        return [one["Key"] for one in found if "/checkpoint_" in one["Key"]]

    following = bnnas.start("logs", submission_id)
    wait_for(lambda: checkpoints() or following.poll() is not None, limit_s=120, pause_s=0.2)
    assert following.poll() is None, following.communicate()
    (struck,) = [pid for pid in cluster.raylets if own_processes("ray::RayTrainWo", pid)]
    os.kill(struck, signal.SIGKILL)

    log, err = following.communicate(timeout=200)
    assert following.returncode == 0, log + err
    assert "Raylet is terminated" in log
    assert f"MLflow    {mlflow_server}/#/compare-runs?" in log
    assert bnnas.run("logs", submission_id).stdout == log
    (one,) = json.loads(bnnas.run("status", submission_id, "--json").stdout)
    assert (one["id"], one["status"]) == (submission_id, "SUCCEEDED")
    assert one["metadata"]["bnnas.storage"] == uri

    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        records = list(StageStore(uri).list())
        listed = list_stages(plan_file(config), StageStore(uri)).stages
    assert all(one.record is not None for one in listed)
    assert {record.code["commit"] for record in records} == {"0123456789ab"}
    kinds = ["retrain", "search", "search", "supernet"]
    assert sorted(record.kind for record in records) == kinds
    retrain, _, _, supernet = sorted(records, key=lambda record: record.kind)
    epochs = list(range(1, NUM_EPOCHS + 1))
    assert [row["epoch"] for row in supernet.history] == epochs

    tracker = MlflowClient(mlflow_server)
    (experiment,) = [each for each in tracker.search_experiments() if each.name == "bnnas"]
    runs = {
        kind: [run for run in found if run.data.tags["bnnas.stage"] == kind]
        for found in [tracker.search_runs([experiment.experiment_id])]
        for kind in ("cell", "sweep", *kinds)
    }
    assert {kind: len(found) for kind, found in runs.items()} == {
        "cell": 2,
        "sweep": 1,
        "retrain": 1,
        "search": 2,
        "supernet": 1,
    }
    assert {run.info.status for found in runs.values() for run in found} == {"FINISHED"}
    assert {run.data.params["search.top_k"] for run in runs["cell"]} == {"1", "2"}
    assert {run.data.metrics["top1"] for run in runs["cell"]} == {retrain.metrics["top1"]}
    shown = runs["supernet"][0].info.run_id
    losses = tracker.get_metric_history(shown, "train/loss")
    assert [(each.step, each.value) for each in losses] == [
        (row["epoch"], row["train/loss"]) for row in supernet.history
    ]
    sweep = runs["sweep"][0].info.run_id
    assert f"Report    report/report.html, an artifact of the run {sweep}" in log
    drawn = f"{shown}/artifacts/figures/supernet_training.png"
    files = s3_client(s3).list_objects_v2(Bucket="mlflow")["Contents"]
    assert [one for one in files if one["Key"].endswith(drawn)]
