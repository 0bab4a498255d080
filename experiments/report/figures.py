"""The figures of one cell: training curves, mean |γ| with the chosen path, score–FLOPs front.

Each function takes plain values and writes one PNG.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.report.style import COLORS, MARKERS, figure_style, new_figure, save_figure
from nas.space import IDENTITY, SearchSpace, parse_architecture

History = Sequence[Mapping[str, float]]


def draw_training_curves(history: History, path: Path, *, title: str) -> Path:
    """Loss (left) and top-1 in percent (right) by epoch, for whatever of them was recorded."""
    epochs = [row["epoch"] for row in history]
    panels = [
        ("cross-entropy", 1.0, [("train", "train/loss"), ("val", "val/loss")]),
        ("top-1 (%)", 100.0, [("train", "train/top1"), ("val", "val/top1")]),
    ]
    names = {"train": "training batches", "val": "search-validation images"}
    with figure_style():
        figure = new_figure(9.0, 3.4)
        for axes, (label, scale, series) in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
        ):
            for split, metric in series:
                values = [row[metric] * scale for row in history if metric in row]
                if len(values) == len(epochs):
                    axes.plot(
                        epochs,
                        values,
                        marker="o" if len(epochs) < 20 else None,
                        markersize=3.5,
                        color=COLORS[split],
                        label=names[split],
                    )
            test = history[-1].get("test/top1")
            if test is not None and scale == 100.0:
                axes.axhline(
                    test * scale,
                    color=COLORS["test"],
                    linestyle="--",
                    label="test images, at the end",
                )
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.legend()
        figure.suptitle(title)
        return save_figure(figure, path)


def draw_scores(
    scores_LN: npt.NDArray[np.float64],
    space: SearchSpace,
    arch: str,
    path: Path,
    *,
    label: str,
) -> Path:
    """Score of every candidate operation as a grid, the chosen path marked."""
    num_layers, num_choices = scores_LN.shape
    with figure_style():
        figure = new_figure(max(5.0, 1.6 + 0.42 * num_layers), 1.6 + 0.42 * num_choices)
        axes = figure.subplots()
        axes.grid(visible=False)
        image = axes.imshow(scores_LN.T, cmap="viridis", aspect="auto")
        for layer, choice in enumerate(parse_architecture(arch)):
            if choice == IDENTITY:
                axes.text(
                    layer, (num_choices - 1) / 2, "identity", rotation=90, ha="center", va="center"
                )
                continue
            axes.plot(
                layer,
                choice,
                marker=MARKERS["exact"],
                markersize=13,
                color="white",
                markeredgecolor="black",
            )
        axes.set_xticks(range(num_layers), [str(layer) for layer in range(num_layers)])
        axes.set_xlabel("layer")
        axes.set_yticks(range(num_choices), _candidate_names(space))
        axes.set_ylabel("candidate operation")
        axes.set_title("★ marks the chosen path")
        figure.colorbar(image, ax=axes, label=label)
        return save_figure(figure, path)


def draw_front(
    front: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
    path: Path,
    *,
    max_flops: float | None,
    label: str,
) -> Path:
    """Score against FLOPs: the front, the budget, and the best that each searcher found."""
    with figure_style():
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        axes.step(
            [point["flops"] / 1e6 for point in front],
            [point["score"] for point in front],
            where="post",
            color=COLORS["front"],
            label=f"best possible at each cost ({len(front)} architectures)",
        )
        if max_flops is not None:
            axes.axvline(
                max_flops / 1e6, color=COLORS["train"], linestyle="--", label="FLOPs budget"
            )
        for searcher, best in found.items():
            axes.plot(
                best["flops"] / 1e6,
                best["score"],
                MARKERS[searcher],
                color=COLORS[searcher],
                markersize=18 if searcher == "exact" else 7,
                zorder=3 if searcher == "exact" else 4,
                markeredgecolor="white",
                label=_found_label(searcher, best),
            )
        axes.set_xlabel("FLOPs (millions of multiply-adds)")
        axes.set_ylabel(label)
        axes.legend(loc="lower right")
        return save_figure(figure, path)


def _found_label(searcher: str, best: Mapping[str, Any]) -> str:
    gap = best.get("optimality_gap")
    if searcher == "exact" or gap is None:
        return f"{searcher}: best under the budget"
    return f"{searcher}: best of {best['num_evaluated']}, {100 * gap:.2f} % below the optimum"


def _candidate_names(space: SearchSpace) -> list[str]:
    """Names of the candidates where all layers share them, else their indices."""
    lists = {stage.candidates for stage in space.stages}
    if len(lists) == 1:
        return [str(candidate) for candidate in next(iter(lists))]
    return [str(index) for index in range(space.num_candidates)]
