"""The MLflow runs above those of stages: of a cell, a sweep, a correlation study."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.experiment import CellConfig, Experiment
from experiments.config.load import AXES, value_at
from experiments.plan.cells import CellPlan
from experiments.plan.graph import ExperimentPlan, cell_group
from orchestration.store.json_text import JSON
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.links import compare_page
from orchestration.tracking.models import register_winner
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import CELL, INPUT, STAGE, Tracker, TrackingError

_log = logging.getLogger(__name__)
NOTE = "mlflow.note.content"


def cell_run(
    cell: CellPlan,
    tracker: Tracker,
    *,
    tags: Mapping[str, str],
    part_of: str = "",
    parent_run_id: str | None = None,
    axes: Mapping[str, JSON] | None = None,
) -> GroupRun:
    """The run of a cell.

    It is found by what decides the cell's result and by its name, so that neither a restart nor
    other workers make a second one; `part_of` keeps apart the sweeps that share a cell.
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
        group=cell_group(cell, part_of=part_of),
        parent_run_id=parent_run_id,
    )


def finish_cell(run: GroupRun, done_stages: Sequence[Done], figures: Path) -> str | None:
    """End a cell's run with what was found; returns its id, None if MLflow could not be told."""
    records = [done.record for done in done_stages]
    return run.finish(
        metrics=cell_metrics(records),
        artifacts=figures,
        params=winner_param(records),
        tags={
            **{f"{INPUT}{done.stage.kind}": done.run_id for done in done_stages if done.run_id},
            NOTE: note([(run.name, retrained_of(records))]),
        },
        parts=[record.fingerprint for record in records],
    )


def experiment_run(
    plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]
) -> GroupRun | None:
    """The run of a whole experiment; a detector has none above that of its stage."""
    experiment = plan.experiment
    if experiment.kind == "detect":
        return None
    if experiment.kind == "run":
        return cell_run(plan.cells[0], tracker, tags=tags)
    of_kind = _sweep_params if experiment.kind == "sweep" else _study_params
    return GroupRun(
        name=experiment.name,
        tracker=tracker,
        tags={STAGE: experiment.kind, **tags},
        params=of_kind(plan),
        group=plan.group,
    )


def run_key(fingerprint: str) -> str:
    """What a run's id is kept under in the tags of the run above it."""
    return fingerprint[:12]


def axes_of(experiment: Experiment, cell: CellConfig) -> dict[str, Any]:
    """The values of a sweep's further axes in one of its cells, by config path."""
    return {path: value_at(cell, path) for path in experiment.axes if path not in AXES.values()}


def cell_metrics(
    chain: Sequence[StageRecord], others: Iterable[StageRecord] = ()
) -> dict[str, float]:
    """The numbers of a cell: of its retraining, and what all its stages cost.

    Args:
        chain: the stages that led to the result, the retraining and the detector among them.
        others: the retrainings of the random baseline.
    """
    retrained = retrained_of(chain)
    baseline = list(others)
    # The search may choose what the baseline has drawn: that was retrained once.
    stages = {record.fingerprint: record for record in (*chain, *baseline)}.values()
    metrics = {name: retrained.metrics[name] for name in ("top1", "flops", "params")}
    metrics["val_top1"] = retrained.history[-1]["val/top1"]
    metrics["device_hours"] = sum(record.device_hours for record in stages)
    metrics["wall_s"] = sum(record.wall_s for record in stages)
    for record in chain:
        metrics |= {k: v for k, v in record.metrics.items() if k.startswith("coco/")}
    if baseline:
        metrics["random_baseline"] = max(record.metrics["top1"] for record in baseline)
    return metrics


def winner_param(chain: Sequence[StageRecord]) -> dict[str, JSON]:
    """The architecture that a cell's search has found, as a param of its run."""
    return {"winner": retrained_of(chain).result["arch"]}


def retrained_of(chain: Iterable[StageRecord]) -> StageRecord:
    """The retraining of the architecture that a cell's search has found."""
    return next(record for record in chain if record.kind == "retrain")


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


def compare_link(tracker: Tracker, run_ids: Sequence[str]) -> str:
    """To MLflow's own page that compares runs, in Markdown; empty while it is away."""
    try:
        with tracker.session():
            page = compare_page(tracker.experiment_id(), run_ids)
    except TrackingError:
        return ""
    return f"[Compare the cells]({page.removeprefix('/')})\n\n"


def register(tracker: Tracker, sweep: str, cell: str, retrain_run_id: str) -> None:
    """Register the network of a sweep's best cell as a version of the sweep's model."""
    try:
        register_winner(
            tracker,
            name=sweep,
            run_id=retrain_run_id,
            description=f"Found by the cell {cell} of the sweep {sweep}.",
        )
    except TrackingError as error:
        _log.warning("The winner of %s is not registered in MLflow: %s", sweep, error)


def _sweep_params(plan: ExperimentPlan) -> dict[str, JSON]:
    experiment = plan.experiment
    first = experiment.cells[0]
    short = {path: name for name, path in AXES.items()}
    grid: dict[str, JSON] = {
        short.get(path, path): list(values) for path, values in experiment.axes.items()
    }
    return {
        "grid": grid,
        "seeds": sorted({cell.seed for cell in experiment.cells}),
        "space": Path(first.space).stem,
        "data": first.data.name,
        "max_flops": first.search.max_flops,
        "retrain_epochs": first.retrain.epochs,
        "num_random": first.random_baseline.num_architectures,
    }


def _study_params(plan: ExperimentPlan) -> dict[str, JSON]:
    first = plan.experiment.cells[0]
    return {
        "space": plan.cells[0].space.name,
        "data": first.data.name,
        "seeds": [cell.config.seed for cell in plan.cells],
        "num_architectures": len(plan.archs),
        "num_bins": first.correlate.num_bins,
        "indicators": list(first.correlate.indicators),
        "supernet_epochs": first.supernet.epochs,
        "trainable": first.supernet.trainable,
        "retrain_epochs": first.retrain.epochs,
    }
