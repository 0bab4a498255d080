"""Reaching an MLflow server or database: quickly, quietly, or with one clear sentence.

MLflow's defaults suit a service that may take its time: seven retries of two minutes each before
an error, a log line for each of some fifty migrations of a new database, artifacts of a database
under the current directory. Here they suit a person at a terminal.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.cluster.credentials import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_SQLITE = "sqlite:///"
_HTTP = ("http://", "https://")
_DATABASES = ("sqlite://", "postgresql", "mysql", "mssql")
_CONNECTION_ERRORS = (
    "Connection refused",
    "Connection reset",
    "Remote end closed connection",
    "timed out",
    "Name or service not known",
    "Temporary failure in name resolution",
)
_DENIED = re.compile("error code (401|403)|UNAUTHENTICATED|PERMISSION_DENIED")
_ENVIRONMENT_LOCK = threading.RLock()
# Without it, MLflow's UI shows an experiment's runs as evaluations of a language model.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class TrackingError(ValueError):
    """The tracking server cannot be used; the message says which, why, and how to mend it.

    A password in its URI is not repeated.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


@contextlib.contextmanager
def patience(timeout_s: int, num_retries: int) -> Iterator[None]:
    """Within it, an HTTP request of MLflow's client gives up after so long, and prints nothing.

    MLflow takes these settings from the environment only; it is restored afterwards.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(num_retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with _ENVIRONMENT_LOCK:
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@functools.cache
def server_errors() -> tuple[type[Exception], ...]:
    """What MLflow's client raises when the server or database is away or refuses."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)  # requests' errors are OSErrors


def connect(uri: str) -> MlflowClient:
    """A client of ``uri``; a SQLite database and its folder are created where they are missing.

    Raises:
        Exception: one of :func:`server_errors`.
    """
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each retry is a warning of its own; what matters is the error at the end.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    if not uri.startswith(_SQLITE):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    from filelock import FileLock

    database = _database(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    # Of two processes that create the tables at once, MLflow lets one fail.
    name = hashlib.sha256(str(database).encode()).hexdigest()
    with FileLock(Path(tempfile.gettempdir(), f"mlflow-{name}.lock")):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment called ``name``, created where it is missing.

    A SQLite database on this machine keeps its artifacts in the folder ``artifacts`` beside it;
    a server decides for itself.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if uri.startswith(_SQLITE):
            location = (_database(uri).parent / "artifacts").as_uri()
        try:
            return str(
                client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS)
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)  # somebody else was a moment faster
        assert experiment is not None
    if experiment.lifecycle_stage != "active":
        raise deleted(experiment, uri)
    return str(experiment.experiment_id)


def deleted(experiment: Experiment, uri: str) -> TrackingError:
    """The error for an experiment in MLflow's waste bin."""
    return TrackingError(
        f"The MLflow experiment {experiment.name!r} at {uri} was deleted: restore it with "
        f"'mlflow experiments restore -x {experiment.experiment_id}', or set "
        "tracking.experiment to another name."
    )


def check(uri: str, experiment: str) -> None:
    """Find out within seconds whether ``uri`` takes runs for ``experiment``.

    Raises:
        TrackingError: it does not.
    """
    check_uri(uri)
    with patience(timeout_s=5, num_retries=0), explained(uri):
        if uri.startswith(_HTTP):
            _check_version(uri)
        experiment_id(connect(uri), uri, experiment)


@contextlib.contextmanager
def reading(uri: str, timeout_s: int, num_retries: int) -> Iterator[MlflowClient]:
    """A client for what is there already; nothing is created.

    Raises:
        TrackingError: there is no MLflow, or it is away or refuses.
    """
    check_uri(uri)
    if uri.startswith(_SQLITE):
        _check_database(uri)
    with patience(timeout_s, num_retries), explained(uri):
        if uri.startswith(_HTTP):
            _check_version(uri)
        yield connect(uri)


def check_uri(uri: str) -> None:
    """Whether `uri` can name a server or database; touches no network.

    Raises:
        TrackingError: it cannot.
    """
    if not uri.startswith((*_HTTP, *_DATABASES)):
        raise TrackingError(
            f"Tracking URI {uri!r} is no MLflow server or database: set tracking.uri to "
            "http://HOST:PORT of a server, or to sqlite:////ABSOLUTE/PATH/mlflow.db."
        )


def _check_database(uri: str) -> None:
    """Refuse a SQLite file that is not there or is another program's; MLflow would fill it."""
    path = _database(uri)
    mend = "Name the config whose runs are meant, or the place with --uri."
    if not path.is_file():
        raise TrackingError(
            f"There is no MLflow database at {path}: nothing was tracked there yet. {mend}"
        )
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.OperationalError:  # locked or not to be opened: MLflow waits, or says so
        return
    except sqlite3.DatabaseError:  # no SQLite file at all
        tables = set()
    if not {"alembic_version", "experiments", "runs"} <= tables:
        raise TrackingError(f"The file {path} is no MLflow database, and stays as it is. {mend}")


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE)).expanduser().absolute()


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what goes wrong within it into one sentence.

    Raises:
        TrackingError: anything of :func:`server_errors` was raised within.
    """
    try:
        yield
    except server_errors() as error:
        reason = reason_of(error)
        if denied := _DENIED.search(str(error)):
            raise TrackingError(
                f"MLflow at {uri} does not let us in ({denied[0].lower()}): give your credentials "
                "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in "
                "MLFLOW_TRACKING_TOKEN."
            ) from error
        if "out-of-date database schema" in str(error):
            mend = f"run 'mlflow db upgrade {uri}' (after a backup), or name another database"
        elif uri.startswith(_HTTP):
            mend = (
                "start it with 'mlflow server', mend tracking.uri, or unset it to track in a "
                "local SQLite file"
            )
        else:
            mend = "check that its folder exists and may be written, or set tracking.uri"
        raise TrackingError(f"MLflow at {uri} cannot be used ({reason}): {mend}.") from error


def is_away(error: BaseException) -> bool:
    """Whether a request has failed because nobody answers."""
    return any(sign in str(error) for sign in _CONNECTION_ERRORS)


def reason_of(error: BaseException) -> str:
    """An error's own words in one short line; of a failed connection, the innermost ones."""
    text = str(error).strip() or type(error).__name__
    for sign in _CONNECTION_ERRORS:
        if sign in text:
            return sign.lower()
    line = text.splitlines()[0]
    return line if len(line) <= 200 else f"{line[:200]} …"


def _check_version(uri: str) -> None:
    """Refuse what is no MLflow server, or one of another major version."""
    import mlflow
    import requests
    from packaging.version import InvalidVersion, Version

    response = requests.get(f"{uri.rstrip('/')}/version", timeout=5)
    try:
        version = Version(response.text.strip()) if response.ok else None
    except InvalidVersion:
        version = None
    if version is None:
        if response.status_code in (401, 403):
            return  # it wants credentials, which MLflow's own client knows how to give
        raise TrackingError(
            f"What answers at {uri} is no MLflow server (HTTP {response.status_code} for "
            "/version): mend tracking.uri."
        )
    ours = Version(mlflow.__version__)
    if version.major != ours.major:
        raise TrackingError(
            f"The MLflow server at {uri} is of version {version}, this client of version {ours}: "
            f"install mlflow {ours.major}.x on the server, or mlflow {version.major}.x here."
        )
