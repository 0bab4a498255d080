"""A stage's network as an MLflow model: one per run, whatever happens; the best one registered.

What a model is made of is the caller's: a callable that writes MLflow's model folder from a
:class:`~orchestration.store.stage_store.StageRecord`. Here it becomes the ``LoggedModel`` of the
stage's run, found again by that run, so that a call that was interrupted is completed by the next
one: it is created, linked to the run, filled, measured, and only then READY and tagged with what it
holds.
A stage that was made again with another result fills the same model anew.

:func:`log_model` may be called by one process at a time for each run (see
:mod:`orchestration.store.claims`); MLflow itself cannot create what is absent in one step.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.store import json_text
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.params import flatten_params
from orchestration.tracking.tracker import FINGERPRINT, STAGE, Tracker, TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

WINNER = "winner"
_HOLDS = "bnnas.holds"
_ILLEGAL = re.compile(r"""[/:.%"']""")  # in a model's name
_VERSIONS = "mlflow.modelVersions"  # what MLflow's pages link a model to its versions by

WriteModel = Callable[[StageRecord, Path], None]


def find_model(tracker: Tracker, run_id: str, record: StageRecord) -> str | None:
    """The id of the run's model; None unless it is complete and holds this record. One request.

    Raises:
        TrackingError: the server is away or refuses.
    """
    with tracker.session() as client:
        for model in _models(client, tracker, run_id):
            if _is_ready(model) and model.tags.get(_HOLDS) == _digest(record):
                return str(model.model_id)
    return None


def log_model(
    tracker: Tracker, run_id: str, record: StageRecord, write: WriteModel, *, name: str
) -> str:
    """Have the run's model hold what ``write`` writes of ``record``, and return its id.

    The record's config becomes the model's params, its finite metrics the model's metrics. A
    model that holds the record already is left alone and ``write`` is not called.

    Args:
        tracker: of the run's experiment.
        run_id: what :meth:`Tracker.publish` returned for ``record``.
        record: a finished stage.
        write: fills an empty folder as MLflow's flavours do (``MLmodel`` and what it names).
        name: of a new model, such as its run's, by which MLflow's lists and charts tell models
            apart; what MLflow does not take in it becomes a hyphen.

    Raises:
        TrackingError: the server is away or refuses; the next call goes on.
    """
    from mlflow.models import Model

    if (model_id := find_model(tracker, run_id, record)) is not None:
        return model_id
    with tempfile.TemporaryDirectory(prefix="model-") as temporary:
        folder = Path(temporary, "model")
        folder.mkdir()
        write(record, folder)
        with tracker.session() as client:
            model = _claim(client, tracker, run_id, record, name)
            model_id = str(model.model_id)
            _link(client, run_id, model_id)
            description = Model.load(str(folder))
            description.model_id = description.model_uuid = model_id
            description.run_id = run_id
            description.artifact_path = model.artifact_location
            description.save(str(folder / "MLmodel"))
            client.log_model_artifacts(model_id, str(folder))
            _measure(client, run_id, model_id, record)
            client.set_logged_model_tags(model_id, {_HOLDS: _digest(record)})
            client.finalize_logged_model(model_id, "READY")
    return model_id


def register_winner(tracker: Tracker, *, name: str, run_id: str, description: str = "") -> str:
    """Register the run's model as the best one under ``name``, and return its version.

    The registered model is created where it is missing; a model has one version in it, however
    often it wins; the alias ``winner`` moves to that version. Doing it again changes nothing.

    Args:
        tracker: of the run's experiment.
        name: of the registered model, such as the sweep's; ``:`` becomes ``-``, as MLflow's URIs
            want it.
        run_id: the run whose model :func:`log_model` has logged.
        description: of the version; MLflow's list of versions shows it as plain text.

    Raises:
        TrackingError: the server is away or refuses, or the run has no complete model.
    """
    name = name.replace(":", "-")
    with tracker.session() as client:
        ready = [model for model in _models(client, tracker, run_id) if _is_ready(model)]
        if not ready:
            raise TrackingError(
                f"Run {run_id} has no complete model that could be registered as {name!r}: run "
                "the same command again, which logs it."
            )
        _ensure_registered_model(client, name)
        version = _ensure_version(client, name, ready[0], run_id)
        if description and version.description != description:
            client.update_model_version(name, version.version, description)
        client.set_registered_model_alias(name, WINNER, str(version.version))
    return str(version.version)


def _models(client: MlflowClient, tracker: Tracker, run_id: str) -> list[LoggedModel]:
    """The run's models, the one that stays first."""
    models = client.search_logged_models(
        [tracker.experiment_id()], filter_string=f"source_run_id = '{run_id}'"
    )
    return sorted(models, key=lambda model: (model.creation_timestamp, model.model_id))


def _is_ready(model: LoggedModel) -> bool:
    return str(model.status) == "READY"


def _claim(
    client: MlflowClient, tracker: Tracker, run_id: str, record: StageRecord, name: str
) -> LoggedModel:
    """The run's one model, created where there is none; others of it are deleted."""
    models = _models(client, tracker, run_id)
    if not models:
        client.create_logged_model(
            tracker.experiment_id(),
            name=_ILLEGAL.sub("-", name),
            source_run_id=run_id,
            tags={STAGE: record.kind, FINGERPRINT: record.fingerprint},
            params=flatten_params(record.config),
        )
        models = _models(client, tracker, run_id)
    for other in models[1:]:
        client.delete_logged_model(other.model_id)
    return models[0]


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Have the run's page show the model."""
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    linked = [] if outputs is None else [output.model_id for output in outputs.model_outputs]
    if model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _measure(client: MlflowClient, run_id: str, model_id: str, record: StageRecord) -> None:
    """Have the model show the run's metrics.

    MLflow logs a model's metric to its run, too; the very same value, time and step as there
    already change nothing about it. A model's NaN would be shown as 0.
    """
    from mlflow.entities import Metric

    metrics = []
    for key, value in record.metrics.items():
        if math.isfinite(value):
            history = client.get_metric_history(run_id, key)
            shown = max(history, key=lambda each: (each.step, each.timestamp, each.value))
            metrics.append(
                Metric(
                    key,
                    shown.value,
                    shown.timestamp,
                    shown.step,
                    model_id=model_id,
                    run_id=run_id,
                )
            )
    client.log_batch(run_id, metrics=metrics)


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name,
            description=(
                f"The best networks of `{name}`; the alias `{WINNER}` is on the newest. "
                f'`mlflow.pyfunc.load_model("models:/{name}@{WINNER}")` loads it.'
            ),
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _ensure_version(
    client: MlflowClient, name: str, model: LoggedModel, run_id: str
) -> ModelVersion:
    """The one version of ``model`` under ``name``."""
    versions = _versions(client, name, model, run_id)
    if not versions:
        client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)
        versions = _versions(client, name, model, run_id)
    for other in versions[1:]:
        client.delete_model_version(name, other.version)
    _link_version(client, name, versions[0].version, model.model_id)
    return versions[0]


def _versions(
    client: MlflowClient, name: str, model: LoggedModel, run_id: str
) -> list[ModelVersion]:
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    place = model.artifact_location  # MLflow's registry forgets the model's id
    ours = [each for each in versions if each.name == name and each.source == place]
    return sorted(ours, key=lambda each: int(each.version))


def _link_version(client: MlflowClient, name: str, version: str, model_id: str) -> None:
    """What a server does by itself, and a database does not: have the model name its version."""
    noted = json.loads(client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
    if not any(each["name"] == name and str(each["version"]) == str(version) for each in noted):
        noted.append({"name": name, "version": str(version)})
        client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps(noted)})


def _digest(record: StageRecord) -> str:
    """Changes with what the stage has found, and not with what it cost or when it was made."""
    content = json_text.dumps({"result": record.result, "metrics": record.metrics})
    return hashlib.sha256(content.encode()).hexdigest()
