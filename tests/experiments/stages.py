"""Stages that lie in the store without having been made: what a test says they found."""

from __future__ import annotations

from typing import Any

from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

EPOCH_S = 30.0


def record_of(stage: Stage, **changes: Any) -> StageRecord:
    """A record as a finished stage leaves one: so many epochs of half a minute, and an hour."""
    section = stage.config.get(stage.kind, {})
    epochs = [{"epoch": float(n), "train/epoch_s": EPOCH_S} for n in range(1, 3)]
    values: dict[str, Any] = {
        "kind": stage.kind,
        "fingerprint": stage.fingerprint,
        "config": stage.config,
        "inputs": stage.inputs,
        "result": {"arch": stage.config.get("arch")},
        "history": [] if section.get("searcher") == "exact" else epochs,
        "metrics": {},
        "device_hours": 1.0,
        "wall_s": 3600.0,
        "started_at": 0.0,
        "finished_at": 3600.0,
    }
    return StageRecord(**{**values, **changes})


def put(store: StageStore, stage: Stage, **changes: Any) -> StageRecord:
    """Have the store hold such a record."""
    return store.put(record_of(stage, **changes))
