"""The runs of a result in hand, as MLflow has them: the same projection, without asking it.

So the report at the end of a command costs what the experiment holds, however many runs are tracked
beside it, and a tracking server that is away costs no table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.plan.tasks import inputs_of
from experiments.run.groups import (
    axes_of,
    cell_metrics,
    cell_run,
    experiment_run,
    run_key,
    winner_param,
)
from experiments.run.provenance import provenance, source_tags
from experiments.run.result import Result, TaskResult
from orchestration.store.json_text import JSON
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
    runs: list[TrackedRun] = []
    source = source_tags(provenance())
    top = experiment_run(result.plan, tracker, source)
    top_id = None
    if top is not None:
        top_id = result.run_id or run_key(top.group)
        params: dict[str, JSON] = {}
        inputs: dict[str, str] = {}
        winner = result.winner
        if winner is not None and result.kind == "run":
            params, inputs = winner_param(winner.records), _inputs(winner)
        elif winner is not None:
            params = {"winner": winner.task.name}
        status = "FAILED" if result.failures else "FINISHED"
        runs.append(_group(top, top_id, status, result.metrics, params, inputs, result.records))
    records: dict[str, StageRecord] = {}
    for each in result.tasks:
        ids = _ids(each)
        if result.kind == "sweep" and each.task.is_cell:
            runs.append(_cell(result, each, tracker, top_id, source))
        chain = (*each.task.given, *each.records)
        for number, (stage, record) in enumerate(zip(each.stages, chain, strict=bool(chain))):
            run_id = ids[number]
            if run_id not in records:
                inputs = {
                    f"{INPUT}{earlier.kind}": ids[place]
                    for place, earlier in enumerate(chain[:number])
                    if earlier.kind in inputs_of(record)
                }
                records[run_id] = record
                runs.append(
                    tracked_run(
                        record,
                        name=str(stage["name"]),
                        run_id=run_id,
                        tags={CELL: each.task.name, **inputs},
                        parent_run_id=top_id,
                    )
                )
    ordered = sorted(runs, key=lambda run: run.started_at)
    return RunsInHand(tuple(ordered), records, result.figures.parent)


def _cell(
    result: Result,
    cell: TaskResult,
    tracker: Tracker,
    parent_run_id: str | None,
    source: Mapping[str, str],
) -> TrackedRun:
    assert cell.task.cell is not None
    run = cell_run(
        cell.task.cell,
        tracker,
        tags=source,
        part_of=result.plan.group,
        parent_run_id=parent_run_id,
        axes=axes_of(result.plan.experiment, cell.task.cell.config),
    )
    run_id = cell.run_id or run_key(run.group)
    if not cell.records:
        return _group(run, run_id, "FAILED", {}, {}, {"bnnas.error": cell.error or ""}, ())
    return _group(
        run,
        run_id,
        "FINISHED",
        cell_metrics(cell.records),
        winner_param(cell.records),
        _inputs(cell),
        cell.records,
    )


def _group(
    run: GroupRun,
    run_id: str,
    status: str,
    metrics: Mapping[str, float],
    params: Mapping[str, JSON],
    tags: Mapping[str, str],
    records: Sequence[StageRecord],
) -> TrackedRun:
    parent = {} if run.parent_run_id is None else {PARENT: run.parent_run_id}
    started_at = min((record.started_at for record in records), default=time.time())
    parts = part_tags(record.fingerprint for record in records)
    return TrackedRun(
        run_id=run_id,
        name=run.name,
        status=status,
        params=flatten_params({**run.params, **params}),
        metrics=dict(metrics),
        tags={**run.tags, **parent, **parts, **tags},
        started_at=started_at,
    )


def _inputs(cell: TaskResult) -> dict[str, str]:
    pairs = zip(cell.stages, _ids(cell), strict=True)
    return {f"{INPUT}{stage['kind']}": run_id for stage, run_id in pairs}


def _ids(task: TaskResult) -> list[str]:
    return [stage["mlflow_run_id"] or run_key(stage["fingerprint"]) for stage in task.stages]
