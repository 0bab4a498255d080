"""What a correlation study found, as values: the rows, and how well each indicator agrees.

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
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.ranking import Interval, bootstrap_tau, cost_bins, kendall_tau, tau_within
from nas.spread import Spread, spread

FloatArray = npt.NDArray[np.float64]

_BOOTSTRAP_SEED = 0


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
        within: the same over pairs that share a bin of FLOPs.
        loss: τ with the mean test loss, whose sign is turned.
        by_seed: τ of each seed's scores.
    """

    tau: Interval
    within: float
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
    def bins_B(self) -> npt.NDArray[np.int64]:
        """The bin of FLOPs of every architecture."""
        return cost_bins([row.flops for row in self.rows], self.num_bins)

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
        found = {}
        for name in self.indicators:
            scores_BS = self.scores_BS(name)
            scores_B = scores_BS.mean(axis=1)
            rng = np.random.default_rng(_BOOTSTRAP_SEED)
            found[name] = Agreement(
                tau=bootstrap_tau(scores_B, top1_B, rng),
                within=tau_within(scores_B, top1_B, self.bins_B),
                loss=kendall_tau(scores_B, -loss_B),
                by_seed=tuple(kendall_tau(of_seed_B, top1_B) for of_seed_B in scores_BS.T),
            )
        return found

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
            metrics |= {
                f"tau/{name}": found.tau.value,
                f"tau_low/{name}": found.tau.low,
                f"tau_high/{name}": found.tau.high,
                f"tau_within/{name}": found.within,
                f"tau_loss/{name}": found.loss,
            }
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
                **{f"score/{name}": row.scores[name][number] for name in self.indicators},
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
