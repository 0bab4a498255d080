"""The early-bird section against epochs whose ranks, winners and losses are computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.figures.early_bird import Similarity, early_bird_figure
from experiments.report.early_bird import early_bird_section
from experiments.report.tables import MOST_PICTURES, Picture
from nas.cost import flops_table
from nas.space import space_from_dict
from orchestration.tracking.params import flatten_params
from tests.experiments.made_up_runs import MadeUpRuns, row, space_of, value

# One layer of three candidates, of which the last is by far the dearest.
SPACE = space_of(1, [(3, 1), (5, 1), (5, 6)])
FLOPS = flops_table(space_from_dict(SPACE))
Scores = Sequence[Sequence[float]]

# Six epochs alike, so that the stop ends it after the sixth; then the first two change places.
SETTLED: Scores = [(3.0, 2.0, 1.0)] * 6 + [(2.0, 4.0, 1.0)] * 2
RESTLESS: Scores = [(3.0, 2.0, 1.0), (1.0, 2.0, 3.0)] * 4


def supernet(runs: MadeUpRuns, run_id: str, scores: Scores = SETTLED, **more: Any) -> None:
    runs.scored_supernet(run_id, SPACE, [[each] for each in scores], **more)


def stopped(runs: MadeUpRuns, run_id: str, **more: Any) -> None:
    """After six of eight epochs."""
    rule = {"window": 5, "threshold": 0.1}
    supernet(runs, run_id, SETTLED[:6], epochs=8, early_bird=rule, **more)


def search(runs: MadeUpRuns, of: str, indicator: str = "bn", **limits: float) -> None:
    section = {"indicator": indicator, "max_flops": None, "min_flops": None, **limits}
    params = flatten_params({"space": SPACE, "search": section})
    runs.add(f"by {indicator}", "search", params, inputs={"supernet": of})


def cell(
    runs: MadeUpRuns, of: str, winner: str, top1: float, indicator: str = "bn", epochs: int = 2
) -> None:
    params = {"indicator": indicator, "max_flops": 1, "retrain_epochs": epochs, "winner": winner}
    run_id = f"{of}, {indicator}, {epochs}"
    runs.add(run_id, "cell", params, {"top1": top1}, inputs={"supernet": of})


def drawn(picture: Picture) -> Figure:
    figure = picture.draw()
    assert figure is not None
    return figure


# --- supernets of fixed length ---


def test_the_stop_its_saving_and_its_loss_by_hand() -> None:
    runs = MadeUpRuns()
    supernet(runs, "a")
    search(runs, "a")
    found = row(early_bird_section(runs.runs).tables[0])
    assert (found["supernet trains"], found["seed"]) == ("bn", "0")
    by_heading = {
        "epochs trained": 8,
        "stop after epoch": 6,
        "epochs saved": 2,
        # Of three pairs of ranks one is turned round: (2 − 1) / 3.
        "τ of the ranks, stop and end": 1 / 3,
        # The winner then is candidate 0, at the end candidate 1: 2.0 instead of 4.0.
        "same winner": 0,
        "score lost (%)": 0.5,
    }
    assert {name: value(found[name]) for name in by_heading} == pytest.approx(by_heading)
    assert str(found["same winner"]) == "no"


def test_the_winner_keeps_the_budget_of_the_search_by_the_bn_indicator() -> None:
    # The highest score moves to the candidate that is too dear: the winner below stays.
    scores = [(3.0, 2.0, 1.0)] * 6 + [(3.0, 2.0, 9.0)]
    for max_flops, lost in ((math.inf, 2 / 3), (FLOPS.constant + float(FLOPS.table_LN[0, 1]), 0)):
        runs = MadeUpRuns()
        supernet(runs, "a", scores)
        search(runs, "a", "accuracy", max_flops=1.0)  # which nothing keeps
        unknown = row(early_bird_section(runs.runs).tables[0])
        assert [unknown["same winner"], unknown["score lost (%)"]] == ["–", "–"]
        search(runs, "a", max_flops=max_flops)
        found = row(early_bird_section(runs.runs).tables[0])
        assert value(found["same winner"]) == (lost == 0)
        assert value(found["score lost (%)"]) == pytest.approx(lost)


def test_ranks_that_never_settle_have_no_stop() -> None:
    runs = MadeUpRuns()
    supernet(runs, "a", RESTLESS)
    search(runs, "a")
    assert early_bird_section(runs.runs).tables[0].rows[0][4:] == ("never", "–", "–", "–", "–")


def test_the_longest_of_each_trainable_and_seed_are_rowed_and_the_lowest_seed_is_drawn() -> None:
    runs = MadeUpRuns()
    supernet(runs, "short", SETTLED[:6])
    supernet(runs, "seed1", seed=1)
    supernet(runs, "seed0")
    supernet(runs, "all", RESTLESS, trainable="all")
    section = early_bird_section(runs.runs)
    rows = section.tables[0].rows
    assert [each[:2] for each in rows] == [("all", "0"), ("bn", "0"), ("bn", "1")]
    assert [value(each[2]) for each in rows] == [8, 8, 8]
    titles = [axes.get_title() for axes in drawn(section.pictures[0]).axes]
    assert titles[:2] == ["all, seed 0\nno stop", "bn, seed 0\nstop: epoch 6"]
    assert "bn, seed 0: 8 epochs, settled after epoch 6" in section.pictures[0].alt


def test_supernets_that_differ_in_more_are_kept_apart() -> None:
    runs = MadeUpRuns()
    supernet(runs, "a", lr=1.0)
    supernet(runs, "b", trainable="all", lr=2.0)
    first, second = early_bird_section(runs.runs).tables
    assert (first.name, len(first.rows)) == (second.name, len(second.rows)) == ("early-bird", 1)
    assert "lr 1.0" in first.title
    assert "lr 2.0" in second.title


def test_the_figure_is_the_similarity_and_marks_the_stop() -> None:
    similarity_EE = np.array([[1.0, 0.25], [0.25, 1.0]])
    figure = early_bird_figure(
        [Similarity("bn", similarity_EE, 2), Similarity("all", similarity_EE, None)]
    )
    first, second, _ = figure.axes
    shown: Any = first.images[0].get_array()
    np.testing.assert_array_equal(np.asarray(shown), similarity_EE)
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 1)
    across, down = first.lines
    assert np.asarray(across.get_ydata()).tolist() == [2, 2]
    assert np.asarray(down.get_xdata()).tolist() == [2, 2]
    assert not second.lines


def smallest_text_px(figure: Figure, page_px: float = 368) -> float:
    """Of the text of a figure that is shown as wide as a narrow page, without its margins."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    sizes = [float(text.get_fontsize()) for text in texts if text.get_visible()]
    width_pt = 72 * (figure.get_figwidth() + 0.2)  # a tenth of an inch is added on each side
    return min(sizes) * page_px / width_pt


def test_the_figure_can_be_read_on_a_phone() -> None:
    for num_panels in (1, 2, 5):
        figure = early_bird_figure([Similarity("bn", np.eye(3), 2)] * num_panels)
        panels = [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]
        assert len(panels) == num_panels
        assert smallest_text_px(figure) >= 8


# --- supernets that the stop was allowed to end ---


def test_a_stopped_supernet_stands_beside_the_one_of_its_config() -> None:
    runs = MadeUpRuns()
    supernet(runs, "other", lr=3.0, seed=1)
    supernet(runs, "full", lr=1.0)
    stopped(runs, "early", lr=1.0)
    cell(runs, "early", "0", 0.5, "accuracy")
    cell(runs, "early", "1", 0.75)
    cell(runs, "full", "1", 0.9, epochs=3)  # the retraining is another one
    cell(runs, "full", "0", 0.25)
    section = early_bird_section(runs.runs)
    *fixed, found = section.tables
    assert (len(fixed), found.name, len(found.rows)) == (2, "early-bird-stopped", 1)
    assert found.rows[0][1:5] == ("bn", "0", "5, 0.1", "8")
    # Epochs; device hours of both; whether the winner is the same; top-1 of both.
    assert [value(each) for each in found.rows[0][5:]] == [6, 0.5, 0.5, 0, 0.75, 0.25]
    assert not section.missing


def test_a_stopped_supernet_without_its_like() -> None:
    runs = MadeUpRuns()
    stopped(runs, "early")
    supernet(runs, "full", seed=1)
    assert early_bird_section(runs.runs).tables[-1].rows[0][7:] == ("–",) * 4


# --- what is not there ---


def test_one_line_names_the_command_where_a_result_is_missing() -> None:
    runs = MadeUpRuns()
    empty = early_bird_section(runs.runs)
    supernet(runs, "running", status="RUNNING")
    assert early_bird_section(runs.runs) == empty
    supernet(runs, "a", lr=2.0)
    assert len(early_bird_section(runs.runs).tables) == 1
    assert not empty.blocks
    assert "_fashion_mnist.yaml --set supernet.early_bird.window=5" in empty.missing


@pytest.mark.parametrize(
    "scores", [[(1.0, math.nan, 2.0)] * 8, [(1.0, 2.0)] * 8, [(1.0, math.inf, 2.0)] * 8, []]
)
def test_scores_that_are_not_whole_are_left_out(scores: Scores) -> None:
    runs = MadeUpRuns()
    supernet(runs, "odd", scores, epochs=8)
    supernet(runs, "a", trainable="all")
    (found,) = early_bird_section(runs.runs).tables
    assert found.column("supernet trains") == ["all"]


def test_the_newest_records_are_read_once_each() -> None:
    runs = MadeUpRuns()
    for number in range(123):
        supernet(runs, f"s{number}", SETTLED[:2], seed=number)
    early_bird_section(runs.runs)
    assert runs.asked == {f"s{number}": 1 for number in range(3, 123)}


def test_of_many_groups_the_newest_are_drawn_and_all_have_their_tables() -> None:
    runs = MadeUpRuns()
    for number in range(MOST_PICTURES + 2):
        supernet(runs, f"s{number}", lr=float(number))
    section = early_bird_section(runs.runs)
    assert len(section.tables) == MOST_PICTURES + 2
    assert [
        f"lr {number}.0" in picture.title for number, picture in enumerate(section.pictures, 2)
    ] == ([True] * MOST_PICTURES)
