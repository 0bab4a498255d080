"""The MLflow runs above those of stages: of a cell, a sweep, a correlation study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.plan.cell_plan import CellPlan
from experiments.plan.chain import Chain
from experiments.plan.graph import ExperimentPlan
from orchestration.store.json_text import JSON
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.tracker import CELL, ERROR, INPUT, STAGE, Tracker

_NOTE = "mlflow.note.content"


@dataclass(frozen=True)
class ShownStage:
    """A stage of a finished chain, as `--json` shows it.

    Attributes:
        kind: what it is.
        name: what people call it.
        fingerprint: its own.
        cached: whether it was there before, or somebody else has made it.
        mlflow_run_id: its run; None where MLflow was away.
    """

    kind: str
    name: str
    fingerprint: str
    cached: bool
    mlflow_run_id: str | None


@dataclass(frozen=True)
class Ending:
    """What the MLflow run of a cell or an experiment ends with, apart from its figures.

    Attributes:
        metrics: its numbers.
        params: what was found.
        inputs: kind of stage → id of the run that it comes from.
        records: the stages that its numbers come from.
        error: why it has none.
        status: MLflow's.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, JSON] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[StageRecord] = ()
    error: str | None = None
    status: Literal["FINISHED", "FAILED"] = "FINISHED"

    @property
    def tags(self) -> dict[str, str]:
        """The tags that say what it comes from, or what went wrong."""
        inputs = {f"{INPUT}{kind}": run_id for kind, run_id in self.inputs.items()}
        return inputs if self.error is None else {**inputs, ERROR: self.error}

    def show(
        self,
        run: GroupRun,
        figures: Path | None,
        note: str | None,
        run_ids: Mapping[str, str] | None = None,
    ) -> str | None:
        """End a run so; returns its id, None where MLflow could not be told.

        `note` is its description, `run_ids` are the runs below it as `GroupRun.finish` wants them.
        """
        return run.finish(
            self.status,
            metrics=self.metrics,
            artifacts=figures,
            params=self.params,
            tags=self.tags if note is None else {**self.tags, _NOTE: note},
            parts=[record.fingerprint for record in self.records],
            run_ids=run_ids,
        )


def cell_run(
    cell: CellPlan,
    tracker: Tracker,
    *,
    group: str,
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
    axes: Mapping[str, JSON] | None = None,
) -> GroupRun:
    """The run of a cell.

    It is found by `group`, which is made of what decides the cell's result, of its name, and of the
    sweep that it is part of: neither a restart nor other workers make a second one.
    """
    config = cell.config
    # MLflow compares runs by the first three params that differ, in alphabetical order. In a
    # sweep these are what its grid is made of.
    params: dict[str, JSON] = {
        "trainable": config.supernet.trainable,
        "indicator": config.search.indicator,
        "epochs": config.supernet.epochs,
        "seed": config.seed,
        "space": cell.space.name,
        "data": config.data.name,
        "max_flops": config.search.max_flops,
        "retrain_epochs": config.retrain.epochs,
        **(axes or {}),
    }
    return GroupRun(
        name=config.name,
        tracker=tracker,
        tags={CELL: config.name, STAGE: "cell", **tags},
        params=params,
        group=group,
        parent_run_id=parent_run_id,
    )


def group_run(
    plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str], params: Mapping[str, JSON]
) -> GroupRun:
    """The run of an experiment that is more than one cell."""
    assert plan.group is not None  # only a detector has none
    return GroupRun(
        name=plan.experiment.name,
        tracker=tracker,
        tags={STAGE: plan.experiment.kind, **tags},
        params=params,
        group=plan.group,
    )


def chain_run(
    chain: Chain, tracker: Tracker, tags: Mapping[str, str], parent_run_id: str | None
) -> GroupRun | None:
    """The run of a cell within a sweep's; None of a chain that has none of its own."""
    if chain.group is None:
        return None
    assert chain.cell is not None  # nothing else has one
    return cell_run(
        chain.cell,
        tracker,
        group=chain.group,
        tags=tags,
        parent_run_id=parent_run_id,
        axes=chain.axes,
    )


def cell_ending(records: Sequence[StageRecord], stages: Iterable[ShownStage]) -> Ending:
    """That of a cell that was made; a run that MLflow was not told of is not among its inputs."""
    return Ending(
        metrics=cell_metrics(records),
        params=winner_param(records),
        inputs=run_ids_by_kind(stages),
        records=records,
    )


def run_ids_by_kind(stages: Iterable[ShownStage]) -> dict[str, str]:
    """Kind of stage → id of its run, where MLflow was told of it."""
    return {stage.kind: stage.mlflow_run_id for stage in stages if stage.mlflow_run_id}


def run_key(fingerprint: str) -> str:
    """What a run's id is kept under in the tags of the run above it."""
    return fingerprint[:12]


def cell_metrics(
    records: Sequence[StageRecord], others: Iterable[StageRecord] = ()
) -> dict[str, float]:
    """The numbers of a cell: of its retraining, and what all its stages cost.

    Args:
        records: the stages that led to the result, the retraining and the detector among them.
        others: the retrainings of the random baseline.
    """
    retrained = retrained_of(records)
    baseline = list(others)
    # The search may choose what the baseline has drawn: that was retrained once.
    stages = {record.fingerprint: record for record in (*records, *baseline)}.values()
    metrics = {name: retrained.metrics[name] for name in ("top1", "flops", "params")}
    metrics["val_top1"] = retrained.history[-1]["val/top1"]
    metrics["device_hours"] = sum(record.device_hours for record in stages)
    metrics["wall_s"] = sum(record.wall_s for record in stages)
    for record in records:
        metrics |= {k: v for k, v in record.metrics.items() if k.startswith("coco/")}
    if baseline:
        metrics["random_baseline"] = max(record.metrics["top1"] for record in baseline)
    return metrics


def winner_param(records: Sequence[StageRecord]) -> dict[str, JSON]:
    """The architecture that a cell's search has found, as a param of its run."""
    return {"winner": retrained_of(records).result["arch"]}


def retrained_of(records: Iterable[StageRecord]) -> StageRecord:
    """The retraining of the architecture that a cell's search has found."""
    return next(record for record in records if record.kind == "retrain")


def note(rows: Iterable[tuple[str, StageRecord | str]]) -> str:
    """Retrained networks by name, or why there is none, in Markdown: a run's description."""
    lines = ["| | architecture | FLOPs | params | test top-1 |", "|---|---|--:|--:|--:|"]
    for name, retrained in rows:
        if isinstance(retrained, str):
            lines.append(f"| {name} | failed: {retrained} | | | |")
            continue
        metrics = retrained.metrics
        lines.append(
            f"| {name} | `{retrained.result['arch']}` | {metrics['flops']:,.0f} | "
            f"{metrics['params']:,.0f} | {metrics['top1']:.2%} |"
        )
    return "\n".join(lines)
