"""How far an experiment is: what is done, running, failed or interrupted, read from its storage.

No cluster is asked. A result is done, a claim that gives signs of life is running, why a stage has
failed is written beside the results, and where a job has left something to go on from, it was
interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from experiments.plan.forecast import num_epochs
from experiments.plan.graph import PlannedStage, StageList
from orchestration.store.claims import BEAT_S, Claims, Holder
from orchestration.store.failure_log import FailureLog, FailureNote
from orchestration.store.stage import JOBS
from orchestration.store.storage import Storage

State = Literal["done", "running", "failed", "interrupted", "missing"]
MemberState = Literal["done", "running", "failed", "interrupted", "waiting"]


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is.

    Attributes:
        listed: which stage, and the members that need it.
        holder: who makes it, or was about to.
        is_silent: whether that one gives no sign of life.
        failure: why it failed last.
        is_begun: whether a job has left something that it goes on from.
    """

    listed: PlannedStage
    holder: Holder | None = None
    is_silent: bool = False
    failure: FailureNote | None = None
    is_begun: bool = False

    @property
    def state(self) -> State:
        """A stage that is made once more after a failure is running."""
        if self.listed.record is not None:
            return "done"
        if self.holder is not None and not self.is_silent:
            return "running"
        if self.failure is not None:
            return "failed"
        return "interrupted" if self.is_begun else "missing"

    @property
    def machine(self) -> str | None:
        """Where it is made."""
        return None if self.holder is None else self.holder.machine.partition("/")[0]

    @property
    def epoch(self) -> int:
        """The epochs, or the rounds in which architectures are scored, that are finished."""
        return 0 if self.holder is None else int(self.holder.note.get("epoch", 0))

    @property
    def num_epochs(self) -> int | None:
        """How many there will be at most; None where it is no matter of epochs."""
        return num_epochs(self.listed.stage)

    @property
    def failed_at(self) -> datetime | None:
        """When it failed last."""
        return None if self.failure is None else datetime.fromtimestamp(self.failure.failed_at, UTC)

    def to_json(self) -> dict[str, Any]:
        """An entry of `stages` in `bnnas status --json`."""
        is_running, has_failed = self.state == "running", self.state == "failed"
        return {
            "kind": self.listed.stage.kind,
            "name": self.listed.name,
            "fingerprint": self.listed.fingerprint,
            "status": self.state,
            "cells": list(self.listed.members),
            "machine": self.machine if is_running else None,
            "epoch": self.epoch if is_running else None,
            "num_epochs": self.num_epochs,
            "error": self.failure.message if has_failed and self.failure else None,
            "failed_at": self.failed_at.isoformat() if has_failed and self.failed_at else None,
        }


@dataclass(frozen=True)
class ExperimentStatus:
    """How far an experiment is; stages in the order of the list, members likewise."""

    listed: StageList
    stages: tuple[StageStatus, ...]
    members: Mapping[str, MemberState]

    def count(self, state: State) -> int:
        """How many stages are in that state."""
        return sum(stage.state == state for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """What `bnnas status CONFIG --json` prints."""
        return {
            "name": self.listed.name,
            "stages": [stage.to_json() for stage in self.stages],
            "cells": [{"name": name, "status": state} for name, state in self.members.items()],
            "num_done": self.count("done"),
            "num_running": self.count("running"),
            "num_failed": self.count("failed"),
            "num_interrupted": self.count("interrupted"),
            "num_missing": self.count("missing"),
        }


def look_up(
    listed: StageList, storage_path: str, *, patience_s: float = 2 * BEAT_S
) -> ExperimentStatus:
    """Look every stage up in the storage.

    Whether a process lives is known at once on its own machine only; where others are said to be at
    work, it takes `patience_s` seconds to see whether they are.
    """
    claims, failures = Claims(storage_path), FailureLog(storage_path)
    missing = [one for one in listed.stages if one.record is None and one.is_known]
    holders = _holders(claims, missing)
    silent: set[str] = set()
    here = Holder.this_process().machine
    if any(holder.machine != here for holder in holders.values()):
        time.sleep(patience_s)
        later = _holders(claims, missing)
        silent = {key for key, holder in later.items() if holder == holders.get(key)}
        silent = {key for key in silent if later[key].machine != here}
        holders = later
    begun = {info.base_name for info in Storage(storage_path).list(JOBS)}
    stages = []
    for one in listed.stages:
        key = one.fingerprint
        if key is None or one.record is not None:
            stages.append(StageStatus(one))
        else:
            is_begun = one.stage.job_name in begun
            stages.append(
                StageStatus(one, holders.get(key), key in silent, failures.get(key), is_begun)
            )
    members = {name: _member_state(name, stages) for name in listed.members}
    return ExperimentStatus(listed, tuple(stages), members)


def _holders(claims: Claims, stages: list[PlannedStage]) -> dict[str, Holder]:
    holders = {one.stage.fingerprint: claims.holder(one.stage.fingerprint) for one in stages}
    return {key: holder for key, holder in holders.items() if holder is not None}


def _member_state(name: str, stages: list[StageStatus]) -> MemberState:
    states = {stage.state for stage in stages if name in stage.listed.members}
    if "running" in states:
        return "running"
    if "failed" in states:
        return "failed"
    if "interrupted" in states:
        return "interrupted"
    return "done" if states == {"done"} else "waiting"
