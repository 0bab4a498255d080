"""Storage that is a bucket, at an address that has a query: MinIO's, Ceph's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

from orchestration.store.stage_store import StageStore
from tests.experiments.configs import write_config
from tests.experiments.recorded import run_file

pytestmark = [pytest.mark.ray, pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def server() -> Iterator[str]:
    """Where S3's stand-in listens."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"{host}:{port}"
    moto.stop()


def test_a_sweep_keeps_all_its_stages_in_a_bucket(
    ray_cluster: None, server: str, tmp_path: Path
) -> None:
    S3FileSystem(
        access_key="key",
        secret_key="secret",
        endpoint_override=server,
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir("bucket")
    # Workers that began before know of no credentials but those in the address.
    query = f"endpoint_override={server}&scheme=http&region=us-east-1"
    uri = f"s3://key:secret@bucket/deep/runs?{query}"
    config = write_config(
        tmp_path,
        storage__path=uri,
        tracking__uri=f"sqlite:///{tmp_path}/mlflow.db",
        supernet__epochs=2,
        retrain__epochs=1,
        retrain__warmup_epochs=0,
        random_baseline__num_architectures=0,
        grid={"indicator": ["bn"]},
    )
    result = run_file(config)
    assert result.failures == {}
    stored = {record.fingerprint for record in StageStore(uri).list()}
    assert stored == set(result.executed)
    assert len(stored) == 3
    again = run_file(config)
    assert again.executed == ()
    assert [cell.records for cell in again.cells] == [cell.records for cell in result.cells]
