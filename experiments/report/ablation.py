"""The ablation of a sweep: the figure in the layout of the paper's Fig. 5, and its table.

Rows are what trains and for how long, columns are indicators, values are test top-1 of the
retrained networks; several seeds give mean ± standard deviation.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.numbers import standard_error
from experiments.figures.style import COLORS, SERIES, in_style, new_figure
from experiments.run.sweep_result import CellRow, SweepResult


class Setting(NamedTuple):
    """How a supernet was trained; a row of the table, a group of bars."""

    trainable: str
    epochs: int

    def __str__(self) -> str:
        return f"{self.trainable} {self.epochs}"


class Value(NamedTuple):
    """Test top-1 as a share of 1.

    `spread` is the standard deviation over seeds, or with one seed the standard error that so many
    test images leave.
    """

    mean: float
    spread: float


@dataclass(frozen=True)
class Ablation:
    """What the figure shows.

    Attributes:
        values: setting → indicator → value; None where every seed failed.
        baseline: test top-1 of the best random architecture; its spread is that over seeds, and 0
            with one.
        num_random: how many random architectures there were for each seed; None if not known.
    """

    values: Mapping[Setting, Mapping[str, Value | None]]
    baseline: Value | None
    num_random: int | None

    @property
    def indicators(self) -> list[str]:
        """Of all settings, in alphabetical order."""
        return sorted({indicator for row in self.values.values() for indicator in row})


def ablation_of(result: SweepResult) -> Ablation:
    """The ablation of a sweep that has just come to its end."""
    cells: dict[Setting, dict[str, list[CellRow]]] = {}
    for row in result.cells:
        config = row.plan.config
        setting = Setting(config.supernet.trainable, config.supernet.epochs)
        cells.setdefault(setting, {}).setdefault(config.search.indicator, []).append(row)
    values = {
        setting: {indicator: _value(rows) for indicator, rows in sorted(cells[setting].items())}
        for setting in sorted(cells)
    }
    num_random = result.plan.sweep.shared.random_baseline.num_architectures
    mean, spread = result.random_baseline, result.random_metrics.get("random_baseline_std", 0.0)
    return Ablation(values, None if mean is None else Value(mean, spread), num_random)


def _value(rows: Sequence[CellRow]) -> Value | None:
    metrics = [row.chain[-1].metrics for row in rows if row.chain]
    if not metrics:
        return None
    top1 = [each["top1"] for each in metrics]
    if len(top1) > 1:
        return Value(statistics.fmean(top1), statistics.stdev(top1))
    return Value(top1[0], standard_error(top1[0], metrics[0]["num_test_images"]))


@in_style
def ablation_figure(ablation: Ablation) -> Figure:
    """Grouped bars with the random baseline as a dashed line (Fig. 5)."""
    values, indicators = ablation.values, ablation.indicators
    width_in = 2.4 + 0.9 * len(values) * max(1, len(indicators) / 2)
    figure = new_figure(max(5.6, width_in), 4.0)
    axes = figure.subplots()
    width = 0.8 / len(indicators)
    shown = [0.0]
    for number, indicator in enumerate(indicators):
        places = np.arange(len(values)) + (number - (len(indicators) - 1) / 2) * width
        bars = [
            (place, value)
            for place, row in zip(places, values.values(), strict=True)
            if (value := row.get(indicator)) is not None
        ]
        shown += [100 * value.mean for _, value in bars]
        axes.bar(
            [place for place, _ in bars],
            [100 * value.mean for _, value in bars],
            yerr=[100 * value.spread for _, value in bars],
            width=width * 0.92,
            color=COLORS.get(indicator, SERIES[number % len(SERIES)]),
            error_kw={"elinewidth": 1.0, "capsize": 2.5, "ecolor": "#333333"},
            label=f"ranked by {indicator}",
        )
    if ablation.baseline is not None:
        mean, spread = (100 * each for each in ablation.baseline)
        shown.append(mean)
        if spread > 0:
            axes.axhspan(
                mean - spread, mean + spread, color=COLORS["test"], alpha=0.12, lw=0, zorder=0
            )
        axes.axhline(
            mean,
            color=COLORS["test"],
            linestyle="--",
            label=f"best of {ablation.num_random or 'several'} random architectures",
        )
    spreads = [value.spread for row in values.values() for value in row.values() if value]
    spreads += [ablation.baseline.spread] if ablation.baseline is not None else []
    margin = max(1.0, 200 * max(spreads, default=0.0))
    axes.set_ylim(max(0.0, min(shown[1:], default=0.0) - margin), min(100.5, max(shown) + margin))
    axes.set_xticks(np.arange(len(values)), [str(setting) for setting in values])
    axes.set_xlabel("what the supernet trains, and for how many epochs")
    axes.set_ylabel("test top-1 of the retrained network (%)")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=3 if width_in > 7 else 2, fontsize=9)
    return figure
