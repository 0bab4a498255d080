"""Fig. 6: the score of each indicator against the accuracy after retraining.

Shape legend: B architectures, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from experiments.figures.study import Study
from experiments.figures.style import COLORS, SERIES, in_style, new_figure
from nas.cost import COST_TABLES
from nas.ranking import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_X_LABELS = {
    "bn": "sum of mean |γ|",
    "accuracy": "supernet's accuracy",
    "flops": "FLOPs of the searched layers",
    "params": "params of the searched layers",
}
_BIN_COLORS = (COLORS["evolution"], COLORS["random"], COLORS["accuracy"], COLORS["exact"], *SERIES)


@in_style
def correlation_figure(study: Study, taus: Mapping[str, Interval]) -> Figure:
    """A panel for every indicator: its score against test top-1, coloured by FLOPs.

    Two panels a row are as many as can be read on a phone. The τ are given, because computing their
    intervals takes a second or so each; a panel whose τ is not given has none.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    num_columns = min(2, len(study.indicators))
    num_rows = math.ceil(len(study.indicators) / num_columns)
    figure = new_figure(2.8 * num_columns, 2.4 * num_rows + 0.6)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    top1_B = 100 * study.top1_BS.mean(axis=1)
    bars_B = 100 * study.top1_BS.std(axis=1, ddof=1) if len(study.seeds) > 1 else None
    bins = {number: study.bins_B == number for number in sorted(set(study.bins_B.tolist()))}
    for axes, indicator in zip(panels, study.indicators, strict=False):
        scores_B = study.scores_BS(indicator).mean(axis=1)
        for number, mine_B in bins.items():
            axes.errorbar(
                scores_B[mine_B],
                top1_B[mine_B],
                yerr=None if bars_B is None else bars_B[mine_B],
                fmt="o",
                markersize=4,
                elinewidth=0.7,
                color=_BIN_COLORS[number % len(_BIN_COLORS)],
            )
        tau = taus.get(indicator)
        shown = "" if tau is None else f"τ {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
        axes.set_title(f"{indicator}\n{shown}", fontsize=10)
        axes.set_xlabel(_X_LABELS.get(indicator, "score"))
        if indicator in COST_TABLES:
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        else:
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    for axes in panels[: len(study.indicators) : num_columns]:
        axes.set_ylabel("test top-1 (%)")
    for axes in panels[len(study.indicators) :]:
        axes.set_visible(False)
    flops_B = np.array([row.flops for row in study.rows]) / 1e6
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=_BIN_COLORS[number % len(_BIN_COLORS)],
            label=f"{flops_B[mine_B].min():.2f} to {flops_B[mine_B].max():.2f} M FLOPs",
        )
        for number, mine_B in bins.items()
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=num_columns)
    return figure
