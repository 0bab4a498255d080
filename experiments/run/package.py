"""What `bnnas submit` sends to a cluster: the code, the config, and nothing else.

The package is put together in a folder of its own, so that no data set, result or secret that
lies where somebody happens to work can travel with it. The files of a job are gone when the job
is; whatever a config wants to find or to leave behind must lie elsewhere, and that is checked
here.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.config.experiment import Experiment
from experiments.config.load import load_experiment, read_values
from experiments.plan.find_stage import FINGERPRINT
from experiments.run.provenance import COMMIT_VARIABLE, LIBRARIES, USER_VARIABLE, commit, user
from nas.space import built_in_spaces, load_space
from orchestration.cluster.connect import WORKER_ENVIRONMENT
from orchestration.cluster.credentials import without_credentials
from orchestration.cluster.preflight import Request

_SOURCE_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("nas", "orchestration", "detection", "experiments")
# Everything that a wheel holds beyond documents; a test compares with the files under git.
_SUFFIXES = frozenset({".py", ".yaml", ".html", ".css", ".jinja", ".typed"})
_LEFT_OUT = frozenset({"__pycache__", "results", "benchmarks"})
_TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Package:
    """What is submitted.

    Attributes:
        folder: the working directory of the job.
        submission_id: the experiment's name, made unique.
        entrypoint: the shell command.
        metadata: what the experiment is called, where its results will lie, and its commit.
        env_vars: what the job gets to see of this process's environment.
        runtime_env: the config's own entries of Ray's.
        entrypoint_cpus: cores of the process that leads the job.
    """

    folder: Path
    submission_id: str
    entrypoint: str
    metadata: Mapping[str, str]
    env_vars: Mapping[str, str]
    runtime_env: Mapping[str, Any]
    entrypoint_cpus: float


def pack(
    config: Path, overrides: Sequence[str], folder: Path, *, variables: Sequence[str] = ()
) -> Package:
    """Check an experiment or a sweep, and put what it needs into an empty folder.

    Args:
        config: a YAML file of an experiment, a sweep, a correlation study or a detector.
        overrides: `key.path=value`, as for `bnnas run`.
        folder: is filled.
        variables: names of environment variables whose values travel too, or NAME=VALUE. By
            itself only `MLFLOW_TRACKING_URI` does: who else may read a secret on a cluster, we
            cannot know.

    Raises:
        ValueError: the request is wrong, or its results would be lost.
    """
    experiment = load_experiment(config, overrides)
    _check_places(experiment)
    env_vars = {**WORKER_ENVIRONMENT, **_environment(variables)}
    _write_config(read_values(config, overrides), folder)
    for name in _PACKAGES:
        _copy_source(_SOURCE_ROOT / name, folder / name)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", experiment.name)
    metadata = {
        "bnnas.name": experiment.name,
        "bnnas.command": experiment.kind,
        "bnnas.storage": without_credentials(experiment.storage.path),
    }
    env_vars[USER_VARIABLE] = user()
    if (version := commit()) is not None:
        metadata["bnnas.commit"] = env_vars[COMMIT_VARIABLE] = version
    return Package(
        folder=folder,
        submission_id=f"{name}-{secrets.token_hex(4)}",
        entrypoint=shlex.join(["python", "-m", "experiments", experiment.kind, "config.yaml"]),
        metadata=metadata,
        env_vars=env_vars,
        runtime_env=experiment.shared.cluster.runtime_env,
        entrypoint_cpus=experiment.shared.cluster.entrypoint_cpus,
    )


def needs(config: Path, overrides: Sequence[str]) -> Request:
    """What the nodes must have for an experiment that `pack` takes.

    Raises:
        ValueError: as `pack`.
    """
    experiment = load_experiment(config, overrides)
    _check_places(experiment)
    shared = experiment.shared
    boxes = None if shared.detect is None else shared.detect.data
    roots = {
        "data.root": None if shared.data is None else shared.data.root,
        "detect.data.root": None if boxes is None else boxes.root,
    }
    server = experiment.tracking.uri or os.environ.get(_TRACKING_VARIABLE) or ""
    return Request(
        versions={
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{library: importlib.metadata.version(library) for library in LIBRARIES},
        },
        storage=experiment.storage.path,
        data={field: root for field, root in roots.items() if root is not None},
        servers={"tracking.uri": server} if server.startswith("http") else {},
    )


def _check_places(experiment: Experiment) -> None:
    """Raise ValueError where something would lie in the temporary folder of the job."""
    config = experiment.shared
    storage, tracking = experiment.storage.path, experiment.tracking.uri
    data, boxes = config.data, None if config.detect is None else config.detect.data
    places = [
        ("storage.path", storage, "/shared/bnnas-runs or s3://bucket/bnnas-runs"),
        ("data.root", None if data is None else data.root, "/shared/data"),
        ("detect.data.root", None if boxes is None else boxes.root, "/shared/coco"),
    ]
    if experiment.detector is not None and experiment.detector.checkpoint is not None:
        checkpoint = experiment.detector.checkpoint
        if not FINGERPRINT.fullmatch(checkpoint):  # which names no place
            places.append(("checkpoint", checkpoint, "/shared/weights.pt"))
    for field, path, example in places:
        if path is not None and "://" not in path and not Path(path).is_absolute():
            raise ValueError(
                f"{field} is {path!r}, which on the cluster is a place in the job's temporary "
                f"folder: give an absolute path that all nodes share, such as {example}."
            )
    field = "tracking.uri" if tracking else _TRACKING_VARIABLE
    tracking = tracking or os.environ.get(_TRACKING_VARIABLE)
    if tracking is None and "://" in storage:
        raise ValueError(
            f"The runs are tracked nowhere that lasts, because storage.path is {storage!r} and "
            f"holds no database: set tracking.uri or {_TRACKING_VARIABLE} to an MLflow server."
        )
    if tracking and _is_relative(tracking):
        raise ValueError(
            f"{field} is {tracking!r}, which on the cluster is a place in the job's temporary "
            "folder: give the address of an MLflow server, or an absolute path."
        )


def _is_relative(uri: str) -> bool:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return not Path(uri).is_absolute()
    return scheme == "sqlite" and not rest.startswith("//")


def _environment(names: Sequence[str]) -> dict[str, str]:
    variables = {}
    for given in names:
        name, has_value, value = given.partition("=")
        if name == "RAY_ADDRESS" or name.startswith("RAY_AUTH_"):
            raise ValueError(
                f"--env {name}: the cluster has its own address and token; leave it out."
            )
        if not has_value and name not in os.environ:
            raise ValueError(
                f"--env {name}: there is no such environment variable here; set it, give "
                f"{name}=VALUE, or leave it out."
            )
        variables[name] = value if has_value else os.environ[name]
    if uri := os.environ.get(_TRACKING_VARIABLE):
        variables[_TRACKING_VARIABLE] = uri
    return variables


def _copy_source(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        if path.suffix in _SUFFIXES and not _LEFT_OUT.intersection(place.parts) and path.is_file():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)


def _write_config(values: dict[str, Any], folder: Path) -> None:
    """`config.yaml`, and beside it a space of the user's own with all that it extends."""
    values = dict(values)
    if values.get("space") not in (None, *built_in_spaces()):
        _write_yaml(folder / "space.yaml", load_space(values["space"]).to_dict())
        values["space"] = "space.yaml"
    if isinstance(values.get("cluster"), Mapping):  # the job runs in the cluster that it is in
        values["cluster"] = {k: v for k, v in values["cluster"].items() if k != "address"}
    _write_yaml(folder / "config.yaml", values)


def _write_yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
