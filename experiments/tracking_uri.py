"""Where runs are tracked, and the MLflow UI that shows them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.config import Config, StorageConfig, TrackingConfig
from orchestration.tracking import Tracker

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


def open_tracker(config: Config) -> Tracker:
    """The tracker of an experiment; touches no network."""
    return Tracker(tracking_uri(config.tracking, config.storage), config.tracking.experiment)


def ui_command(config: Config, arguments: Sequence[str]) -> str:
    """The command that opens the MLflow UI on an experiment's runs.

    `arguments` are those that named the experiment on the command line; they are repeated only
    where it does not track in the default place.
    """
    program = "bnnas" if shutil.which("bnnas") else os.path.relpath(sys.argv[0])
    default = tracking_uri(TrackingConfig(), StorageConfig())
    tracks_by_default = tracking_uri(config.tracking, config.storage) == default
    return shlex.join([program, "ui", *(() if tracks_by_default else arguments)])


def serve_ui(uri: str, port: int, console: Console) -> int:
    """Serve the MLflow UI of a database until interrupted; a server has its own already.

    Returns the exit status. Raises ValueError when the database does not exist yet.
    """
    if uri.startswith(("http://", "https://")):
        console.print(f"The runs are on the MLflow server [link={uri}]{uri}[/]: open it.")
        return 0
    artifacts = []
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
        if not database.is_file():
            raise ValueError(
                f"there is no tracking database {database}: run an experiment first, or name the "
                f"config of one."
            )
        artifacts = ["--default-artifact-root", (database.parent / "artifacts").as_uri()]
    console.print(f"MLflow UI: [bold]http://127.0.0.1:{port}[/]  [dim](Ctrl-C stops it)[/]")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, *artifacts),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
