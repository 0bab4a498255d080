"""Fig. 6: the score of each indicator against the accuracy after retraining.

Shape legend: B architectures, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.figures.style import COLORS, SERIES, in_style, new_figure
from nas.cost import COST_TABLES
from nas.early_bird import FloatArray
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
def correlation_figure(
    scores: Mapping[str, FloatArray],
    top1_BS: FloatArray,
    flops_B: FloatArray,
    bins_B: npt.NDArray[np.int64],
    taus: Mapping[str, Interval],
) -> Figure:
    """A panel for every indicator: its scores [B, S] against test top-1, coloured by FLOPs.

    Two panels a row are as many as can be read on a phone. A panel whose τ is not given has none.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    num_columns = min(2, len(scores))
    num_rows = math.ceil(len(scores) / num_columns)
    figure = new_figure(2.8 * num_columns, 2.4 * num_rows + 0.6)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    top1_B = 100 * top1_BS.mean(axis=1)
    bars_B = 100 * top1_BS.std(axis=1, ddof=1) if top1_BS.shape[1] > 1 else None
    bins = {int(number): bins_B == number for number in np.unique(bins_B)}
    for axes, (indicator, scores_BS) in zip(panels, scores.items(), strict=False):
        scores_B = scores_BS.mean(axis=1)
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
    for axes in panels[: len(scores) : num_columns]:
        axes.set_ylabel("test top-1 (%)")
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=_BIN_COLORS[number % len(_BIN_COLORS)],
            label=f"{flops_B[mine_B].min() / 1e6:.2f} to {flops_B[mine_B].max() / 1e6:.2f} M FLOPs",
        )
        for number, mine_B in bins.items()
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=num_columns)
    return figure
