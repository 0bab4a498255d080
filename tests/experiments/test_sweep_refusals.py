"""What is wrong with a sweep is one sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.experiments import command
from tests.orchestration.ray_head import RayHead

SWEEP: dict[str, Any] = {
    "name": "refused",
    "space": "micro",
    "data": {"name": "digits", "max_train_images": 64},
    "supernet": {"epochs": 1, "batch_size": 32, "warmup_epochs": 0},
    "retrain": {"epochs": 1, "batch_size": 32, "warmup_epochs": 0},
    "grid": {"trainable": ["all", "bn"], "indicator": ["bn"], "epochs": [1]},
}

pytestmark = pytest.mark.slow


def sweep(folder: Path, *settings: str, **variables: str) -> CompletedProcess[str]:
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP), encoding="utf-8")
    options = [f"--set={setting}" for setting in settings]
    return command.run("sweep", "sweep.yaml", "--json", *options, cwd=folder, **variables)


def check_refused(done: CompletedProcess[str], folder: Path, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    # Ray's core adds a line of its own to a refused token, with the time in brackets.
    told = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(told) == 1, done.stderr
    for word in words:
        assert word in told[0]
    made = [path.name for path in folder.rglob("*") if path.is_file()]
    assert set(made) <= {"sweep.yaml", "mlflow.db"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("grid.epochs=[]", ("grid.epochs",)),
        ("grid.epochs=[1,1]", ("grid.epochs", "1")),
        ("grid.trainable=[all,some]", ("grid.trainable", "'some'")),
        ("cluster.address=127.0.0.1:9", ("127.0.0.1:9", "ray start")),
        ("tracking.uri=http://127.0.0.1:9", ("http://127.0.0.1:9", "mlflow server")),
        ("storage.path=/proc/none", ("/proc/none", "cannot be written")),
    ],
)
def test_before_anything_is_started(tmp_path: Path, setting: str, words: tuple[str, ...]) -> None:
    check_refused(sweep(tmp_path, setting), tmp_path, *words)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cluster.num_workers=32", ("32 workers of 1 CPU", "lower cluster.num_workers")),
        ("cluster.use_gpu=true", ("1 GPU", "cluster.use_gpu")),
    ],
)
def test_more_than_the_cluster_can_ever_have(
    tmp_path: Path, setting: str, words: tuple[str, ...]
) -> None:
    done = sweep(tmp_path, setting, CUDA_VISIBLE_DEVICES="")
    check_refused(done, tmp_path, *words)


class OldServer(BaseHTTPRequestHandler):
    """An MLflow server of long ago, as far as anyone asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"1.30.0")

    def log_message(self, *args: Any) -> None:
        pass


def test_a_tracking_server_of_another_version(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), OldServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = sweep(tmp_path, f"tracking.uri=http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
    check_refused(done, tmp_path, "of version 1.30.0", "install mlflow")


@pytest.fixture
def ray_head() -> Iterator[RayHead]:
    head = RayHead().wait()
    yield head
    head.stop()


@pytest.mark.server
@pytest.mark.parametrize(
    "login",
    [
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32},
        {"RAY_AUTH_MODE": "token"},
        {"RAY_AUTH_MODE": "disabled"},
    ],
    ids=["wrong", "none", "not asked for"],
)
def test_a_cluster_with_another_token(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    ray_head: RayHead,
    login: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    home = str(tmp_path_factory.mktemp("home"))  # where Ray would find the user's own token
    address = f"cluster.address={ray_head.gcs_address}"
    done = sweep(tmp_path, address, HOME=home, **login)
    check_refused(done, tmp_path, ray_head.gcs_address, "RAY_AUTH_TOKEN")


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


@pytest.mark.ray
def test_storage_that_the_nodes_do_not_share(tmp_path: Path, two_nodes: Cluster) -> None:
    # Every process has a memory of its own, as every node has a /tmp of its own.
    done = sweep(tmp_path, f"cluster.address={two_nodes.address}", "storage.path=mock:///runs")
    check_refused(done, tmp_path, "'mock:///runs' is not shared", "a folder that all nodes mount")
