"""The correlation study as a figure in the layout of the paper's Fig. 6, and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.figures.study import Study
from experiments.figures.style import COLORS, SERIES, in_style, new_figure
from experiments.report.closing import print_closing
from experiments.report.sweep_table import failures_table
from experiments.run.study import CorrelationResult
from nas.cost import COST_TABLES
from nas.ranking import Interval

_X_LABELS = {
    "bn": "sum of mean |γ|",
    "accuracy": "supernet's accuracy",
    "flops": "FLOPs of the searched layers",
    "params": "params of the searched layers",
}
_BIN_COLORS = (COLORS["evolution"], COLORS["random"], COLORS["accuracy"], COLORS["exact"], *SERIES)


@in_style
def correlation_figure(study: Study, taus: Mapping[str, Interval] | None = None) -> Figure:
    """A panel for every indicator: its score against test top-1, coloured by FLOPs.

    Two panels a row are as many as can be read on a phone. `taus` are what is to be shown, such as
    MLflow's; if not given they are the study's own, which take a second or so each.
    """
    if taus is None:
        taus = {name: found.tau for name, found in study.agreement.items()}
    num_columns = min(2, len(study.indicators))
    num_rows = math.ceil(len(study.indicators) / num_columns)
    figure = new_figure(2.8 * num_columns, 2.4 * num_rows + 0.6)
    panels = np.atleast_1d(figure.subplots(num_rows, num_columns)).flatten()
    top1_B = 100 * study.top1_BS.mean(axis=1)
    several = len(study.seeds) > 1
    bars_B = 100 * study.top1_BS.std(axis=1, ddof=1) if several else None
    bins = sorted(set(study.bins_B.tolist()))
    for axes, indicator in zip(panels, study.indicators, strict=False):
        scores_B = study.scores_BS(indicator).mean(axis=1)
        for number in bins:
            mine = study.bins_B == number
            axes.errorbar(
                scores_B[mine],
                top1_B[mine],
                yerr=None if bars_B is None else bars_B[mine],
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
    flops_B = np.array([row.flops for row in study.rows])
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=_BIN_COLORS[number % len(_BIN_COLORS)],
            label=(
                f"{flops_B[study.bins_B == number].min() / 1e6:.2f} to "
                f"{flops_B[study.bins_B == number].max() / 1e6:.2f} M FLOPs"
            ),
        )
        for number in bins
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=num_columns)
    return figure


def print_correlation(
    result: CorrelationResult,
    console: Console,
    *,
    elapsed_s: float,
    mlflow: str,
    page: Path | None = None,
) -> None:
    """The tables, what failed, and the command that opens the MLflow UI."""
    if result.study is None:
        console.print("Too few architectures have all their measurements to compare rankings.")
    else:
        console.print(agreement_table(result.study))
        print_spreads(result.study, console)
    if result.failures:
        console.print(failures_table(result.failures))
        console.print("The same command tries again what failed, and nothing else.")
    num_made, num_cached = len(result.executed), len(result.cached)
    console.print(f"Stages    {num_made} made, {num_cached} from the store", highlight=False)
    print_closing(
        console,
        elapsed_s=elapsed_s,
        storage=result.plan.config.storage.path,
        figures=result.folder,
        mlflow=mlflow,
        page=page,
    )


def agreement_table(study: Study) -> Table:
    """Kendall's τ of every indicator with 95 % intervals; the report has what is not in it."""
    table = Table(
        title=f"Kendall's τ with test top-1 of {len(study.rows)} retrained architectures",
        title_justify="left",
        caption="in brackets 95 % intervals, a bootstrap over the architectures",
        caption_justify="left",
    )
    table.add_column("indicator")
    for heading in ("τ", "τ less bn's", "τ in FLOPs bins"):
        table.add_column(heading, justify="right")
    for name, found in study.agreement.items():
        measured = (found.tau, found.over_bn, found.within)
        table.add_row(name, *("–" if each is None else _with_interval(each) for each in measured))
    return table


def _with_interval(found: Interval) -> str:
    return escape(f"{found.value:z.2f} [{found.low:z.2f}, {found.high:z.2f}]")


def print_spreads(study: Study, console: Console) -> None:
    """Whether architectures differ by more than chance."""
    spreads = study.spreads
    if not spreads:
        console.print(
            "One seed: how much of the differences is chance is not known. Several `seeds` say it.",
            highlight=False,
        )
        return
    top1, loss = spreads["top1"], spreads["test_loss"]
    console.print(
        f"Test top-1 differs by {100 * top1.between:.2f} points between architectures and by "
        f"{100 * top1.within:.2f} between seeds of one (reliability {top1.reliability:.2f}); test "
        f"loss by {loss.between:.4f} and {loss.within:.4f} ({loss.reliability:.2f}).",
        highlight=False,
    )
