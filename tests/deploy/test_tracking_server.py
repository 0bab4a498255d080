"""MLflow as `deploy/mlflow` sets it up: runs in PostgreSQL, files in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.deploy.servers import s3_client


@pytest.mark.server
@pytest.mark.slow
def test_runs_are_in_postgresql_and_files_in_the_bucket(
    database: str, s3: str, mlflow_server: str, tmp_path: Path
) -> None:
    if not database.startswith("postgresql"):
        pytest.skip("no PostgreSQL: initdb is missing")
    client = MlflowClient(mlflow_server)
    run = client.create_run(client.create_experiment("deployed"))
    client.log_metric(run.info.run_id, "top1", 0.5)
    client.log_text(run.info.run_id, "text", "note.txt")

    (found,) = client.search_runs([run.info.experiment_id], "metrics.top1 = 0.5")
    assert found.info.run_id == run.info.run_id
    store = s3_client(s3)
    (stored,) = store.list_objects_v2(Bucket="mlflow")["Contents"]
    assert stored["Key"].endswith(f"{run.info.run_id}/artifacts/note.txt")
    assert store.get_object(Bucket="mlflow", Key=stored["Key"])["Body"].read() == b"text"
    note = client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
    assert Path(note).read_text(encoding="utf-8") == "text"
