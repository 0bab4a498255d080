"""Where runs are tracked, and the command that shows them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.config.cell import Config, StorageConfig, TrackingConfig
from experiments.config.detection import DetectionConfig
from orchestration.cluster.scaling import Scaling
from orchestration.tracking.tracker import Tracker

_DATABASE = "mlflow.db"


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


def open_tracker(config: Config | DetectionConfig) -> Tracker:
    """The tracker of an experiment; touches no network."""
    return Tracker(tracking_uri(config.tracking, config.storage), config.tracking.experiment)


def where_to_look(config: Config | DetectionConfig, arguments: Sequence[str]) -> str:
    """Where the tracked runs are seen: the server's address, or the command that opens the UI.

    `arguments` are those that named the experiment on the command line; they are repeated only
    where it does not track in the default place.
    """
    uri = tracking_uri(config.tracking, config.storage)
    if uri.startswith("http") or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return uri  # in a submitted job, a command would be one for the cluster's head
    program = "bnnas" if shutil.which("bnnas") else os.path.relpath(sys.argv[0])
    tracks_by_default = uri == tracking_uri(TrackingConfig(), StorageConfig())
    return shlex.join([program, "ui", *(() if tracks_by_default else arguments)])


def scaling(config: Config | DetectionConfig) -> Scaling:
    """The workers of every job."""
    section = config.cluster
    return Scaling(section.num_workers, section.use_gpu, section.cpus_per_worker)


def absolute(path: str) -> str:
    """A path on this machine from its root, for workers that stand elsewhere; URIs as they are."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def resolve_paths(config: Config) -> Config:
    """The same experiment for a process that stands in another folder: its places absolute."""
    places = {"storage": config.storage.model_copy(update={"path": absolute(config.storage.path)})}
    if config.data.root is None:
        return config.model_copy(update=places)
    data = config.data.model_copy(update={"root": absolute(config.data.root)})
    return config.model_copy(update={**places, "data": data})
