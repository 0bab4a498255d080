"""One model per run, whatever happens; one version per model: on a database and on a server."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.runner import StageRunner
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.models import (
    WriteModel,
    find_model,
    log_model,
    register_winner,
)
from orchestration.tracking.stage_runs import StageRuns
from orchestration.tracking.tracker import Tracker, TrackingError
from tests.orchestration.records import make_record

RECORD = make_record("retrain")
NAME = "retrain 3 -1 0"
STEPS = (
    "create_logged_model",
    "log_outputs",
    "log_model_artifacts",
    "log_batch",
    "set_logged_model_tags",
    "finalize_logged_model",
)
LOADER = """
class Doubler:
    def __init__(self, path):
        self.factor = float(open(path).read())

    def predict(self, numbers):
        return numbers * self.factor


_load_pyfunc = Doubler
"""


class Writer:
    """Writes a model that multiplies by a number, and counts how often it is asked to."""

    def __init__(self, folder: Path, factor: float = 2.0) -> None:
        self.num_calls = 0
        self._loader = folder / "multiplier_model.py"
        self._loader.write_text(LOADER, encoding="utf-8")
        self._data = folder / "factor.txt"
        self._data.write_text(str(factor), encoding="utf-8")

    def __call__(self, record: StageRecord, folder: Path) -> None:
        self.num_calls += 1
        mlflow.pyfunc.save_model(
            folder,
            loader_module=self._loader.stem,
            data_path=str(self._data),
            code_paths=[str(self._loader)],
            pip_requirements=["numpy"],
        )


@pytest.fixture
def sqlite_tracker(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tracker:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)  # for MLflow's own load_model
    return Tracker(sqlite_uri, tmp_path.name)


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.server)])
def tracker(
    request: pytest.FixtureRequest, sqlite_tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> Tracker:
    """The same, and one on a server."""
    if request.param == "sqlite":
        return sqlite_tracker
    uri = request.getfixturevalue("mlflow_server").uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Tracker(uri, sqlite_tracker.experiment)


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def publish(tracker: Tracker, record: StageRecord = RECORD) -> str:
    return tracker.publish(record, name=NAME, tags={})


def log(tracker: Tracker, run_id: str, write: Writer, record: StageRecord = RECORD) -> str:
    return log_model(tracker, run_id, record, write, name=NAME)


def models(tracker: Tracker) -> list[LoggedModel]:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(tracker.experiment)
    assert experiment is not None
    return list(client.search_logged_models([experiment.experiment_id]))


def check_model(tracker: Tracker, run_id: str, factor: float = 2.0) -> LoggedModel:
    """The run shows one model, complete and loadable, and nothing of its own twice."""
    client = MlflowClient(tracker.uri)
    (model,) = models(tracker)
    assert (model.name, model.source_run_id, str(model.status)) == (NAME, run_id, "READY")
    run = client.get_run(run_id)
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert model.params == run.data.params
    assert model.tags["bnnas.stage"] == "retrain"
    assert model.tags["bnnas.fingerprint"] == RECORD.fingerprint
    assert {metric.key for metric in model.metrics or []} == {"top1", "flops"}  # params is NaN
    by_age = sorted(model.metrics or [], key=lambda metric: metric.timestamp)
    for key, value in {metric.key: metric.value for metric in by_age}.items():
        assert value == run.data.metrics[key]
    assert run.info.status == "FINISHED"
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.predict(np.array([1.5])).tolist() == [1.5 * factor]
    assert (loaded.metadata.run_id, loaded.metadata.model_id) == (run_id, model.model_id)
    return model


def num_points(tracker: Tracker, run_id: str, key: str) -> int:
    return len(MlflowClient(tracker.uri).get_metric_history(run_id, key))


def winner_version(client: MlflowClient, name: str) -> int:
    """A number: MLflow's database gives one, its server a text."""
    return int(client.get_model_version_by_alias(name, "winner").version)


def test_a_run_has_one_model_however_often_it_is_logged(tracker: Tracker, write: Writer) -> None:
    run_id = publish(tracker)
    assert find_model(tracker, run_id, RECORD) is None
    found = {log(tracker, run_id, write) for _ in range(3)}
    model = check_model(tracker, run_id)
    assert found == {model.model_id, find_model(tracker, run_id, RECORD)}
    assert write.num_calls == 1
    for key in ("top1", "flops", "params", "wall_s"):
        assert num_points(tracker, run_id, key) == 1
    assert publish(tracker) == run_id
    check_model(tracker, run_id)


@contextlib.contextmanager
def cut_off(step: str, *, before: bool = False) -> Iterator[None]:
    """Within it, the connection breaks when MLflow's client has taken a step, or before."""
    original = getattr(MlflowClient, step)

    def fail(client: MlflowClient, *args: Any, **kwargs: Any) -> None:
        if not before:
            original(client, *args, **kwargs)
        raise MlflowException("the line is dead")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, step, fail)
        yield


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_a_call_that_was_cut_off_is_completed_by_the_next(
    sqlite_tracker: Tracker, write: Writer, step: str, before: bool
) -> None:
    tracker = sqlite_tracker
    run_id = publish(tracker)
    with cut_off(step, before=before), pytest.raises(TrackingError, match="the line is dead"):
        log(tracker, run_id, write)
    log(tracker, run_id, write)
    check_model(tracker, run_id)
    assert num_points(tracker, run_id, "top1") == 1


def test_a_half_uploaded_model_is_not_shown_as_complete(
    sqlite_tracker: Tracker, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = sqlite_tracker
    run_id = publish(tracker)

    def half(client: MlflowClient, model_id: str, folder: str) -> None:
        client.log_model_artifact(model_id, f"{folder}/MLmodel")
        raise MlflowException("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", half)
        with pytest.raises(TrackingError):
            log(tracker, run_id, write)
    assert find_model(tracker, run_id, RECORD) is None
    with pytest.raises(TrackingError, match="no complete model"):
        register_winner(tracker, name="half", run_id=run_id)
    log(tracker, run_id, write)
    check_model(tracker, run_id)


def test_models_that_two_processes_have_created_become_one(
    sqlite_tracker: Tracker, write: Writer
) -> None:
    tracker = sqlite_tracker
    run_id = publish(tracker)
    with tracker.session() as client:
        first, *_ = (
            client.create_logged_model(tracker.experiment_id(), NAME, run_id) for _ in range(3)
        )
    assert len(models(tracker)) == 3
    assert log(tracker, run_id, write) == first.model_id
    assert [model.model_id for model in models(tracker)] == [first.model_id]


def test_another_result_of_the_stage_fills_the_same_model(
    tracker: Tracker, write: Writer, tmp_path: Path
) -> None:
    run_id = publish(tracker)
    model_id = log(tracker, run_id, write)
    dearer = make_record("retrain", device_hours=0.5)
    assert find_model(tracker, publish(tracker, dearer), dearer) == model_id

    (tmp_path / "again").mkdir()
    later: dict[str, Any] = {
        "finished_at": RECORD.finished_at + 60,
        "metrics": {**RECORD.metrics, "top1": 0.4},
    }
    other = make_record("retrain", **later)
    assert publish(tracker, other) == run_id
    assert find_model(tracker, run_id, other) is None
    assert log(tracker, run_id, Writer(tmp_path / "again", factor=3.0), other) == model_id
    check_model(tracker, run_id, factor=3.0)
    assert num_points(tracker, run_id, "top1") == 2


def test_a_model_has_one_version_and_the_alias_is_on_the_newest_winner(
    tracker: Tracker, write: Writer
) -> None:
    name = f"{tracker.experiment}:{tracker.uri[:4]}"
    registered = name.replace(":", "-")
    client = MlflowClient(tracker.uri, tracker.uri)
    records = [RECORD, make_record("retrain", seed=1)]
    run_ids = [publish(tracker, record) for record in records]
    model_ids = [
        log(tracker, run_id, write, record) for run_id, record in zip(run_ids, records, strict=True)
    ]

    def register(index: int, description: str = "") -> str:
        return register_winner(tracker, name=name, run_id=run_ids[index], description=description)

    assert [register(0), register(0, "the **best**"), register(0)] == ["1", "1", "1"]
    assert winner_version(client, registered) == 1
    assert [register(1), register(1)] == ["2", "2"]
    assert winner_version(client, registered) == 2
    assert register(0) == "1"
    winner = client.get_model_version_by_alias(registered, "winner")
    assert (int(winner.version), winner.run_id) == (1, run_ids[0])
    assert model_ids[0] in (winner.source or "")
    assert winner.description == "the **best**"
    found = client.search_model_versions(f"name='{registered}'")
    assert sorted(int(version.version) for version in found) == [1, 2]
    assert f"models:/{registered}@winner" in client.get_registered_model(registered).description
    for index, version in enumerate(("1", "2")):
        tags = client.get_logged_model(model_ids[index]).tags
        (noted,) = json.loads(tags["mlflow.modelVersions"])
        assert (noted["name"], str(noted["version"])) == (registered, version)
    loaded = mlflow.pyfunc.load_model(f"models:/{registered}@winner")
    assert loaded.predict(np.array([1.5])).tolist() == [3.0]


@pytest.mark.parametrize(
    "step", ["create_registered_model", "create_model_version", "set_registered_model_alias"]
)
def test_a_registration_that_was_cut_off_is_completed_by_the_next(
    sqlite_tracker: Tracker, write: Writer, step: str
) -> None:
    tracker, name = sqlite_tracker, sqlite_tracker.experiment
    run_id = publish(tracker)
    log(tracker, run_id, write)
    with cut_off(step), pytest.raises(TrackingError, match="the line is dead"):
        register_winner(tracker, name=name, run_id=run_id)
    assert register_winner(tracker, name=name, run_id=run_id) == "1"
    client = MlflowClient(tracker.uri, tracker.uri)
    assert len(client.search_model_versions(f"name='{name}'")) == 1
    assert winner_version(client, name) == 1


# --- the runner's part ---


STAGE = Stage("retrain", RECORD.config, code_version=1, name=NAME)


def stored(folder: Path, tracker: Tracker) -> StageRunner:
    """A runner in whose store the stage is, so that no job is started."""
    store = StageStore(folder / "store")
    store.put(make_record("retrain", fingerprint=STAGE.fingerprint))
    claims = Claims(folder / "store")
    return StageRunner(
        store=store,
        claims=claims,
        failures=FailureLog(folder / "store"),
        runs=StageRuns(tracker, claims),
        scaling=Scaling(),
        max_failures=0,
        code={},
    )


def have(runner: StageRunner, write: WriteModel) -> str | None:
    def never(*_: Any) -> Any:
        raise AssertionError("the stage is there")

    return runner.train(STAGE, never, {}, never, model=write).run_id


def test_of_all_that_want_a_stage_at_once_one_logs_its_model(
    tmp_path: Path, tracker: Tracker, write: Writer
) -> None:
    runners = [stored(tmp_path, Tracker(tracker.uri, tracker.experiment)) for _ in range(3)]
    run_id = have(runners[0], write)
    assert run_id is not None
    MlflowClient(tracker.uri).delete_logged_model(models(tracker)[0].model_id)
    barrier = threading.Barrier(3)

    def ask(runner: StageRunner) -> str | None:
        barrier.wait()
        return have(runner, write)

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(ask, runners)) == {run_id}
    assert write.num_calls == 2
    assert len(models(tracker)) == 1


def test_what_the_tracker_missed_is_shown_by_the_next_call(
    tmp_path: Path, write: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The run at first, then its model."""
    (tmp_path / "new").write_text("in the way of the folder")
    tracker = Tracker(f"sqlite:///{tmp_path}/new/mlflow.db", "e")
    runner = stored(tmp_path, tracker)
    with caplog.at_level(logging.WARNING):
        assert have(runner, write) is None
        assert "MLflow does not show it" in caplog.text
        (tmp_path / "new").unlink()
        with cut_off("log_model_artifacts", before=True):
            run_id = have(runner, write)
    assert run_id is not None
    assert "does not show its model" in caplog.text
    assert have(runner, write) == run_id
    assert have(runner, write) == run_id
    assert write.num_calls == 2
    (model,) = models(tracker)
    assert str(model.status) == "READY"
