"""`deploy/mlflow` as plain processes on loopback: PostgreSQL, a stand-in for S3, MLflow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from moto.server import ThreadedMotoServer

from tests.deploy.servers import COMPOSED, KEYS, free_port, postgres, s3_client
from tests.waiting import wait_for


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """The URI of a database; root, who may not run PostgreSQL, runs it as its package's user."""
    initdb, server = postgres("initdb"), postgres("postgres")
    if initdb is None or server is None:
        yield f"sqlite:///{tmp_path}/server.db"
        return
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="bnnas-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    port, data = free_port(), str(folder / "data")
    subprocess.run(
        [initdb, "--auth=trust", "--username=mlflow", "--no-sync", "--encoding=UTF8", data],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    command = [server, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    process = subprocess.Popen(
        command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    driver = COMPOSED["MLFLOW_BACKEND_STORE_URI"].partition("://")[0]
    try:
        yield f"{driver}://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture
def s3() -> Iterator[str]:
    """HOST:PORT of a store with the buckets `mlflow` and `runs`."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    for name in ("mlflow", "runs"):
        s3_client(f"{host}:{port}").create_bucket(Bucket=name)
    yield f"{host}:{port}"
    moto.stop()


@pytest.fixture
def mlflow_server(database: str, s3: str, tmp_path: Path) -> Iterator[str]:
    """Its address."""
    port = free_port()
    environment = {
        **os.environ,
        **KEYS,
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": COMPOSED["MLFLOW_ARTIFACTS_DESTINATION"],
        "MLFLOW_S3_ENDPOINT_URL": f"http://{s3}",
        "AWS_DEFAULT_REGION": COMPOSED["AWS_DEFAULT_REGION"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": COMPOSED["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"],
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return requests.get(f"{address}/health", timeout=2).ok
        except requests.RequestException:
            return False

    with log.open("wb") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, cwd=tmp_path, start_new_session=True
        )
    try:
        wait_for(answers, limit_s=120, pause_s=0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
