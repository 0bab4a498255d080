"""Figures show the data that they were given, and equal data give equal files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from experiments.figures.stage_figures import front_figure, scores_figure, training_figure
from experiments.figures.style import save_figure
from tests.nas.examples import TINY

HISTORY = [
    {"epoch": 1.0, "train/loss": 2.0, "train/top1": 0.25, "val/top1": 0.5},
    {"epoch": 2.0, "train/loss": 1.0, "train/top1": 0.75, "val/top1": 0.5, "test/top1": 0.625},
]


def points(line: Line2D) -> tuple[list[float], list[float]]:
    """The data behind a line, x and y."""
    x, y = (np.asarray(values, dtype=np.float64).tolist() for values in line.get_data())
    return x, y


def test_training_curves_are_the_history_in_percent() -> None:
    loss, top1 = training_figure(HISTORY, title="t").axes
    assert [points(line)[1] for line in loss.lines] == [[2.0, 1.0]]
    assert [points(line)[1] for line in top1.lines] == [
        [25.0, 75.0],
        [50.0, 50.0],
        [62.5, 62.5],
    ]


def test_scores_are_coloured_by_their_distance_from_the_layers_mean() -> None:
    scores_LN = np.full((len(TINY.layers), TINY.num_candidates), np.nan)
    for layer in TINY.searched_layers:
        count = len(TINY.layers[layer].candidates)
        scores_LN[layer, :count] = 10.0 * layer + np.arange(count)
    arch = [-1 if layer.fixed_identity else 0 for layer in TINY.layers]
    figure = scores_figure(scores_LN, TINY, " ".join(map(str, arch)), label="score")
    axes = figure.axes[0]
    shown: Any = axes.images[0].get_array()  # masked where there is no candidate
    shown_LN = np.array(shown.tolist(), dtype=np.float64).T
    expected_LN = scores_LN.copy()
    for layer in TINY.searched_layers:
        expected_LN[layer] -= np.nanmean(scores_LN[layer])
    np.testing.assert_allclose(shown_LN, expected_LN)
    outlined = {
        (round(patch.get_x() + 0.5), round(patch.get_y() + 0.5))
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }
    assert outlined == {(layer, 0) for layer in TINY.searched_layers}
    assert [text.get_text() for text in axes.texts].count("identity") == arch.count(-1)


def test_the_front_shows_every_point_and_every_searchers_best(tmp_path: Path) -> None:
    front = [{"flops": 1e6, "score": 1.0}, {"flops": 3e6, "score": 2.0}]
    found = {
        "exact": {"flops": 3e6, "score": 2.0, "optimality_gap": 0.0},
        "random": {"flops": 2e6, "score": 1.0, "optimality_gap": 0.5, "num_evaluated": 7},
    }
    figure = front_figure(front, found, max_flops=4e6, label="score")
    step, budget, exact, random = figure.axes[0].lines
    assert points(step) == ([1.0, 3.0], [1.0, 2.0])
    assert set(points(budget)[0]) == {4.0}
    assert points(exact) == ([3.0], [2.0])
    assert points(random) == ([2.0], [1.0])
    assert random.get_label() == "random: best of 7, 50.00 % below the optimum"
    first, second = (save_figure(figure, tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")


def test_a_history_without_accuracy_leaves_its_panel_empty() -> None:
    figure = training_figure([{"epoch": 1.0, "train/loss": 2.0}], title="t")
    assert [len(axes.lines) for axes in figure.axes] == [1, 0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_metric_that_some_epochs_lack_is_not_drawn(split: str) -> None:
    rows = [dict(HISTORY[0]), dict(HISTORY[1])]
    del rows[0][f"{split}/top1"]
    full = training_figure(HISTORY, title="t").axes[1]
    assert len(training_figure(rows, title="t").axes[1].lines) == len(full.lines) - 1
