"""The tracking server: fixed versions, no password in the file, nothing beyond loopback unasked."""

from __future__ import annotations

import re

import pytest
from packaging.version import Version

from tests.deploy.deploy_files import DEPLOY, locked, read_yaml

_SERVICES = read_yaml("mlflow/compose.yaml")["services"]


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_versions_are_fixed_and_health_is_asked_for(name: str) -> None:
    service = _SERVICES[name]
    Version(service["image"].partition(":")[2])
    assert service["healthcheck"]["test"][0] == "CMD"
    waits = {one: how["condition"] for one, how in service.get("depends_on", {}).items()}
    assert set(waits) <= set(_SERVICES)
    assert set(waits.values()) <= {"service_healthy"}


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_ports_are_on_loopback_unless_somebody_says_otherwise(name: str) -> None:
    for port in _SERVICES[name].get("ports", []):
        assert port.startswith("${BIND:-127.0.0.1}:")


def test_mlflow_is_the_locked_one() -> None:
    assert _SERVICES["mlflow"]["image"].endswith(f":{locked()['mlflow']}")


def test_no_secret_is_written_down_and_none_may_be_missing() -> None:
    text = (DEPLOY / "mlflow" / "compose.yaml").read_text(encoding="utf-8")
    secrets = {"POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == secrets
    for service in _SERVICES.values():
        for key, value in service["environment"].items():
            if key in secrets or "SECRET" in key or "PASSWORD" in key:
                assert re.fullmatch(r"\$\{\w+(:\?.*)?\}", value)


def test_mlflow_finds_database_and_bucket_where_the_others_have_them() -> None:
    environment = _SERVICES["mlflow"]["environment"]
    postgres = _SERVICES["postgres"]["environment"]
    database = f"@postgres:5432/{postgres['POSTGRES_DB']}"
    assert environment["MLFLOW_BACKEND_STORE_URI"].endswith(database)
    assert f"//{postgres['POSTGRES_USER']}:" in environment["MLFLOW_BACKEND_STORE_URI"]
    bucket = environment["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://")
    folders = [volume.partition(":")[2] for volume in _SERVICES["s3"]["volumes"]]
    assert f"{_SERVICES['s3']['command'].removeprefix('posix ')}/{bucket}" in folders
    assert _SERVICES["s3"]["ports"][0].endswith(":7070")
    assert environment["MLFLOW_S3_ENDPOINT_URL"] == "http://s3:7070"
