"""The `storage`, `tracking` and `cluster` sections: places and speeds, which change no result."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
)

from experiments.config.section import Section
from orchestration.cluster.credentials import without_credentials
from orchestration.cluster.scaling import Scaling
from orchestration.tracking.tracker import Tracker

if TYPE_CHECKING:
    from experiments.config.experiment import AnyConfig

_DATABASE = "mlflow.db"
_OF_A_JOB = {each.name for each in fields(Scaling)}


def _num_workers(value: Any) -> int | tuple[int, int]:
    """A number, or the least and the most."""
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    are_counts = len(pair) == 2 and all(type(number) is int for number in pair)
    if not are_counts or not 1 <= pair[0] <= pair[1]:
        raise ValueError("expected a number of at least 1, or [least, most] for elastic jobs")
    return pair[0] if pair is not value else (pair[0], pair[1])


class StorageConfig(Section):
    """Where stage results lie."""

    path: str = Field(
        "bnnas-runs", description="A local folder, NFS, or a URI that pyarrow understands."
    )


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = Field(
        None,
        description="A server or database; if not given MLFLOW_TRACKING_URI, else an SQLite file "
        "beside the results.",
    )
    experiment: str = Field("bnnas", description="Name of the MLflow experiment.")


class ClusterConfig(Section):
    """The Ray cluster, and what a job takes of it."""

    address: str | None = Field(
        None,
        description="HOST:PORT of its head; if not given RAY_ADDRESS, else a local cluster on this "
        "machine.",
    )
    num_workers: Annotated[int | tuple[int, int], PlainValidator(_num_workers)] = Field(
        1, description="Workers of every job: a number, or [least, most] for elastic jobs."
    )
    use_gpu: bool = Field(False, description="Whether every worker has a GPU.")
    cpus_per_worker: PositiveFloat = Field(1.0, description="Cores of a worker.")
    memory_per_worker: PositiveFloat | None = Field(
        None, description="GiB of memory that are reserved for a worker."
    )
    gpus_per_scorer: PositiveFloat = Field(
        1.0,
        le=1.0,
        description="GPU of a process that scores architectures: 0.25 puts four on one GPU.",
    )
    accelerator_type: str | None = Field(
        None, description="The kind of GPU that a worker needs, in Ray's words, such as A100."
    )
    labels: dict[str, str] = Field(
        {},
        description="Ray's label selector for the nodes that workers may run on, such as "
        "{ray.io/market-type: on-demand}.",
    )
    cluster_workers: PositiveInt | None = Field(
        None,
        description="How many workers the cluster may have room for, where it grows by itself; "
        "if not given, the nodes that are there count.",
    )
    checkpoint_minutes: PositiveFloat = Field(
        10.0,
        description="How much of a training an interruption, a lost node or a resize costs at "
        "most; epochs that take less are not divided. Detectors save at the end of epochs alone.",
    )
    entrypoint_cpus: NonNegativeFloat = Field(
        0.0,
        description="Cores of the process that leads a submitted experiment: with any it runs on a "
        "node that has them, else on the head.",
    )
    tune_callbacks: list[str] = Field(
        [],
        description="Ray Tune callbacks that see the trials, as package.module:Class; each is made "
        "without arguments.",
    )
    runtime_env: dict[str, Any] = Field(
        {},
        description="Ray's runtime_env of a submitted experiment: pip, uv, image_uri and others.",
    )
    max_failures: NonNegativeInt = Field(
        3, description="How often a job, or the process that drives a task, is started again."
    )


def tracking_uri(tracking: TrackingConfig, storage: StorageConfig) -> str:
    """The config's URI, else MLFLOW_TRACKING_URI, else an SQLite file beside the results."""
    if uri := tracking.uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    return f"sqlite:///{local_folder(storage) / _DATABASE}"


def local_folder(storage: StorageConfig) -> Path:
    """Where this machine keeps what an object store has no place for: database and figures."""
    path = StorageConfig().path if "://" in storage.path else storage.path
    return Path(path).expanduser().absolute()


def report_folder(storage: StorageConfig, name: str) -> Path:
    """Where this machine keeps the report of an experiment."""
    return local_folder(storage) / "reports" / name


def open_tracker(config: AnyConfig) -> Tracker:
    """The tracker of an experiment; touches no network."""
    return Tracker(tracking_uri(config.tracking, config.storage), config.tracking.experiment)


def is_submitted() -> bool:
    """Whether this process is a submitted job's, whose folder is gone when it ends."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def where_to_look(config: AnyConfig, arguments: Sequence[str]) -> str:
    """Where the tracked runs are seen: the server's address, or the command that opens the UI.

    `arguments` are those that named the experiment on the command line; they are repeated only
    where it does not track in the default place.
    """
    uri = tracking_uri(config.tracking, config.storage)
    if uri.startswith("http") or is_submitted():
        return without_credentials(uri)  # a command would be one for the cluster's head
    program = "bnnas" if shutil.which("bnnas") else os.path.relpath(sys.argv[0])
    tracks_by_default = uri == tracking_uri(TrackingConfig(), StorageConfig())
    return shlex.join([program, "ui", *(() if tracks_by_default else arguments)])


def scaling(config: AnyConfig) -> Scaling:
    """The workers of every job."""
    section = config.cluster
    return Scaling(**section.model_dump(include=_OF_A_JOB))


def absolute(path: str) -> str:
    """A path on this machine from its root, for workers that stand elsewhere; URIs as they are."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def resolve_paths(config: AnyConfig) -> AnyConfig:
    """The same experiment for a process that stands in another folder: its places absolute."""
    places: dict[str, Section] = {
        "storage": config.storage.model_copy(update={"path": absolute(config.storage.path)})
    }
    if config.data is not None and config.data.root is not None:
        root = absolute(config.data.root)
        places["data"] = config.data.model_copy(update={"root": root})
    return config.model_copy(update=places)
