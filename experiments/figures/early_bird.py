"""Fig. 4: how alike the ranks of the candidates are between epochs of supernet training.

Shape legend: E epochs, R rows and C columns of panels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments.figures.style import COLORS, in_style, new_figure
from nas.early_bird import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Similarity(NamedTuple):
    """A panel: its heading, the similarity from 0 to 1, and the epoch (from 1) of the stop."""

    label: str
    similarity_EE: FloatArray
    stop: int | None


@in_style
def early_bird_figure(panels: Sequence[Similarity]) -> Figure:
    """Similarity matrices on one colour scale, the early-bird stop marked in each.

    Two a row are as many as can be read on a phone.
    """
    from matplotlib.ticker import MaxNLocator

    num_columns = min(2, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure = new_figure(1.1 + 2.1 * num_columns, 0.4 + 2.5 * num_rows)
    grid_RC = figure.subplots(num_rows, num_columns, squeeze=False)
    grid = grid_RC.flatten()
    for axes, panel in zip(grid, panels, strict=False):
        end = len(panel.similarity_EE) + 0.5
        image = axes.imshow(
            panel.similarity_EE, cmap="Blues", vmin=0, vmax=1, extent=(0.5, end, end, 0.5)
        )
        axes.grid(visible=False)
        if panel.stop is not None:
            for line in (axes.axhline, axes.axvline):
                line(panel.stop, color=COLORS["exact"], linewidth=1.8, linestyle="--")
        stop = "no stop" if panel.stop is None else f"stop: epoch {panel.stop}"
        axes.set_title(f"{panel.label}\n{stop}", fontsize=10)
        axes.set_xlabel("epoch")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    for axes in grid_RC[:, 0]:
        axes.set_ylabel("epoch")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=grid.tolist(), label="similarity", shrink=0.75)
    return figure
