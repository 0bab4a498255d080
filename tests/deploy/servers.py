"""What `deploy/mlflow` is made of, found on this machine."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import boto3

from tests.deploy.deploy_files import read_yaml

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
COMPOSED = read_yaml("mlflow/compose.yaml")["services"]["mlflow"]["environment"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def postgres(name: str) -> str | None:
    """One of PostgreSQL's programs, which Debian keeps out of the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))


def s3_client(s3: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{s3}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
