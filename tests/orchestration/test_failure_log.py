"""The last failure of a stage, until it has succeeded."""

from __future__ import annotations

from pathlib import Path

from orchestration.store.failure_log import FailureLog, FailureNote

NOTE = FailureNote("retrain", "retrain 0 1", "the fan is loud", 12.5, "owner-1")


def test_the_last_failure_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    log = FailureLog(tmp_path)
    assert log.get("abc") is None
    log.forget("abc")
    log.put("abc", NOTE)
    later = FailureNote("retrain", "retrain 0 1", "the disk is full", 13.5, "owner-2")
    log.put("abc", later)
    assert FailureLog(str(tmp_path)).get("abc") == later
    assert log.get("def") is None
    log.forget("abc")
    assert log.get("abc") is None
    assert list((tmp_path / "failures").iterdir()) == []
