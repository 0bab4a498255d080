"""The preference section, and the study of recipes, against scores computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from experiments.figures.numbers import Mean
from experiments.figures.preference import preference_figure
from experiments.report.preference import preference_section
from experiments.report.tables import MOST_PICTURES, Entry, Number
from experiments.results.fashion_mnist.recipes import recipes_table
from orchestration.tracking.params import MAX_VALUE_CHARS
from tests.experiments.made_up_runs import MadeUpRuns, space_of, table
from tests.experiments.report.test_early_bird import smallest_text_px

# Two layers; candidates k3e1, k3e2, k5e1, k5e2, and their FLOPs in ascending order 0, 2, 1, 3.
SPACE = space_of(2, [(3, 1), (3, 2), (5, 1), (5, 2)])
Scores = Sequence[Sequence[float]]

# Layer 0 has mean 2.5, layer 1 mean 25.
UP: Scores = [(1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 30.0, 40.0)]
# The same but for the last two candidates of layer 1.
TURNED: Scores = [(1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 40.0, 30.0)]
REFERENCE = {"gamma_init": 0.2, "weight_decay": 1e-4, "decay_bn_and_bias": False}


def supernet(runs: MadeUpRuns, run_id: str, scores: Scores = UP, **more: Any) -> None:
    runs.scored_supernet(run_id, SPACE, [scores], **{"epochs": 8, **REFERENCE, **more})


def one(scores: Scores = UP) -> MadeUpRuns:
    runs = MadeUpRuns()
    supernet(runs, "a", scores)
    return runs


def values(cell: Entry) -> list[float]:
    """The mean, and the deviation where there is one."""
    assert isinstance(cell, Number)
    assert cell.std is not None
    return [each for each in (cell.value, cell.std) if not math.isnan(each)]


# --- what it prefers ---


def test_preferences_are_shares_of_the_layers_means() -> None:
    found = table(preference_section(one().runs), "preference")
    # In both layers alike: candidates at −60, −20, +20 and +60 % of the mean.
    names = ["kernel 3", "kernel 5", "expansion 1", "expansion 2"]
    assert [row[0] for row in found.rows] == names
    shares = [values(row[1]) for row in found.rows]
    assert shares == [pytest.approx([share]) for share in (-0.4, 0.4, -0.2, 0.2)]
    # Plain means over both layers: of 1, 2, 10 and 20; of 3, 4, 30 and 40; and so on.
    assert [values(row[2]) for row in found.rows] == [[8.25], [19.25], [11.0], [16.5]]


def test_layers_show_their_mean_scores() -> None:
    found = table(preference_section(one().runs), "preference-layers")
    assert [(row[0], values(row[1])) for row in found.rows] == [("0", [2.5]), ("1", [25.0])]


def test_seeds_are_averaged_and_trainables_kept_apart() -> None:
    flat: Scores = [(1.0,) * 4, (2.0,) * 4]
    runs = one()
    supernet(runs, "b", flat, seed=1)
    supernet(runs, "c", flat, trainable="all")
    section = preference_section(runs.runs)
    found = table(section, "preference")
    share, gamma = "from the layer's mean (%)", "mean |γ|"
    of_each = [f"{trainable}: {what}" for trainable in ("all", "bn") for what in (share, gamma)]
    assert found.columns == ("candidates with", *of_each)
    kernel5 = found.rows[1]
    assert values(kernel5[1]) == [0]
    # 0.4 and 0: mean 0.2, deviation 0.4 / √2; and 19.25 and 1.5.
    assert values(kernel5[3]) == pytest.approx([0.2, 0.4 / math.sqrt(2)])
    assert values(kernel5[4]) == pytest.approx([10.375, 17.75 / math.sqrt(2)])
    assert "bn scores highest kernel 5 (+20.00" in section.pictures[0].alt


def test_recipes_are_kept_apart_and_the_longest_of_each_shown() -> None:
    runs = MadeUpRuns()
    supernet(runs, "short", TURNED, epochs=4)
    supernet(runs, "a")
    supernet(runs, "b", seed=1)
    supernet(runs, "odd", TURNED, gamma_init=1.0)
    found = [
        each for each in preference_section(runs.runs).tables if each.name == "preference-layers"
    ]
    assert [["gamma_init 0.2" in each.title, "8 epochs" in each.title] for each in found] == [
        [True, True],
        [False, True],
    ]
    assert values(found[0].rows[1][1]) == [25.0, 0.0]


def test_the_figure_shows_means_and_spreads() -> None:
    kernels = {3: Mean(-0.4, 0.1), 5: Mean(0.4, 0.2)}
    figure = preference_figure(
        {"bn": kernels}, {"bn": {1: Mean(0.0, 0.0)}}, {"bn": {2: Mean(7.0, 1.0)}}
    )
    drawn = []
    for axes in figure.axes:
        (bars,) = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
        drawn.append(np.asarray(bars.lines[0].get_ydata()).tolist())
    assert drawn == [[-40.0, 40.0], [0.0], [7.0]]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["3", "5"]
    assert smallest_text_px(figure) >= 8


# --- what is not there ---


def test_without_scores_of_a_finished_supernet_of_fixed_length_a_command_is_named() -> None:
    empty = preference_section(MadeUpRuns().runs)
    assert not empty.blocks
    assert "`bnnas run experiments/configs/quickstart.yaml`" in empty.missing
    for scores in (UP[:1], [UP[0], (1.0, math.nan, 2.0, 3.0)]):
        assert preference_section(one(scores).runs) == empty
    runs = MadeUpRuns()
    supernet(runs, "failed", status="FAILED")
    supernet(runs, "running", seed=1, status="RUNNING")
    supernet(runs, "ended by the early bird", early_bird={"window": 5, "threshold": 0.1})
    assert preference_section(runs.runs) == empty


def test_vanished_layers_have_no_preference() -> None:
    runs = one([(0.0,) * 4, UP[1]])
    found = table(preference_section(runs.runs), "preference")
    assert values(found.rows[0][1]) == pytest.approx([-0.4])


def test_a_space_that_was_cut_is_read_from_a_record() -> None:
    runs = one()
    supernet(runs, "b", seed=1)
    for index in (0, 1):
        cut = f"[{'x' * (MAX_VALUE_CHARS - 30)} … cut, see config.yaml"
        runs.change(index, "params", **{"space.stages": cut})
    found = table(preference_section(runs.runs), "preference-layers")
    assert values(found.rows[0][1]) == [2.5, 0.0]
    del runs.records["b"]  # as on a server whose artifacts cannot be reached
    assert values(table(preference_section(runs.runs), "preference-layers").rows[0][1]) == [2.5]


def test_of_many_groups_the_newest_are_drawn_and_all_have_their_tables() -> None:
    runs = MadeUpRuns()
    for number in range(MOST_PICTURES + 2):
        supernet(runs, f"s{number}", lr=float(number))
    section = preference_section(runs.runs)
    assert len(section.tables) == 2 * (MOST_PICTURES + 2)
    drawn = [picture.title.partition("lr ")[2].partition(",")[0] for picture in section.pictures]
    assert drawn == [f"{number}.0" for number in range(2, MOST_PICTURES + 2)]


# --- the study of recipes ---


def recipes(runs: MadeUpRuns) -> dict[tuple[Entry, ...], tuple[Entry, ...]]:
    """(trainable, γ, weight decay, decays) → (seeds, τ, share of best, τ with FLOPs)."""
    return {row[2:6]: row[6:] for row in recipes_table(runs.runs).rows}


def test_recipes_are_compared_with_the_reference_of_the_same_seed() -> None:
    runs = one()
    supernet(runs, "b", TURNED, seed=1)
    supernet(runs, "c", TURNED, gamma_init=1.0)
    supernet(runs, "d", TURNED, seed=1, gamma_init=1.0)
    supernet(runs, "e", decay_bn_and_bias=True)
    supernet(runs, "f", trainable="all")
    supernet(runs, "g", seed=2, weight_decay=0.0)
    found = recipes(runs)
    assert len(found) == 5
    seeds, tau, best, size = found["bn", "1.0", "0.0001", "no"]
    # Seed 0: τ is 1 in layer 0 and (5 − 1) / 6 in layer 1; seed 1: no difference.
    assert seeds == "0, 1"
    low = (1 + 4 / 6) / 2
    assert values(tau) == pytest.approx([(low + 1) / 2, (1 - low) / math.sqrt(2)])
    assert values(best)[0] == pytest.approx((0.5 + 1) / 2)
    # FLOPs ascend as candidates 0, 2, 1, 3. In layer 0 candidates 1 and 2 disagree, 4 / 6; in layer
    # 1 the scores ascend as 0, 1, 3, 2, which disagrees about (1, 2) and (2, 3): 2 / 6.
    assert values(size)[0] == pytest.approx((4 / 6 + 2 / 6) / 2)
    assert values(found["bn", "0.2", "0.0001", "yes"][1]) == pytest.approx([1])
    assert values(found["all", "0.2", "0.0001", "no"][1]) == pytest.approx([1])
    # Another seed is not compared.
    assert found["bn", "0.2", "0.0", "no"][1:3] == ("–", "–")


def test_the_reference_is_compared_with_its_own_seeds() -> None:
    runs = one()
    supernet(runs, "b", TURNED, seed=1)
    _, tau, best, _ = recipes(runs)["bn (reference)", "0.2", "0.0001", "no"]
    assert values(tau) == pytest.approx([(1 + 4 / 6) / 2])
    assert values(best) == [0.5]


def test_the_reference_is_the_most_common_recipe_that_trains_bn() -> None:
    runs = one()
    for seed in (0, 1, 2):
        supernet(runs, f"c{seed}", trainable="all", seed=seed)
    assert ("bn (reference)", "0.2", "0.0001", "no") in recipes(runs)
    for seed in (0, 1):
        supernet(runs, f"b{seed}", seed=seed, gamma_init=1.0)
    assert ("bn (reference)", "1.0", "0.0001", "no") in recipes(runs)


def test_what_differs_in_more_than_the_recipe_is_not_compared() -> None:
    runs = one()
    supernet(runs, "b", lr=2.0, gamma_init=1.0)
    supernet(runs, "c", epochs=9, gamma_init=1.0)
    assert [key[0] for key in recipes(runs)] == ["bn (reference)"] * 2
    assert len(recipes_table(runs.runs).rows) == 3
