"""The numbers of a correlation study, from the stages that measured its architectures."""

from __future__ import annotations

import numpy as np

from experiments.figures.study import Row, Study
from experiments.plan.cell_plan import CellPlan
from experiments.plan.graph import ExperimentPlan
from experiments.stages.supernet import recorded_scores
from nas.cost import COST_TABLES, gather_sum
from nas.indicators import INDICATORS, additive_scores
from nas.space import format_architecture
from orchestration.store.stage_store import StageStore

_MIN_ROWS = 3


def collect_study(plan: ExperimentPlan, store: StageStore) -> Study | None:
    """The study of what is in the store; None with fewer than three architectures.

    Only a correlation study has any.
    """
    if not plan.archs:
        return None
    correlate = plan.experiment.cells[0].correlate
    scores = []
    for cell in plan.cells:
        of_seed = _scores(plan, cell, correlate.indicators, store)
        if of_seed is None:
            return None
        scores.append(of_seed)
    rows = []
    space = plan.cells[0].space
    for index, arch in enumerate(plan.archs):
        records = [store.get(cell.retrain(arch).fingerprint) for cell in plan.cells]
        retrained = [record for record in records if record is not None]
        if len(retrained) < len(records):
            continue
        costs = {name: table(space).of(arch) for name, table in COST_TABLES.items()}
        rows.append(
            Row(
                arch=format_architecture(arch),
                flops=costs["flops"],
                params=costs["params"],
                top1=tuple(record.metrics["top1"] for record in retrained),
                test_loss=tuple(record.metrics["test_loss"] for record in retrained),
                scores={
                    name: tuple(of_seed[name][index] for of_seed in scores)
                    for name in correlate.indicators
                },
            )
        )
    if len(rows) < _MIN_ROWS:
        return None
    seeds = tuple(cell.config.seed for cell in plan.cells)
    return Study(tuple(rows), seeds, correlate.num_bins)


def _scores(
    plan: ExperimentPlan, cell: CellPlan, indicators: tuple[str, ...], store: StageStore
) -> dict[str, list[float]] | None:
    """Indicator → score of every architecture, for one seed; None where one is missing."""
    values: dict[str, list[float]] = {}
    bn_scores_LN = None
    if cell.supernet is not None:
        supernet = store.get(cell.supernet.fingerprint)
        if supernet is None:
            return None
        bn_scores_LN = recorded_scores(supernet.history[-1], cell.space)
    for name in indicators:
        if INDICATORS[name].additive:
            table_LN = additive_scores(
                name, cell.space, bn_scores_LN=bn_scores_LN, seed=cell.config.seed
            )
            values[name] = np.asarray(gather_sum(table_LN, plan.archs)).tolist()
            continue
        record = store.get(cell.score(name, plan.archs).fingerprint)
        if record is None:
            return None
        values[name] = list(record.result["scores"])
    return values
