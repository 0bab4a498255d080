"""What a correlation study found: the rows, and how well each indicator agrees.

The rows come from the stages that measured the architectures, or are read back from their table.

An indicator is judged three times: by all pairs of architectures, by pairs of about one size (who
only measures size has nothing to say there), and against the test loss, which is finer than a count
of right answers. And whether there is anything to agree on at all is said beside it: how much the
architectures differ, and how much one differs from itself with another seed.

Shape legend: B architectures, S seeds.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.plan.cell_plan import CellPlan
from experiments.plan.graph import ExperimentPlan
from experiments.stages.supernet import recorded_scores
from nas.cost import COST_TABLES, gather_sum
from nas.early_bird import FloatArray
from nas.indicators import INDICATORS, additive_scores
from nas.ranking import (
    Bootstrapped,
    Interval,
    bootstrap,
    bootstrap_tau,
    cost_bins,
    kendall_tau,
    tau_within,
)
from nas.space import format_architecture
from nas.spread import Spread, spread
from orchestration.store.stage_store import StageStore

_BOOTSTRAP_SEED = 0
_SCORE = "score/"  # before an indicator's name, in the table
_MIN_ROWS = 3
_NUMBERS = ("flops", "params", "top1", "test_loss")


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        arch: as text.
        flops: multiply-adds.
        params: parameters.
        top1: test top-1 of the retrained network, for every seed.
        test_loss: likewise.
        scores: indicator → score, for every seed.
    """

    arch: str
    flops: float
    params: float
    top1: tuple[float, ...]
    test_loss: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Agreement:
    """How well an indicator orders the architectures.

    Attributes:
        tau: Kendall's τ with the mean test top-1, and its bootstrap interval over architectures; of
            several seeds the indicator's mean.
        over_bn: by how much that is more than the `bn` indicator's τ, over the same architectures;
            None for `bn` itself, and where it is not judged.
        within: τ over pairs that share a bin of FLOPs.
        loss: τ with the mean test loss, whose sign is turned.
        by_seed: τ of each seed's scores.
    """

    tau: Interval
    over_bn: Interval | None
    within: Interval
    loss: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Study:
    """A correlation study that has come to its end.

    Attributes:
        rows: the architectures that were retrained with every seed.
        seeds: in the order of the rows' tuples.
        num_bins: of FLOPs.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    num_bins: int

    @cached_property
    def top1_BS(self) -> FloatArray:
        """Test top-1."""
        return np.array([row.top1 for row in self.rows])

    @cached_property
    def test_loss_BS(self) -> FloatArray:
        """Test loss."""
        return np.array([row.test_loss for row in self.rows])

    @cached_property
    def flops_B(self) -> FloatArray:
        """Multiply-adds."""
        return np.array([row.flops for row in self.rows], dtype=np.float64)

    @cached_property
    def bins_B(self) -> npt.NDArray[np.int64]:
        """The bin of FLOPs of every architecture."""
        return cost_bins(self.flops_B, self.num_bins)

    @property
    def indicators(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.rows[0].scores) if self.rows else ()

    def scores_BS(self, indicator: str) -> FloatArray:
        """The scores of one of them."""
        return np.array([row.scores[indicator] for row in self.rows])

    @cached_property
    def agreement(self) -> dict[str, Agreement]:
        """By indicator."""
        top1_B, loss_B = self.top1_BS.mean(axis=1), self.test_loss_BS.mean(axis=1)
        means = {name: self.scores_BS(name).mean(axis=1) for name in self.indicators}
        # Generators of one seed draw the same architectures for every indicator.
        taus = {
            name: bootstrap_tau(scores_B, top1_B, np.random.default_rng(_BOOTSTRAP_SEED))
            for name, scores_B in means.items()
        }
        bn = taus.get("bn")
        return {
            name: Agreement(
                tau=taus[name].interval(),
                over_bn=None if name == "bn" or bn is None else (taus[name] - bn).interval(),
                within=self._within(scores_B, top1_B).interval(),
                loss=kendall_tau(scores_B, -loss_B),
                by_seed=tuple(kendall_tau(seed_B, top1_B) for seed_B in self.scores_BS(name).T),
            )
            for name, scores_B in means.items()
        }

    def _within(self, scores_B: FloatArray, top1_B: FloatArray) -> Bootstrapped:
        return bootstrap(
            lambda draw_B: tau_within(scores_B[draw_B], top1_B[draw_B], self.bins_B[draw_B]),
            len(self.rows),
            np.random.default_rng(_BOOTSTRAP_SEED),
        )

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """Of test top-1 and test loss, between architectures and over seeds; needs two seeds."""
        if len(self.seeds) < 2:
            return {}
        return {"top1": spread(self.top1_BS), "test_loss": spread(self.test_loss_BS)}

    @property
    def metrics(self) -> dict[str, float]:
        """The study's numbers, as its MLflow run shows them."""
        metrics = {"num_architectures": float(len(self.rows))}
        for name, found in self.agreement.items():
            metrics |= _interval("tau", name, found.tau)
            metrics |= _interval("tau_within", name, found.within)
            metrics[f"tau_loss/{name}"] = found.loss
            if found.over_bn is not None:
                metrics |= _interval("tau_over_bn", name, found.over_bn)
            if len(found.by_seed) > 1:
                metrics[f"tau_seed_std/{name}"] = statistics.stdev(found.by_seed)
        for name, found_spread in self.spreads.items():
            metrics |= {
                f"between/{name}": found_spread.between,
                f"within/{name}": found_spread.within,
                f"reliability/{name}": found_spread.reliability,
            }
        return metrics

    def table(self) -> list[dict[str, Any]]:
        """One plain row for every architecture and seed."""
        return [
            {
                "arch": row.arch,
                "seed": seed,
                "flops": row.flops,
                "params": row.params,
                "flops_bin": int(self.bins_B[index]),
                "top1": row.top1[number],
                "test_loss": row.test_loss[number],
                **{f"{_SCORE}{name}": row.scores[name][number] for name in self.indicators},
            }
            for index, row in enumerate(self.rows)
            for number, seed in enumerate(self.seeds)
        ]

    def csv(self) -> str:
        """The table as CSV."""
        rows = self.table()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str, num_bins: int) -> Self:
        """The study whose `csv` gave the text.

        Raises:
            ValueError: the text is damaged: columns, seeds or numbers are missing, or one is NaN.
        """
        if not text.endswith("\n"):
            raise ValueError("the table ends in the middle of a line.")
        lines = pd.read_csv(io.StringIO(text), dtype=str)
        if absent := {"arch", "seed", *_NUMBERS} - set(lines):
            raise ValueError(f"the table has no {', '.join(sorted(absent))}.")
        scores = [name for name in lines if name.startswith(_SCORE)]
        numbers = lines[[*_NUMBERS, *scores]].astype(float)
        if lines.isna().any(axis=None):
            raise ValueError("the table lacks a number, or one is NaN.")
        groups = [
            numbers.loc[places] for places in lines.groupby("arch", sort=False).groups.values()
        ]
        seeds = {tuple(lines["seed"][group.index].astype(int).tolist()) for group in groups}
        if len(seeds) != 1:
            raise ValueError(
                f"the table has {len(seeds)} lists of seeds, where every architecture has one and "
                "the same: rows are missing."
            )
        if any((group[["flops", "params"]].nunique() > 1).any() for group in groups):
            raise ValueError("the table gives an architecture several costs.")
        rows = (
            Row(
                arch=lines["arch"][group.index[0]],
                flops=float(group["flops"].iloc[0]),
                params=float(group["params"].iloc[0]),
                top1=tuple(group["top1"].tolist()),
                test_loss=tuple(group["test_loss"].tolist()),
                scores={each.removeprefix(_SCORE): tuple(group[each].tolist()) for each in scores},
            )
            for group in groups
        )
        return cls(tuple(rows), seeds.pop(), num_bins)


def _interval(metric: str, name: str, interval: Interval) -> dict[str, float]:
    """As three metrics of an indicator."""
    return {
        f"{metric}/{name}": interval.value,
        f"{metric}_low/{name}": interval.low,
        f"{metric}_high/{name}": interval.high,
    }


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
