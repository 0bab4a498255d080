"""The figures of single stages: training curves, detections, mean |γ| with the chosen path,
score–FLOPs front.

Each function takes plain values and returns a figure; `save_figure` writes it.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from experiments.figures.style import COLORS, MARKERS, in_style, new_figure
from nas.space import IDENTITY, SearchSpace, parse_architecture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS, _SIDE_IN = 4, 1.6  # of images with boxes

History = Sequence[Mapping[str, float]]
# Metric → what a legend calls it, and its colour.
Series = Mapping[str, tuple[str, str]]


@in_style
def training_figure(history: History, *, title: str) -> Figure:
    """Loss (left) and top-1 in percent (right) by epoch, for whatever of them was recorded."""
    figure, loss, top1 = _two_panels(title, "cross-entropy", "top-1 (%)")
    for axes, name, scale in ((loss, "loss", 1.0), (top1, "top1", 100.0)):
        series = {
            f"train/{name}": ("training batches", "train"),
            f"val/{name}": ("search-validation images", "val"),
        }
        whole = {metric: of for metric, of in series.items() if all(metric in r for r in history)}
        _draw_curves(axes, history, whole, scale)
    if (test := history[-1].get("test/top1")) is not None:
        color, label = COLORS["test"], "test images, at the end"
        top1.axhline(100 * test, color=color, linestyle="--", label=label)
    for axes in figure.axes:
        if axes.lines:
            axes.legend()
    return figure


@in_style
def detection_figure(history: History, *, title: str) -> Figure:
    """A detector's losses (left) and its mAP in percent (right) by epoch."""
    figure, losses, precisions = _two_panels(title, "loss", "validation images (%)")
    of_losses = {
        "train/loss_cls": ("classes (focal)", "val"),
        "train/loss_bbox": ("boxes (Huber)", "test"),
    }
    of_metrics = {
        "coco/bbox_mAP": ("mAP, IoU 0.50 to 0.95", "val"),
        "coco/bbox_mAP_50": ("AP at IoU 0.50", "train"),
        "coco/bbox_mAP_75": ("AP at IoU 0.75", "test"),
    }
    _draw_curves(losses, history, of_losses)
    _draw_curves(precisions, [row for row in history if "coco/bbox_mAP" in row], of_metrics, 100.0)
    for axes in figure.axes:
        axes.legend()
    return figure


def _two_panels(title: str, left: str, right: str) -> tuple[Figure, Axes, Axes]:
    """With labels of their y axes."""
    figure = new_figure(9.0, 3.4)
    axes = figure.subplots(1, 2)
    for each, label in zip(axes, (left, right), strict=True):
        each.set_ylabel(label)
    figure.suptitle(title)
    return figure, *axes


def _draw_curves(axes: Axes, history: History, series: Series, scale: float = 1.0) -> None:
    """Metrics by epoch; few epochs have a mark each."""
    from matplotlib.ticker import MaxNLocator

    for metric, (label, color) in series.items():
        axes.plot(
            [row["epoch"] for row in history],
            [row[metric] * scale for row in history],
            marker="o" if len(history) < 20 else None,
            markersize=3.5,
            color=COLORS[color],
            label=label,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@in_style
def detections_figure(images: Sequence[bytes]) -> Figure:
    """PNGs in rows of four."""
    num_rows = math.ceil(len(images) / _COLUMNS)
    figure = new_figure(_SIDE_IN * _COLUMNS, _SIDE_IN * num_rows)
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, image in zip(panels, images, strict=False):
        with PIL.Image.open(io.BytesIO(image)) as opened:
            axes.imshow(np.asarray(opened.convert("RGB")), interpolation="antialiased")
    return figure


@in_style
def scores_figure(
    scores_LN: npt.NDArray[np.float64], space: SearchSpace, arch: str, *, label: str
) -> Figure:
    """Score of every candidate operation as a grid, the chosen path outlined.

    Only candidates of one layer compete, and layers differ in scale: the colour is the difference
    from the layer's mean, the score itself is written into the cell.
    """
    from matplotlib.patches import Rectangle

    num_layers, num_choices = scores_LN.shape
    searched = list(space.searched_layers)
    deviation_LN = np.full_like(scores_LN, np.nan)
    deviation_LN[searched] = scores_LN[searched] - np.nanmean(
        scores_LN[searched], axis=1, keepdims=True
    )
    limit = float(np.nanmax(np.abs(deviation_LN))) or 1.0
    figure = new_figure(max(5.5, 1.8 + 0.55 * num_layers), 1.6 + 0.42 * num_choices)
    axes = figure.subplots()
    axes.grid(visible=False)
    image = axes.imshow(deviation_LN.T, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for layer, choice in np.argwhere(~np.isnan(scores_LN)):
        dark = abs(deviation_LN[layer, choice]) > 0.6 * limit
        axes.text(
            layer,
            choice,
            f"{scores_LN[layer, choice]:#.3g}",
            color="white" if dark else "black",
            fontsize=7.5,
            ha="center",
            va="center",
        )
    for layer, choice in enumerate(parse_architecture(arch)):
        if choice == IDENTITY:
            middle = (num_choices - 1) / 2
            axes.text(layer, middle, "identity", rotation=90, ha="center", va="center")
        else:
            axes.add_patch(
                Rectangle(
                    (layer - 0.5, choice - 0.5), 1, 1, fill=False, linewidth=2.5, clip_on=False
                )
            )
    axes.set_xticks(range(num_layers), [str(layer) for layer in range(num_layers)])
    axes.set_xlabel("layer")
    axes.set_yticks(range(num_choices), _candidate_names(space))
    axes.set_ylabel("candidate operation")
    figure.suptitle(f"{label[0].upper()}{label[1:]}; outlined: the chosen path", fontsize=10)
    figure.colorbar(image, ax=axes, label="difference from the layer's mean")
    return figure


@in_style
def front_figure(
    front: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
    *,
    max_flops: float | None,
    label: str,
) -> Figure:
    """Score against FLOPs: the front, the budget, and the best that each searcher found."""
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    axes.step(
        [point["flops"] / 1e6 for point in front],
        [point["score"] for point in front],
        where="post",
        color=COLORS["front"],
        label=f"best at each cost ({len(front)} architectures)",
    )
    if max_flops is not None:
        axes.axvline(max_flops / 1e6, color=COLORS["train"], linestyle="--", label="FLOPs budget")
    for searcher, best in found.items():
        exact = searcher == "exact"
        axes.plot(
            best["flops"] / 1e6,
            best["score"],
            MARKERS[searcher],
            color=COLORS[searcher],
            markersize=22 if exact else 6,
            zorder=3 if exact else 4,
            markeredgecolor="white",
            label=_found_label(searcher, best),
        )
    axes.set_xlabel("FLOPs (millions of multiply-adds)")
    axes.set_ylabel(label)
    axes.set_title("Score and cost: what is possible, and what was found")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _found_label(searcher: str, best: Mapping[str, Any]) -> str:
    gap = best.get("optimality_gap")
    if searcher == "exact" or gap is None:
        return f"{searcher}: best under the budget"
    return f"{searcher}: best of {best['num_evaluated']}, {100 * gap:.2f} % below the optimum"


def _candidate_names(space: SearchSpace) -> list[str]:
    """Names of the candidates where all layers share them, else their indices."""
    lists = {group.candidates for group in space.groups}
    if len(lists) == 1:
        return [str(candidate) for candidate in next(iter(lists))]
    return [str(index) for index in range(space.num_candidates)]
