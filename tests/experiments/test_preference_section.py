"""The preference section against scores whose preferences are computed by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from experiments.figures.preference import Preference, Spread, preference_figure
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import MOST_PICTURES
from experiments.report.evidence.preference import preference_section
from experiments.report.evidence.values import Cell, Derived, MeanStd, Section, Table
from orchestration.tracking.params import MAX_VALUE_CHARS, flatten_params
from orchestration.tracking.reader import TrackedExperiment, TrackedRun
from tests.experiments.test_early_bird_section import smallest_text_px

# Two layers; candidates k3e1, k3e2, k5e1, k5e2, and their FLOPs in ascending order 0, 2, 1, 3.
SPACE = {
    "input": {"channels": 1, "resolution": 8, "num_classes": 10},
    "stem": {"channels": 4, "stride": 1},
    "first_block": {"channels": 4, "kernel": 3, "stride": 1},
    "stages": [
        {
            "channels": 4,
            "layers": 2,
            "stride": 1,
            "candidates": [[3, 1], [3, 2], [5, 1], [5, 2]],
        }
    ],
    "head": {"channels": 8},
    "fixed_identity": [],
    "se": False,
}
Scores = Sequence[Sequence[float]]

# Layer 0 has mean 2.5, layer 1 mean 25.
UP: Scores = [(1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 30.0, 40.0)]
# The same but for the last two candidates of layer 1.
TURNED: Scores = [(1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 40.0, 30.0)]
REFERENCE = {"gamma_init": 0.2, "weight_decay": 1e-4, "decay_bn_and_bias": False}


def supernet(
    run_id: str,
    scores: Scores = UP,
    trainable: str = "bn",
    seed: int = 0,
    epochs: int = 8,
    status: str = "FINISHED",
    **recipe: Any,
) -> TrackedRun:
    section = {"trainable": trainable, "epochs": epochs, "early_bird": None, **REFERENCE, **recipe}
    config: dict[str, Any] = {
        "space": SPACE,
        "seed": seed,
        "data": {"name": "digits"},
        "supernet": section,
    }
    metrics = {
        f"score/{layer:02d}.{choice}": value
        for layer, row in enumerate(scores)
        for choice, value in enumerate(row)
    }
    tags = {"bnnas.stage": "supernet", "bnnas.published": "x"}
    return TrackedRun(run_id, run_id, status, flatten_params(config), metrics, tags, 0.0)


def section_of(*runs: TrackedRun, records: Mapping[str, Any] | None = None) -> Section:
    experiment = TrackedExperiment("", "e", runs, 0, dict(records or {}))
    return preference_section(Evidence(experiment))


def values(cell: Cell) -> list[float]:
    """The mean, and the deviation where there is one."""
    assert isinstance(cell, MeanStd)
    assert isinstance(cell.mean.source, Derived)
    return [each.value for each in (cell.mean, cell.std) if each is not None]


def run_ids(cell: Cell) -> tuple[str, ...]:
    """The runs that a mean comes from, which its deviation has too."""
    assert isinstance(cell, MeanStd)
    found = [each.source for each in (cell.mean, cell.std) if each is not None]
    assert all(isinstance(source, Derived) for source in found)
    (ids,) = {source.run_ids for source in found if isinstance(source, Derived)}
    return ids


def table(section: Section, name: str) -> Table:
    return next(each for each in section.tables if each.name == name)


def missing(section: Section) -> str:
    return " ".join(section.missing)


# --- what it prefers ---


def test_preferences_are_shares_of_the_layers_means() -> None:
    found = table(section_of(supernet("a")), "preference")
    # In both layers alike: candidates at −60, −20, +20 and +60 % of the mean.
    names = ["kernel 3", "kernel 5", "expansion 1", "expansion 2"]
    assert [row[0] for row in found.rows] == names
    assert [len(values(cell)) for row in found.rows for cell in row[1:]] == [1] * 8
    shares = [values(row[1])[0] for row in found.rows]
    assert shares == pytest.approx([-0.4, 0.4, -0.2, 0.2])
    # Plain means over both layers: of 1, 2, 10 and 20; of 3, 4, 30 and 40; and so on.
    assert [values(row[2])[0] for row in found.rows] == [8.25, 19.25, 11.0, 16.5]


def test_layers_show_their_mean_scores() -> None:
    found = table(section_of(supernet("a")), "preference-layers")
    assert [(row[0], values(row[1])[0]) for row in found.rows] == [("0", 2.5), ("1", 25.0)]


def test_seeds_are_averaged_and_trainables_kept_apart() -> None:
    flat: Scores = [(1.0,) * 4, (2.0,) * 4]
    section = section_of(supernet("a"), supernet("b", flat, seed=1), supernet("c", flat, "all"))
    found = table(section, "preference")
    share, gamma = "from the layer's mean (%)", "mean |γ|"
    of_each = [f"{trainable}: {what}" for trainable in ("all", "bn") for what in (share, gamma)]
    assert found.columns == ("candidates with", *of_each)
    kernel5 = found.rows[1]
    assert values(kernel5[1]) == [0]
    # 0.4 and 0: mean 0.2, deviation 0.4 / √2; and 19.25 and 1.5.
    assert values(kernel5[3]) == pytest.approx([0.2, 0.4 / math.sqrt(2)])
    assert values(kernel5[4]) == pytest.approx([10.375, 17.75 / math.sqrt(2)])
    assert [run_ids(cell) for cell in kernel5[1:]] == [("c",), ("c",), ("a", "b"), ("a", "b")]
    assert "bn scores highest kernel 5 (+20.00 %)" in section.pictures[0].alt


def test_only_the_reference_recipe_of_the_longest_is_shown() -> None:
    section = section_of(
        supernet("short", TURNED, epochs=4),
        supernet("a"),
        supernet("b", seed=1),
        supernet("odd", TURNED, gamma_init=1.0),
    )
    found = table(section, "preference-layers")
    assert "8 epochs" in found.title
    assert values(found.rows[1][1]) == [25.0, 0.0]
    assert len(section.pictures) == 1


def test_the_figure_shows_means_and_spreads() -> None:
    preference = Preference(
        {3: Spread(-0.4, 0.1), 5: Spread(0.4, 0.2)}, {1: Spread(0.0, 0.0)}, {2: Spread(7.0, 1.0)}
    )
    figure = preference_figure({"bn": preference})
    drawn = []
    for axes in figure.axes:
        (bars,) = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
        drawn.append(np.asarray(bars.lines[0].get_ydata()).tolist())
    assert drawn == [[-40.0, 40.0], [0.0], [7.0]]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["3", "5"]
    assert smallest_text_px(figure) >= 8


# --- what changes the ranking ---


def recipes(section: Section) -> dict[tuple[Cell, ...], tuple[Cell, ...]]:
    """(trainable, γ, weight decay, decays) → (seeds, τ, share of best, τ with FLOPs)."""
    return {row[2:6]: row[6:] for row in table(section, "recipes").rows}


def test_recipes_are_compared_with_the_reference_of_the_same_seed() -> None:
    section = section_of(
        supernet("a"),
        supernet("b", TURNED, seed=1),
        supernet("c", TURNED, gamma_init=1.0),
        supernet("d", TURNED, seed=1, gamma_init=1.0),
        supernet("e", UP, decay_bn_and_bias=True),
        supernet("f", UP, "all"),
    )
    found = recipes(section)
    assert len(found) == 4
    seeds, tau, best, size = found["bn", "1.0", "0.0001", "no"]
    # Seed 0: τ is 1 in layer 0 and (5 − 1) / 6 in layer 1; seed 1: no difference.
    assert seeds == "0, 1"
    low = (1 + 4 / 6) / 2
    assert values(tau) == pytest.approx([(low + 1) / 2, (1 - low) / math.sqrt(2)])
    assert values(best)[0] == pytest.approx((0.5 + 1) / 2)
    # FLOPs ascend as candidates 0, 2, 1, 3. In layer 0 candidates 1 and 2 disagree, 4 / 6; in layer
    # 1 the scores ascend as 0, 1, 3, 2, which disagrees about (1, 2) and (2, 3): 2 / 6.
    assert values(size)[0] == pytest.approx((4 / 6 + 2 / 6) / 2)
    assert run_ids(tau) == run_ids(best) == ("c", "a", "d", "b")
    assert run_ids(size) == ("c", "d")
    assert values(found["bn", "0.2", "0.0001", "yes"][1]) == pytest.approx([1])
    assert values(found["all", "0.2", "0.0001", "no"][1]) == pytest.approx([1])


def test_the_reference_is_compared_with_its_own_seeds() -> None:
    found = recipes(section_of(supernet("a"), supernet("b", TURNED, seed=1)))
    _, tau, best, _ = found["bn (reference)", "0.2", "0.0001", "no"]
    assert values(tau) == pytest.approx([(1 + 4 / 6) / 2])
    assert values(best) == [0.5]


def test_the_reference_is_the_most_common_recipe_that_trains_bn() -> None:
    runs = [supernet("a"), *(supernet(f"b{seed}", seed=seed, gamma_init=1.0) for seed in (0, 1))]
    runs += [supernet(f"c{seed}", trainable="all", seed=seed) for seed in (0, 1, 2)]
    found = recipes(section_of(*runs))
    assert ("bn (reference)", "1.0", "0.0001", "no") in found


def test_what_differs_in_more_than_the_recipe_is_not_compared() -> None:
    section = section_of(supernet("a"), supernet("b", lr=2.0, gamma_init=1.0))
    assert all("(reference)" in str(key[0]) for key in recipes(section))
    assert missing(section).count("has another initial γ than") == 2


def test_another_seed_is_not_compared() -> None:
    section = section_of(supernet("a"), supernet("b", seed=1, gamma_init=1.0))
    assert recipes(section)["bn", "1.0", "0.0001", "no"][1:3] == ("–", "–")
    assert "shares no seed with the reference" in missing(section)


def test_what_nothing_varies_is_said_with_its_command() -> None:
    said = missing(section_of(supernet("a")))
    for command in (
        "--set supernet.gamma_init=1 --set name=gamma_init_1",
        "--set supernet.decay_bn_and_bias=true --set name=decay_bn",
        "--set 'grid.trainable=[all,bn,last_bn]' --set name=trainables",
    ):
        assert f"`bnnas sweep CONFIG {command}`" in said
    varied = section_of(
        supernet("a"),
        supernet("b", gamma_init=1.0),
        supernet("c", decay_bn_and_bias=True),
        supernet("d", trainable="all"),
        supernet("e", trainable="last_bn"),
    )
    assert not varied.missing


def test_what_one_family_varies_another_may_not() -> None:
    section = section_of(
        supernet("a", lr=1.0), supernet("b", lr=1.0, gamma_init=1.0), supernet("c", lr=2.0)
    )
    gaps = [each for each in section.missing if "has another initial γ than 0.2" in each]
    assert [each.partition(":")[0] for each in gaps] == ["space of 2 layers, digits, lr 2.0"]


def test_supernets_that_all_decay_are_said_to_lack_some_that_do_not() -> None:
    said = missing(section_of(supernet("a", decay_bn_and_bias=True)))
    assert "no supernet beside the reference spares BN and biases" in said
    assert "--set supernet.decay_bn_and_bias=false --set name=spare_bn`" in said


# --- odd data ---


def test_nothing_tracked_is_said() -> None:
    section = section_of()
    assert not section.blocks
    assert "No supernet has tracked its scores" in missing(section)


@pytest.mark.parametrize("scores", [UP[:1], [UP[0], (1.0, math.nan, 2.0, 3.0)]])
def test_scores_that_are_not_whole_leave_a_gap(scores: Scores) -> None:
    section = section_of(supernet("odd", scores))
    assert not section.blocks
    assert "odd tracked no whole table of finite scores" in missing(section)


def test_vanished_layers_have_no_preference() -> None:
    section = section_of(supernet("a", [(0.0,) * 4, UP[1]]))
    assert values(table(section, "preference").rows[0][1]) == pytest.approx([-0.4])


def test_supernets_that_are_not_finished_are_left_out() -> None:
    section = section_of(supernet("a", status="FAILED"), supernet("b", seed=1, status="RUNNING"))
    assert not section.blocks
    assert "not finished" not in missing(section)  # the early-bird section says so


def test_a_space_that_was_cut_is_read_from_one_record() -> None:
    runs = [supernet("a"), supernet("b", seed=1)]
    for each in runs:
        assert isinstance(each.params, dict)
        each.params["space.stages"] = f"[{'x' * (MAX_VALUE_CHARS - 30)} … cut, see config.yaml"
    section = section_of(*runs, records={"a": {"config": {"space": SPACE}}})
    assert values(table(section, "preference-layers").rows[0][1]) == [2.5, 0.0]


def test_of_many_groups_the_newest_are_drawn_and_all_have_their_tables() -> None:
    many = [
        replace(supernet(f"s{n}", lr=float(n)), started_at=float(n))
        for n in range(MOST_PICTURES + 2)
    ]
    section = section_of(*many)
    titles = [picture.title for picture in section.pictures]
    assert len(titles) == MOST_PICTURES
    assert not [title for title in titles if re.search(r"lr [01]\.0", title)]
    assert len(section.tables) == 2 * (MOST_PICTURES + 2) + 1
    assert "2 older groups of supernets are not drawn" in missing(section)
