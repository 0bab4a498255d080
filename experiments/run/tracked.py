"""The runs of a result in hand, as MLflow has them: the same projection, without asking it.

So the report at the end of a command costs what the experiment holds, however many runs are tracked
beside it, and a tracking server that is away costs no table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.plan.chain import inputs_of
from experiments.run.about import about
from experiments.run.groups import Ending, chain_run, run_key
from experiments.run.kinds import experiment_run
from experiments.run.provenance import provenance, source_tags
from experiments.run.result import ChainResult, Result
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.params import flatten_params
from orchestration.tracking.reader import TrackedRun, tracked_run
from orchestration.tracking.tracker import CELL, INPUT, PARENT, Tracker, part_tags


@dataclass(frozen=True)
class RunsInHand:
    """What `orchestration.tracking.reader` would read of an experiment.

    Attributes:
        runs: its own, its cells' and its stages', the oldest first.
        records: run id → record of a stage.
        folder: with figures and tables, in a folder for each experiment and each cell.
    """

    runs: tuple[TrackedRun, ...]
    records: Mapping[str, StageRecord]
    folder: Path

    def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        """A finished stage's config, history and result; None for what is no stage."""
        record = self.records.get(run.run_id)
        return None if record is None else asdict(record)

    def document(self, run: TrackedRun, path: str) -> str | None:
        """The text of a file; None where there is none."""
        files = self._files(run, path)
        return files[0].read_text("utf-8") if files else None

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        """The PNGs whose names begin so."""
        return [file.read_bytes() for file in self._files(run, f"{prefix}*.png")]

    def _files(self, run: TrackedRun, pattern: str) -> list[Path]:
        return sorted((self.folder / run.tags.get(CELL, run.name)).glob(pattern))


def tracked_runs(result: Result, tracker: Tracker) -> RunsInHand:
    """The runs of an experiment, its cells and its stages.

    A run that MLflow could not be told of has the first digits of its fingerprint as its id.
    """
    result = replace(result, chains=tuple(map(_with_run_ids, result.chains)))
    runs: list[TrackedRun] = []
    source = source_tags(provenance())
    top = experiment_run(result.plan, tracker, source)
    top_id = None
    if top is not None:
        top_id = result.run_id or run_key(top.group)
        runs.append(_group(top, top_id, result.ending))
    records: dict[str, StageRecord] = {}
    for each in result.chains:
        if (cell := chain_run(each.chain, tracker, source, top_id)) is not None:
            runs.append(_group(cell, each.run_id or run_key(cell.group), each.ending))
        chain = (*each.chain.given, *each.records)
        for number, (stage, record) in enumerate(zip(each.stages, chain, strict=bool(chain))):
            run_id = str(stage.mlflow_run_id)
            if run_id not in records:
                inputs = {
                    f"{INPUT}{earlier.kind}": str(earlier.mlflow_run_id)
                    for earlier in each.stages[:number]
                    if earlier.kind in inputs_of(record)
                }
                records[run_id] = record
                runs.append(
                    tracked_run(
                        record,
                        name=stage.name,
                        run_id=run_id,
                        about=about(record.kind, record.config),
                        tags={CELL: each.chain.name, **inputs},
                        parent_run_id=top_id,
                    )
                )
    ordered = sorted(runs, key=lambda run: run.started_at)
    return RunsInHand(tuple(ordered), records, result.figures.parent)


def _with_run_ids(each: ChainResult) -> ChainResult:
    """All its stages have the id of a run, of one that MLflow does not have, too."""
    stages = (
        replace(stage, mlflow_run_id=stage.mlflow_run_id or run_key(stage.fingerprint))
        for stage in each.stages
    )
    return replace(each, stages=tuple(stages))


def _group(run: GroupRun, run_id: str, ending: Ending) -> TrackedRun:
    parent = {} if run.parent_run_id is None else {PARENT: run.parent_run_id}
    started_at = min((record.started_at for record in ending.records), default=time.time())
    parts = part_tags(record.fingerprint for record in ending.records)
    return TrackedRun(
        run_id=run_id,
        name=run.name,
        status=ending.status,
        params=flatten_params({**run.params, **ending.params}),
        metrics=dict(ending.metrics),
        tags={**run.tags, **parent, **parts, **ending.tags},
        started_at=started_at,
    )
