"""Where a result comes from: commit, command, versions, hardware. No number without it."""

from __future__ import annotations

import contextlib
import getpass
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestration.cluster.credentials import without_credentials
from orchestration.jobs.device import processor
from orchestration.store import json_text
from orchestration.tracking.reader import PROGRAM
from orchestration.tracking.tracker import CODE

COMMIT_VARIABLE = "BNNAS_COMMIT"
USER_VARIABLE = "BNNAS_USER"
_OUR_SCRIPTS = (PROGRAM, "cli.py", "__main__.py", "-c")
LIBRARIES = ("torch", "torchvision", "ray", "mlflow", "numpy")
_OPTIONAL = ("onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "mmdet", "mmengine", "mmcv")


def provenance() -> dict[str, Any]:
    """Plain values that a stage's record keeps; nothing in it is part of a fingerprint."""
    return {
        "commit": commit(),
        "command": command(),
        "python": platform.python_version(),
        **{library: importlib.metadata.version(library) for library in LIBRARIES},
        **_versions(_OPTIONAL),
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "num_cpus": os.cpu_count(),
        },
    }


def command() -> str:
    """What was typed, as it can be typed again."""
    script = Path(sys.argv[0]).name
    program = PROGRAM if script in _OUR_SCRIPTS else script
    return without_credentials(shlex.join([program, *sys.argv[1:]]))


def commit() -> str | None:
    """The commit of the source tree, with `-dirty` for uncommitted changes; None without git.

    A submitted job runs in a copy without git, and gets its commit from who submitted it.
    """
    if given := os.environ.get(COMMIT_VARIABLE):
        return given
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    versions = {}
    for library in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions


def user() -> str:
    """Who gave the command; of a submitted job, who submitted it."""
    if given := os.environ.get(USER_VARIABLE):
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def source_tags(code: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's own tags for where a run comes from, and all of it in one."""
    tags = {
        CODE: json_text.dumps(code),
        "mlflow.source.name": str(code["command"]),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
    }
    if code["commit"] is not None:
        tags["mlflow.source.git.commit"] = str(code["commit"])
    return tags
