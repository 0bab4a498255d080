"""Reading an experiment back: page by page, ours apart from others', nothing created."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import re
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestration.tracking import reader as run_reader
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.reader import read_experiment, tracked_run
from orchestration.tracking.tracker import Tracker, TrackingError
from tests.orchestration.ray_head import web_server
from tests.orchestration.records import make_record

RECORD = make_record()


def test_a_published_record_is_read_back(sqlite_uri: str) -> None:
    tracker = Tracker(sqlite_uri, "e")
    parent = tracker.start_group("s", {"bnnas.stage": "sweep"}, {"seed": 1})
    tags = {"bnnas.input.data": "r1"}
    run_id = tracker.publish(RECORD, name="supernet", tags=tags, parent_run_id=parent)
    found = read_experiment(sqlite_uri, "e")
    assert [run.kind for run in found.runs] == ["supernet", "sweep"]  # the oldest first
    run = found.runs[0]
    assert (run.run_id, run.parent_run_id, run.status) == (run_id, parent, "FINISHED")
    assert (run.fingerprint, run.inputs) == (RECORD.fingerprint, {"data": "r1"})
    assert run.params["supernet.epochs"] == "3"
    assert run.metrics["top1"] == 0.3
    assert run.code == RECORD.code
    record = found.record(run)
    assert record is not None
    assert record["config"] == RECORD.config
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]
    assert found.record(found.runs[1]) is None  # a group has none


@pytest.mark.parametrize(
    "changes",
    [
        {},
        # A metric that is final and in the history, one that is not in every row, a long tag.
        {
            "metrics": {"top1": 0.1, "val/top1": 0.05, "worst": -math.inf},
            "history": [
                {"epoch": 1, "val/top1": 0.5, "val/rare": 7.0},
                {"epoch": 2, "val/top1": 0.9},
            ],
            "series": {"step/loss": [(50, 2.0), (100, math.nan), (150, 0.5)]},
            "code": {"commit": "0" * 9000},
        },
        {"history": [], "metrics": {}, "code": {}},
    ],
)
def test_a_record_is_projected_as_it_is_published(sqlite_uri: str, changes: dict[str, Any]) -> None:
    record = make_record(**changes)
    tracker = Tracker(sqlite_uri, "e")
    parent = tracker.start_group("s", {"bnnas.stage": "sweep"}, {})
    tags = {"bnnas.cell": "bn-bn-3", "bnnas.input.data": "r1"}
    run_id = tracker.publish(record, name="supernet bn 3", tags=tags, parent_run_id=parent)
    projected = tracked_run(
        record, name="supernet bn 3", run_id=run_id, tags=tags, parent_run_id=parent
    )
    read = next(run for run in read_experiment(sqlite_uri, "e").runs if run.run_id == run_id)
    # NaN is not equal to itself.
    assert repr(sorted(projected.metrics.items())) == repr(sorted(read.metrics.items()))
    assert dataclasses.replace(projected, metrics={}) == dataclasses.replace(read, metrics={})


class Requests:
    """What `search_runs` was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.filters: list[str] = []
        search = MlflowClient.search_runs

        def counting(client: MlflowClient, *args: Any, **options: Any) -> Any:
            self.filters.append(options.get("filter_string", ""))
            return search(client, *args, **options)

        monkeypatch.setattr(MlflowClient, "search_runs", counting)


def test_pages_are_put_together_and_others_are_counted(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(sqlite_uri, "e")
    ours = [tracker.start_group(f"g{n}", {"bnnas.stage": "cell"}, {}) for n in range(7)]
    client = MlflowClient(sqlite_uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    for _ in range(4):
        client.create_run(experiment.experiment_id)
    monkeypatch.setattr(run_reader, "_PAGE", 3)
    requests = Requests(monkeypatch)
    found = read_experiment(sqlite_uri, "e")
    assert [run.run_id for run in found.runs] == ours
    assert found.num_foreign == 4
    assert requests.filters == [""] * 4  # 11 runs in pages of 3, and none for a run of its own


def test_a_part_holds_what_is_below_and_what_it_was_made_from(sqlite_uri: str) -> None:
    tracker = Tracker(sqlite_uri, "e")
    shared = tracker.publish(RECORD, name="shared", tags={})
    mine = tracker.start_group("mine", {"bnnas.stage": "sweep"}, {})
    other = tracker.start_group("other", {"bnnas.stage": "sweep"}, {})
    cell = tracker.start_group(
        "cell", {"bnnas.stage": "cell", "bnnas.input.supernet": shared}, {}, parent_run_id=mine
    )
    found = read_experiment(sqlite_uri, "e")
    assert {run.run_id for run in found.part(mine).runs} == {mine, cell, shared}
    assert {run.run_id for run in found.part(other).runs} == {other}
    assert found.part(mine[:12]).runs == found.part(mine).runs


def test_a_run_that_is_not_there_or_not_one_is_said(sqlite_uri: str) -> None:
    tracker = Tracker(sqlite_uri, "e")
    for number in range(17):  # more than there are first digits
        tracker.start_group(f"group {number}", {"bnnas.stage": "sweep"}, {})
    found = read_experiment(sqlite_uri, "e")
    for digits in ("0" * 32, "", "*"):
        with pytest.raises(TrackingError, match=f"has no run .*{re.escape(repr(digits))}"):
            found.part(digits)
    firsts = Counter(run.run_id[0] for run in found.runs)
    digit, count = firsts.most_common(1)[0]
    with pytest.raises(TrackingError, match=f"has {count} runs .*{digit!r}: take one from"):
        found.part(digit)


@pytest.mark.parametrize("num_parts", [1, 1000])
def test_what_another_group_has_made_is_part_of_all_that_name_it(
    sqlite_uri: str, num_parts: int
) -> None:
    tracker = Tracker(sqlite_uri, "e")
    first = tracker.start_group("first", {"bnnas.stage": "sweep"}, {})
    shared = tracker.publish(RECORD, name="shared", tags={"mlflow.parentRunId": first})
    others = [hashlib.sha256(bytes(number)).hexdigest() for number in range(num_parts - 1)]
    second = GroupRun("second", tracker, {"bnnas.stage": "sweep"}, {}, group="second")
    run_id = second.finish(parts=[*others, RECORD.fingerprint])
    assert run_id is not None
    found = read_experiment(sqlite_uri, "e")
    assert len(found.by_id[run_id].part_fingerprints) == num_parts
    assert {run.run_id for run in found.part(run_id).runs} == {run_id, shared}
    assert {run.run_id for run in found.part(first).runs} == {first, shared}


def test_an_experiment_that_is_not_there_names_the_near_ones(sqlite_uri: str) -> None:
    Tracker(sqlite_uri, "ablation").check()
    with pytest.raises(TrackingError, match="no experiment 'ablaton': there are 'ablation'"):
        read_experiment(sqlite_uri, "ablaton")
    client = MlflowClient(sqlite_uri)
    experiment = client.get_experiment_by_name("ablation")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="'ablation' .* was deleted: restore it with"):
        read_experiment(sqlite_uri, "ablation")


def test_reading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="There is no MLflow database"):
        read_experiment(f"sqlite:///{tmp_path}/deep/mlflow.db", "e")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrackingError, match="no MLflow server or database"):
        read_experiment("file:///somewhere", "e")


def test_a_file_of_another_program_stays_as_it_is(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with contextlib.closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
        database.commit()
    (tmp_path / "notes.db").write_text("notes", encoding="utf-8")
    for file in (foreign, tmp_path / "notes.db"):
        before = file.read_bytes()
        with pytest.raises(TrackingError, match="is no MLflow database, and stays as it is"):
            read_experiment(f"sqlite:///{file}", "e")
        assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"foreign.db", "notes.db"}


def test_a_database_that_is_busy_is_not_taken_for_another_programs(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tracker(sqlite_uri, "e").check()

    def locked(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sqlite3, "connect", locked)  # MLflow's own connections go another way
    assert read_experiment(sqlite_uri, "e").runs == ()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not let us in .*MLFLOW_TRACKING_USERNAME"),
        (403, "does not let us in .*MLFLOW_TRACKING_TOKEN"),
        (404, "is no MLflow server"),
    ],
)
def test_a_server_that_refuses_is_told_from_one_that_is_away(status: int, words: str) -> None:
    with web_server(status, "") as uri, pytest.raises(TrackingError, match=words) as caught:
        read_experiment(uri.replace("//", "//me:pass@word@"), "e")
    assert "word" not in str(caught.value).replace("_PASSWORD", "")
    assert "\n" not in str(caught.value)


def test_a_record_that_is_damaged_or_gone_is_none(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = Tracker(sqlite_uri, "e").publish(RECORD, name="supernet", tags={})
    path = tmp_path / "tracking" / "artifacts" / run_id / "artifacts" / "record.json"
    for text in ("", '{"kind": ', "[1, 2]", "\xff\xfe", None):
        if text is None:
            path.unlink()
        else:
            path.write_bytes(text.encode("latin-1"))
        found = read_experiment(sqlite_uri, "e")
        assert found.record(found.runs[0]) is None
    assert "record.json of the run supernet cannot be read" in caplog.text


def test_infinity_is_read_as_it_was_logged(sqlite_uri: str) -> None:
    tracker = Tracker(sqlite_uri, "e")
    run_id = tracker.start_group("g", {"bnnas.stage": "cell"}, {})
    metrics = {"up": math.inf, "down": -math.inf, "none": math.nan, "some": 1e300}
    tracker.finish_group(run_id, metrics=metrics)
    (run,) = read_experiment(sqlite_uri, "e").runs
    assert math.isnan(run.metrics["none"])
    assert [run.metrics[name] for name in ("up", "down", "some")] == [math.inf, -math.inf, 1e300]
