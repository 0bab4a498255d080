"""deploy/mlflow's set-up as plain processes on loopback: PostgreSQL, a stand-in for S3, MLflow."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from tests.deploy.deploy_files import read_yaml

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("initdb") is None, reason="no PostgreSQL: initdb is missing"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="psycopg is missing"),
]
_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def database() -> Iterator[int]:
    """PostgreSQL's port; root, who may not run it, runs it as the user whom its package makes."""
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="bnnas-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    port, data = _free_port(), str(folder / "data")
    subprocess.run(
        ["initdb", "--auth=trust", "--username=mlflow", "--no-sync", "--encoding=UTF8", data],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    command = ["postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    process = subprocess.Popen(
        command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store with the bucket `mlflow`."""
    for name, value in _KEYS.items():
        monkeypatch.setenv(name, value)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="mlflow")
    yield address
    moto.stop()


def test_runs_are_in_postgresql_and_files_in_the_bucket(
    database: int, bucket: str, tmp_path: Path
) -> None:
    composed = read_yaml("mlflow/compose.yaml")["services"]["mlflow"]["environment"]
    driver = composed["MLFLOW_BACKEND_STORE_URI"].partition("://")[0]
    port = _free_port()
    environment = {
        **os.environ,
        **_KEYS,
        "MLFLOW_BACKEND_STORE_URI": f"{driver}://mlflow@127.0.0.1:{database}/postgres",
        "MLFLOW_ARTIFACTS_DESTINATION": composed["MLFLOW_ARTIFACTS_DESTINATION"],
        "MLFLOW_S3_ENDPOINT_URL": bucket,
        "AWS_DEFAULT_REGION": composed["AWS_DEFAULT_REGION"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": composed["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"],
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, cwd=tmp_path, start_new_session=True
        )
    try:
        end_s = time.monotonic() + 120
        while True:
            try:
                if requests.get(f"{address}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end_s, log.read_text()
                time.sleep(0.2)
        client = MlflowClient(address)
        run = client.create_run(client.create_experiment("deployed"))
        client.log_metric(run.info.run_id, "top1", 0.5)
        client.log_text(run.info.run_id, "text", "note.txt")

        (found,) = client.search_runs([run.info.experiment_id], "metrics.top1 = 0.5")
        assert found.info.run_id == run.info.run_id
        store = boto3.client("s3", endpoint_url=bucket, region_name="us-east-1")
        (stored,) = store.list_objects_v2(Bucket="mlflow")["Contents"]
        assert stored["Key"].endswith(f"{run.info.run_id}/artifacts/note.txt")
        assert store.get_object(Bucket="mlflow", Key=stored["Key"])["Body"].read() == b"text"
        note = client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
        assert Path(note).read_text(encoding="utf-8") == "text"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
