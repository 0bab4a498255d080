"""Run a correlation study: supernets and scores, and every retraining, as Ray Tune trials.

The stages are those that runs and sweeps make, from the same store: a study of the networks that a
sweep has retrained costs their scores alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.load import dump_config
from experiments.config.places import local_folder
from experiments.figures.study import Row, Study
from experiments.plan.cell import CellPlan
from experiments.plan.study import CorrelationPlan
from experiments.run.drivers import num_drivers, run_drivers, why_failed
from experiments.run.provenance import provenance
from experiments.run.table_display import SweepDisplay
from experiments.run.tasks import RetrainTask, ScoreTask
from experiments.run.workbench import check_places, connected, source_tags
from experiments.stages.supernet import recorded_scores
from nas.cost import COST_TABLES, gather_sum
from nas.indicators import INDICATORS, additive_scores
from nas.space import Architecture, format_architecture
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.tracker import STAGE, Tracker


@dataclass(frozen=True)
class CorrelationResult:
    """A study that has come to its end.

    Attributes:
        plan: what was asked for.
        study: what was found, of the architectures that have all their measurements; None where
            too few have.
        failures: what failed, by name, and why.
        executed: fingerprints of the stages that were made.
        cached: of those that were there before.
        run_id: the study's MLflow run.
        folder: figure, table and config, on this machine.
    """

    plan: CorrelationPlan
    study: Study | None
    failures: Mapping[str, str]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    run_id: str
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """What `bnnas correlate --json` prints."""
        study = self.study
        return {
            "status": "failed" if self.failures else "done",
            "name": self.plan.config.name,
            "seeds": list(self.plan.seeds),
            "metrics": {} if study is None else study.metrics,
            "architectures": [] if study is None else study.table(),
            "executed": len(self.executed),
            "cached": len(self.cached),
            "failed": len(self.failures),
            "failures": dict(self.failures),
            "mlflow_run_id": self.run_id,
            "figures": str(self.folder),
        }


def run_correlation(
    plan: CorrelationPlan,
    tracker: Tracker,
    display: SweepDisplay,
    *,
    num_at_once: int | None = None,
) -> CorrelationResult:
    """Have or make everything that the study consists of, and judge the indicators.

    Raises ValueError (a wrong request) before anything is started where that can be known. A
    retraining that fails leaves its architecture out.
    """
    config = plan.config
    check_places(config, tracker)
    store = StageStore(config.storage.path)
    tasks: list[ScoreTask | RetrainTask] = [
        ScoreTask(cell, plan.scores(cell)) for cell in plan.cells
    ]
    tasks += [RetrainTask(cell, arch, "correlate") for arch in plan.archs for cell in plan.cells]
    num_missing = sum(not task.is_there(store) for task in tasks)
    with ExitStack() as stack:
        if num_missing:
            stack.enter_context(connected(config, display.say))
            num_at_once = num_at_once or num_drivers(config, sharing=1, num_missing=num_missing)
        code = provenance()
        run = _group_run(plan, tracker, source_tags(code))
        run_id = run.start()
        with run.marked():
            drivers = run_drivers(
                tasks,
                tracker,
                display,
                title=config.name,
                parent_run_id=run_id,
                code=code,
                num_at_once=num_at_once or 1,
            )
            failures = {}
            for task, end in zip(tasks, drivers.ended, strict=True):
                if error := why_failed(end, is_there=task.is_there(store)):
                    failures[f"{task.label}, seed {task.config.seed}"] = error
            study = collect_study(plan, store)
            folder = _draw(plan, study)
        run.finish(
            "FAILED" if failures else "FINISHED",
            metrics={} if study is None else study.metrics,
            artifacts=folder,
            parts=[stage.fingerprint for stage in plan.stages],
        )
    return CorrelationResult(
        plan, study, failures, drivers.executed, drivers.cached, run_id, folder
    )


def collect_study(plan: CorrelationPlan, store: StageStore) -> Study | None:
    """The study of what is in the store; None with fewer than three architectures."""
    of_seeds = [_scores(plan, cell, store) for cell in plan.cells]
    scores = [of_seed for of_seed in of_seeds if of_seed is not None]
    if len(scores) < len(plan.cells):
        return None
    rows = []
    for index, arch in enumerate(plan.archs):
        found = [store.get(cell.retrain(arch).fingerprint) for cell in plan.cells]
        records = [record for record in found if record is not None]
        if len(records) == len(plan.cells):
            rows.append(_row(plan, arch, index, records, scores))
    if len(rows) < 3:
        return None
    return Study(tuple(rows), plan.seeds, plan.config.correlate.num_bins)


def _row(
    plan: CorrelationPlan,
    arch: Architecture,
    index: int,
    records: list[StageRecord],
    scores: list[dict[str, list[float]]],
) -> Row:
    space = plan.cells[0].space
    costs = {name: table(space).of(arch) for name, table in COST_TABLES.items()}
    return Row(
        arch=format_architecture(arch),
        flops=costs["flops"],
        params=costs["params"],
        top1=tuple(record.metrics["top1"] for record in records),
        test_loss=tuple(record.metrics["test_loss"] for record in records),
        scores={
            name: tuple(of_seed[name][index] for of_seed in scores)
            for name in plan.config.correlate.indicators
        },
    )


def _scores(
    plan: CorrelationPlan, cell: CellPlan, store: StageStore
) -> dict[str, list[float]] | None:
    """Indicator → score of every architecture, for one seed; None where one is missing."""
    found: dict[str, list[float]] = {}
    bn_scores_LN = None
    if cell.supernet is not None:
        supernet = store.get(cell.supernet.fingerprint)
        if supernet is None:
            return None
        bn_scores_LN = recorded_scores(supernet.history[-1], cell.space)
    for name in plan.config.correlate.indicators:
        if INDICATORS[name].additive:
            table_LN = additive_scores(
                name, cell.space, bn_scores_LN=bn_scores_LN, seed=cell.config.seed
            )
            found[name] = np.asarray(gather_sum(table_LN, plan.archs)).tolist()
            continue
        record = store.get(cell.score(name, plan.archs).fingerprint)
        if record is None:
            return None
        found[name] = list(record.result["scores"])
    return found


def _group_run(plan: CorrelationPlan, tracker: Tracker, tags: Mapping[str, str]) -> GroupRun:
    config = plan.config
    return GroupRun(
        name=config.name,
        tracker=tracker,
        tags={STAGE: "correlate", **tags},
        params={
            "space": plan.cells[0].space.name,
            "data": config.data.name,
            "seeds": list(plan.seeds),
            "num_architectures": len(plan.archs),
            "num_bins": config.correlate.num_bins,
            "indicators": list(config.correlate.indicators),
            "supernet_epochs": config.supernet.epochs,
            "trainable": config.supernet.trainable,
            "retrain_epochs": config.retrain.epochs,
        },
        group=plan.group,
    )


def _draw(plan: CorrelationPlan, study: Study | None) -> Path:
    """The figure, the table, and the resolved config."""
    from experiments.figures.style import save_figure
    from experiments.report.correlation import correlation_figure

    config = plan.config
    folder = local_folder(config.storage) / "figures" / config.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    if study is not None:
        save_figure(correlation_figure(study), folder / "correlation.png")
        (folder / "correlation.csv").write_text(study.csv(), encoding="utf-8")
    return folder
