from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from orchestration.store.stage import Stage
from orchestration.tracking.live_run import LiveRun
from orchestration.tracking.reader import read_experiment
from orchestration.tracking.tracker import (
    PUBLISHED,
    About,
    DatasetUse,
    Tracker,
    TrackingError,
)
from tests.orchestration.conftest import MlflowServer
from tests.orchestration.ray_head import web_server
from tests.orchestration.records import all_runs, make_record, steps

RECORD = make_record()


STAGE = Stage(RECORD.kind, RECORD.config, code_version=1, name="supernet bn 3")


TAGS = {"bnnas.cell": "bn-bn-3"}


ABOUT = About({"trainable": "bn"}, [DatasetUse("digits-train", "ab12", "train", "{}")])


def start(tracker: Tracker) -> LiveRun:
    return LiveRun(tracker, STAGE, TAGS, about=ABOUT)


def publish(tracker: Tracker) -> str:
    return tracker.publish(RECORD, name="supernet bn 3", tags=TAGS, about=ABOUT)


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "curve.png").write_bytes(b"png")
    return folder


def check_published(uri: str, run_id: str) -> None:
    """The run shows exactly RECORD."""
    client = MlflowClient(uri)
    (run,) = all_runs(uri)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "supernet bn 3"
    assert run.info.end_time == 1_700_000_450_500
    assert run.data.tags["bnnas.stage"] == "supernet"
    assert run.data.tags["bnnas.fingerprint"] == RECORD.fingerprint
    assert run.data.tags["bnnas.cell"] == "bn-bn-3"
    assert run.data.params == {
        "seed": "0",
        "supernet.epochs": "3",
        "supernet.trainable": "bn",
        "supernet.betas": "[0.9, 1]",
        "trainable": "bn",  # as runs of cells have it
    }
    assert run.inputs is not None
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits-train", "ab12")
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "train")]
    assert "score/00.1" not in run.data.metrics  # the record has it
    assert run.data.metrics["top1"] == 0.3
    assert run.data.metrics["device_hours"] == 0.25
    assert run.data.metrics["wall_s"] == 450.0
    for key in ("epoch", "train/loss", "val/top1"):
        assert steps(uri, run_id, key) == [1, 2, 3]
    loss = [metric.value for metric in client.get_metric_history(run_id, "train/loss")]
    assert loss[0] == 2.5
    assert math.isnan(loss[1])
    assert loss[2] > 1e308
    for key in ("top1", "device_hours", "wall_s", "flops", "params"):
        assert len(steps(uri, run_id, key)) == 1


def artifact(uri: str, run_id: str, name: str, to: Path) -> bytes:
    to.mkdir(exist_ok=True)
    return Path(MlflowClient(uri).download_artifacts(run_id, name, str(to))).read_bytes()


def test_publishing_shows_the_record_and_nothing_twice(
    sqlite_uri: str, figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {"name": "supernet bn 3", "figures": figures, "about": ABOUT}
    run_id = Tracker(sqlite_uri, "e").publish(RECORD, **arguments, tags=TAGS)
    check_published(sqlite_uri, run_id)
    more = {**TAGS, "bnnas.input.data": "r1"}
    for tags in (TAGS, more):
        assert Tracker(sqlite_uri, "e").publish(RECORD, **arguments, tags=tags) == run_id
    check_published(sqlite_uri, run_id)
    assert MlflowClient(sqlite_uri).get_run(run_id).data.tags["bnnas.input.data"] == "r1"

    assert yaml.safe_load(artifact(sqlite_uri, run_id, "config.yaml", tmp_path / "a")) == (
        RECORD.config
    )
    assert artifact(sqlite_uri, run_id, "figures/curve.png", tmp_path / "a") == b"png"
    record = json.loads(artifact(sqlite_uri, run_id, "record.json", tmp_path / "a"))
    assert record["result"]["arch"] == [3, -1, 0]
    # Artifacts lie beside the database, wherever the command was given.
    assert (tmp_path / "tracking" / "artifacts" / run_id / "artifacts" / "figures").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_live_epochs_and_publishing_meet_in_one_run(sqlite_uri: str) -> None:
    live = start(Tracker(sqlite_uri, "e"))
    (run,) = all_runs(sqlite_uri)
    assert run.info.status == "RUNNING"
    live.log_epoch(RECORD.history[0])
    live.log_epoch(RECORD.history[0])

    # A new process goes on with it and tells what is done already.
    resumed = start(Tracker(sqlite_uri, "e"))
    assert resumed.run_id == live.run_id
    resumed.log_epoch(RECORD.history[0])
    resumed.log_epoch(RECORD.history[1])
    run_id = publish(Tracker(sqlite_uri, "e"))
    assert run_id == live.run_id
    check_published(sqlite_uri, run_id)


def test_a_failed_run_is_continued(sqlite_uri: str) -> None:
    live = start(Tracker(sqlite_uri, "e"))
    live.log_epoch(RECORD.history[0])
    live.fail("worker 0 ran out of memory")
    (run,) = all_runs(sqlite_uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["bnnas.error"] == "worker 0 ran out of memory"
    run_id = publish(Tracker(sqlite_uri, "e"))
    assert run_id == live.run_id
    check_published(sqlite_uri, run_id)
    assert not MlflowClient(sqlite_uri).get_run(run_id).data.tags["bnnas.error"]


def test_runs_of_one_fingerprint_become_one(sqlite_uri: str) -> None:
    client = MlflowClient(sqlite_uri)
    Tracker(sqlite_uri, "e").check()
    (experiment,) = [e for e in client.search_experiments() if e.name == "e"]
    tags = {"bnnas.fingerprint": RECORD.fingerprint}
    runs = [
        client.create_run(experiment.experiment_id, start_time=ms, tags=tags)
        for ms in (2000, 1000, 1000)
    ]
    expected = min(runs[1].info.run_id, runs[2].info.run_id)
    tracker = Tracker(sqlite_uri, "e")
    for _ in range(2):
        assert publish(tracker) == expected
    check_published(sqlite_uri, expected)


def test_a_long_history_goes_in_whole_epochs(sqlite_uri: str) -> None:
    history = [
        {"epoch": epoch, **{f"m{index}": float(index) for index in range(300)}}
        for epoch in range(1, 11)
    ]
    record = make_record(history=history)
    run_id = Tracker(sqlite_uri, "e").publish(record, name="n", tags={})
    for key in ("epoch", "m0", "m299"):
        assert steps(sqlite_uri, run_id, key) == list(range(1, 11))


def test_groups_are_found_again_and_hold_their_runs(sqlite_uri: str, figures: Path) -> None:
    tracker = Tracker(sqlite_uri, "e")
    params: dict[str, Any] = {"grid": {"epochs": [1, 3]}, "seed": 0}
    sweep = tracker.start_group("sweep 1", {"bnnas.stage": "sweep"}, params, group="s1")
    cell = tracker.start_group("cell's", {}, {}, parent_run_id=sweep)
    run_id = tracker.publish(RECORD, name="n", tags={}, parent_run_id=cell)
    tracker.finish_group(
        sweep, "FINISHED", {"num_failed": 0.0}, params={"winner": "c"}, artifacts=figures
    )

    client = MlflowClient(sqlite_uri)
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == cell
    assert client.get_run(cell).data.tags["mlflow.parentRunId"] == sweep
    assert client.get_run(sweep).info.status == "FINISHED"
    assert client.get_run(sweep).data.params == {
        "grid.epochs": "[1, 3]",
        "seed": "0",
        "winner": "c",
    }
    assert [file.path for file in client.list_artifacts(sweep)] == ["curve.png"]

    again = Tracker(sqlite_uri, "e").start_group("sweep 1", {}, {"seed": 1, "new": 2}, group="s1")
    assert again == sweep
    assert client.get_run(sweep).info.status == "RUNNING"
    assert client.get_run(sweep).data.params == {
        "grid.epochs": "[1, 3]",
        "seed": "0",
        "winner": "c",
        "new": "2",
    }
    tracker.finish_group(sweep, "FAILED", {"num_failed": 0.0})
    assert client.get_run(sweep).info.status == "FAILED"
    assert len(steps(sqlite_uri, sweep, "num_failed")) == 1
    assert len(all_runs(sqlite_uri)) == 3


@pytest.mark.server
@pytest.mark.slow
def test_a_server_that_goes_away_costs_nothing_but_time(
    mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    uri = mlflow_server.uri
    tracker = Tracker(uri, "e")
    tracker.check()
    live = start(tracker)
    live.log_epoch(RECORD.history[0])
    run_id = live.run_id
    assert steps(uri, str(run_id), "epoch") == [1]

    mlflow_server.stop()
    with caplog.at_level(logging.WARNING):
        live.log_epoch(RECORD.history[1])
        live.log_epoch(RECORD.history[1])
        assert not live.flush()
        live.fail("nobody hears this")
    assert len([r for r in caplog.records if uri in r.getMessage()]) == 1
    with pytest.raises(TrackingError, match="connection refused"):
        publish(tracker)

    mlflow_server.start()
    assert live.flush()
    assert live.run_id == run_id
    assert steps(uri, str(run_id), "epoch") == [1, 2]
    assert publish(tracker) == run_id
    check_published(uri, str(run_id))
    assert yaml.safe_load(artifact(uri, str(run_id), "config.yaml", tmp_path / "a")) == (
        RECORD.config
    )
    experiment = read_experiment(uri, "e")
    record = experiment.record(experiment.by_id[str(run_id)])
    assert record is not None
    assert record["config"] == RECORD.config


def test_a_run_that_starts_without_a_server_is_published_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new").write_text("in the way of the folder")
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"  # nor is there a database yet
    with caplog.at_level(logging.WARNING):
        live = start(Tracker(uri, "e"))
        live.log_epoch(RECORD.history[0])
    assert live.run_id is None
    (tmp_path / "new").unlink()
    assert live.flush()
    assert steps(uri, str(live.run_id), "epoch") == [1]


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("http://127.0.0.1:9", "connection refused"),
        ("sqlite:////proc/nowhere/mlflow.db", "folder"),
        ("file:///tmp/mlruns", "no MLflow server or database"),
    ],
)
def test_an_unusable_tracker_is_one_sentence(uri: str, word: str) -> None:
    with pytest.raises(TrackingError) as caught:
        Tracker(uri, "e").check()
    message = str(caught.value)
    assert uri in message
    assert word in message
    assert "tracking.uri" in message
    assert "\n" not in message


def test_what_is_no_mlflow_server_is_refused() -> None:
    for page, words in (("1.30.0", "of version 1.30.0"), ("<html>", "no MLflow server")):
        with web_server(200, page) as uri, pytest.raises(TrackingError, match=words):
            Tracker(uri, "e").check()


def test_a_deleted_experiment_says_how_to_restore_it(sqlite_uri: str) -> None:
    tracker = Tracker(sqlite_uri, "e")
    tracker.check()
    client = MlflowClient(sqlite_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "e"]
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        Tracker(sqlite_uri, "e").check()


def test_a_series_keeps_its_own_steps_and_is_there_once(sqlite_uri: str) -> None:
    points = [(50, 2.0), (100, 1.5), (150, math.nan), (200, 1.0)]
    record = make_record(series={"step/loss": points})
    run_id = Tracker(sqlite_uri, "e").publish(record, name="detect", tags={})
    client = MlflowClient(sqlite_uri)
    # A publication that was interrupted is completed by the next one.
    client.set_tag(run_id, PUBLISHED, "")
    assert Tracker(sqlite_uri, "e").publish(record, name="detect", tags={}) == run_id
    shown = client.get_metric_history(run_id, "step/loss")
    assert [(metric.step, metric.value) for metric in shown if metric.step != 150] == [
        point for point in points if point[0] != 150
    ]
    assert sum(metric.step == 150 for metric in shown) == 1
    assert steps(sqlite_uri, run_id, "train/loss") == [1, 2, 3]
