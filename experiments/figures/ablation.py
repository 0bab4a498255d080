"""Fig. 5: test top-1 by what the supernet trains, for how long, and what ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from experiments.figures.numbers import Mean
from experiments.figures.style import COLORS, SERIES, in_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_style
def ablation_figure(
    bars: Mapping[str, Mapping[str, Mean]], baseline: Mean | None, num_random: str
) -> Figure:
    """Grouped bars of test top-1, and the best of `num_random` random architectures as a line.

    `bars` are shares of 1 by setting, such as `bn 30`, and then by indicator; what failed has none.
    """
    indicators = sorted({name for row in bars.values() for name in row})
    figure = new_figure(max(5.6, 2.4 + 0.9 * len(bars) * max(1, len(indicators) / 2)), 3.6)
    axes = figure.subplots()
    width = 0.8 / max(1, len(indicators))
    for number, indicator in enumerate(indicators):
        offset = (number - (len(indicators) - 1) / 2) * width
        shown = [
            (place + offset, row[indicator])
            for place, row in enumerate(bars.values())
            if indicator in row
        ]
        axes.bar(
            [place for place, _ in shown],
            [100 * bar.value for _, bar in shown],
            yerr=[100 * bar.spread for _, bar in shown],
            width=width * 0.92,
            color=COLORS.get(indicator, SERIES[number % len(SERIES)]),
            error_kw={"elinewidth": 1.0, "capsize": 2.5, "ecolor": "#333333"},
            label=f"ranked by {indicator}",
        )
    all_bars = [bar for row in bars.values() for bar in row.values()]
    if baseline is not None:
        all_bars.append(baseline)
        mean, spread = 100 * baseline.value, 100 * baseline.spread
        color = COLORS["test"]
        axes.axhspan(mean - spread, mean + spread, color=color, alpha=0.12, lw=0, zorder=0)
        label = f"best of {num_random or 'several'} random architectures"
        axes.axhline(mean, color=color, linestyle="--", label=label)
    margin = max(1.0, 200 * max((bar.spread for bar in all_bars), default=0.0))
    tops = [100 * bar.value for bar in all_bars] or [0.0]
    axes.set_ylim(max(0.0, min(tops) - margin), min(100.5, max(tops) + margin))
    axes.set_xticks(np.arange(len(bars)), list(bars))
    axes.set_xlabel("what the supernet trains, and for how many epochs")
    axes.set_ylabel("test top-1 of the\nretrained network (%)")
    axes.grid(visible=False, axis="x")
    figure.legend(
        loc="outside lower center", ncols=3 if figure.get_figwidth() > 7 else 2, fontsize=9
    )
    return figure
