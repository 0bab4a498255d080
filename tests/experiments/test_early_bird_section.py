"""The early-bird section against epochs whose ranks, winners and losses are computed by hand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.config.load import load_sweep
from experiments.figures.early_bird import Similarity, early_bird_figure
from experiments.report.evidence.early_bird import early_bird_section
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import MOST_PICTURES
from experiments.report.evidence.values import Cell, Derived, Number, Section, Tracked
from nas.cost import flops_table
from nas.space import space_from_dict
from orchestration.tracking.params import flatten_params
from orchestration.tracking.reader import TrackedExperiment, TrackedRun

# One layer of three candidates, of which the last is by far the dearest.
SPACE = {
    "input": {"channels": 1, "resolution": 8, "num_classes": 10},
    "stem": {"channels": 4, "stride": 1},
    "first_block": {"channels": 4, "kernel": 3, "stride": 1},
    "stages": [{"channels": 4, "layers": 1, "stride": 1, "candidates": [[3, 1], [5, 1], [5, 6]]}],
    "head": {"channels": 8},
    "fixed_identity": [],
    "se": False,
}
FLOPS_N = flops_table(space_from_dict(SPACE)).table_LN[0]
CONSTANT = flops_table(space_from_dict(SPACE)).constant
Scores = Sequence[Sequence[float]]

# Six epochs alike, so that the stop ends it after the sixth; then the first two change places.
SETTLED: Scores = [(3.0, 2.0, 1.0)] * 6 + [(2.0, 4.0, 1.0)] * 2
RESTLESS: Scores = [(3.0, 2.0, 1.0), (1.0, 2.0, 3.0)] * 4


def run(
    run_id: str,
    kind: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    inputs: Mapping[str, str] | None = None,
    status: str = "FINISHED",
    command: str | None = None,
    started_at: float = 0.0,
) -> TrackedRun:
    tags = {"bnnas.stage": kind, "bnnas.published": "x"}
    tags |= {f"bnnas.input.{name}": of for name, of in (inputs or {}).items()}
    if command is not None:
        tags["mlflow.source.name"] = command
    return TrackedRun(
        run_id, run_id, status, flatten_params(params), metrics or {}, tags, started_at
    )


def supernet(
    run_id: str,
    scores: Scores,
    trainable: str = "bn",
    seed: int = 0,
    epochs: int = 8,
    status: str = "FINISHED",
    command: str | None = None,
    started_at: float = 0.0,
    **recipe: Any,
) -> tuple[TrackedRun, dict[str, Any]]:
    """A run, and its record."""
    section = {"trainable": trainable, "epochs": epochs, "early_bird": None, **recipe}
    config = {"space": SPACE, "seed": seed, "data": {"name": "digits"}, "supernet": section}
    history = [
        {"epoch": number, **{f"score/00.{choice}": value for choice, value in enumerate(row)}}
        for number, row in enumerate(scores, start=1)
    ]
    metrics = {"epochs": float(len(scores)), "device_hours": 0.5 + seed}
    made = run(
        run_id,
        "supernet",
        config,
        metrics,
        status=status,
        command=command,
        started_at=started_at,
    )
    return made, {"config": config, "history": history}


def search(run_id: str, of: str, indicator: str = "bn", **limits: float) -> TrackedRun:
    section = {"indicator": indicator, "max_flops": None, "min_flops": None, **limits}
    return run(run_id, "search", {"space": SPACE, "search": section}, inputs={"supernet": of})


def cell(run_id: str, of: str, winner: str, top1: float, indicator: str = "bn") -> TrackedRun:
    params = {"indicator": indicator, "max_flops": 1, "retrain_epochs": 2, "winner": winner}
    return run(run_id, "cell", params, {"top1": top1}, {"supernet": of})


def section_of(
    *supernets: tuple[TrackedRun, dict[str, Any]], others: Sequence[TrackedRun] = ()
) -> Section:
    records: dict[str, Any] = {made.run_id: record for made, record in supernets}
    runs = (*(made for made, _ in supernets), *others)
    return early_bird_section(Evidence(TrackedExperiment("", "e", runs, 0, records)))


def value(cell: Cell) -> float:
    assert isinstance(cell, Number)
    return cell.value


def source_of(cell: Cell) -> Derived:
    assert isinstance(cell, Number)
    assert isinstance(cell.source, Derived)
    return cell.source


def missing(section: Section) -> str:
    return " ".join(section.missing)


# --- supernets of fixed length ---


def test_the_stop_its_saving_and_its_loss_by_hand() -> None:
    section = section_of(supernet("a", SETTLED), others=[search("s", "a")])
    (row,) = section.tables[0].rows
    assert row[:2] == ("bn", "0")
    assert isinstance(row[2], Number)
    assert row[2].source == Tracked("epochs", ("a",))
    assert (value(row[2]), value(row[4]), value(row[5])) == (8, 6, 2)
    # Of three pairs of ranks one is turned round: (2 − 1) / 3.
    assert value(row[6]) == pytest.approx(1 / 3)
    # The winner then is candidate 0, at the end candidate 1: 2.0 instead of 4.0.
    assert isinstance(row[7], Number)
    assert row[7].text == "no"
    assert value(row[8]) == pytest.approx(0.5)
    assert [source_of(each).run_ids for each in row[4:]] == [("a",)] * 3 + [("a", "s")] * 2
    assert not any("of run" in source_of(each).rule for each in row[4:])


def test_the_winner_keeps_the_budget_of_the_search() -> None:
    # The highest score moves to the candidate that is too dear: the winner below stays.
    scores = [(3.0, 2.0, 1.0)] * 6 + [(3.0, 2.0, 9.0)]
    budget = CONSTANT + float(FLOPS_N[1])
    free, bound = (
        section_of(supernet("a", scores, epochs=7), others=[search("s", "a", max_flops=limit)])
        .tables[0]
        .rows[0]
        for limit in (math.inf, budget)
    )
    assert (value(free[7]), value(bound[7])) == (0, 1)
    assert [value(free[8]), value(bound[8])] == pytest.approx([2 / 3, 0])


def test_the_search_by_the_bn_indicator_gives_the_budget() -> None:
    other = search("other", "a", "accuracy", max_flops=1.0)  # which nothing keeps
    section = section_of(supernet("a", SETTLED), others=[other, search("s", "a")])
    assert source_of(section.tables[0].rows[0][7]).run_ids == ("a", "s")
    alone = section_of(supernet("a", SETTLED), others=[other])
    assert alone.tables[0].rows[0][7:] == ("–", "–")


def test_ranks_that_never_settle_have_no_stop() -> None:
    section = section_of(supernet("a", RESTLESS), others=[search("s", "a")])
    assert section.tables[0].rows[0][4:] == ("never", "–", "–", "–", "–")


def test_without_a_search_there_is_no_winner() -> None:
    section = section_of(supernet("a", SETTLED))
    assert section.tables[0].rows[0][7:] == ("–", "–")
    assert "1 of 1 supernets have no search" in missing(section)


def test_the_longest_of_each_trainable_and_seed_are_rowed_and_the_lowest_seed_is_drawn() -> None:
    section = section_of(
        supernet("short", SETTLED[:6], epochs=6),
        supernet("seed1", SETTLED, seed=1),
        supernet("seed0", SETTLED),
        supernet("all", RESTLESS, trainable="all"),
    )
    rows = section.tables[0].rows
    assert [row[:2] for row in rows] == [("all", "0"), ("bn", "0"), ("bn", "1")]
    assert [value(row[2]) for row in rows] == [8, 8, 8]
    titles = [axes.get_title() for axes in section.pictures[0].figure.axes]
    assert titles[:2] == ["all, seed 0\nno stop", "bn, seed 0\nstop: epoch 6"]
    assert "bn, seed 0: 8 epochs, settled after epoch 6" in section.pictures[0].alt


def test_supernets_that_differ_in_more_are_kept_apart() -> None:
    section = section_of(
        supernet("a", SETTLED, lr=1.0), supernet("b", SETTLED, trainable="all", lr=2.0)
    )
    assert [len(table.rows) for table in section.tables] == [1, 1]
    assert [table.name for table in section.tables] == ["early-bird", "early-bird"]
    assert "lr 1.0" in section.tables[0].title
    assert "lr 2.0" in section.tables[1].title
    assert "one trainable only" in missing(section)


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


@pytest.mark.parametrize("num_panels", [1, 2, 3, 5])
def test_the_figure_can_be_read_on_a_phone(num_panels: int) -> None:
    panel = Similarity("bn", np.eye(3), 2)
    figure = early_bird_figure([panel] * num_panels)
    drawn = [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]
    assert len(drawn) == num_panels
    assert smallest_text_px(figure) >= 8


# --- supernets that the stop was allowed to end ---


def stopped(run_id: str, **recipe: Any) -> tuple[TrackedRun, dict[str, Any]]:
    return supernet(
        run_id, SETTLED[:6], early_bird={"window": 5, "threshold": 0.1}, **{"epochs": 8, **recipe}
    )


def test_a_stopped_supernet_stands_beside_the_one_of_its_config() -> None:
    section = section_of(
        supernet("other", SETTLED, lr=3.0, seed=1),
        supernet("full", SETTLED, lr=1.0),
        stopped("early", lr=1.0),
        others=[
            cell("c1", "early", "0", 0.5, "accuracy"),
            cell("c2", "early", "1", 0.75),
            cell("c3", "full", "0", 0.25),
        ],
    )
    table = section.tables[-1]
    (row,) = table.rows
    assert row[1:5] == ("bn", "0", "5, 0.1", "8")
    assert source_of(row[8]).run_ids == ("c2", "c3")
    numbers = [each for each in row[5:] if isinstance(each, Number)]
    assert [number.value for number in numbers] == [6, 0.5, 0.5, 0, 0.75, 0.25]
    assert [number.source for number in numbers if isinstance(number.source, Tracked)] == [
        Tracked("epochs", ("early",)),
        Tracked("device_hours", ("early",)),
        Tracked("device_hours", ("full",)),
        Tracked("top1", ("c2",)),
        Tracked("top1", ("c3",)),
    ]
    assert "early_bird.window" not in missing(section)
    assert len(section.tables) == 3  # and in no table of fixed length


def test_a_stopped_supernet_without_its_like() -> None:
    section = section_of(stopped("early"), supernet("full", SETTLED, seed=1))
    assert section.tables[-1].rows[0][7:] == ("–",) * 4
    assert "supernet.early_bird=null" in missing(section)


def test_without_stopped_supernets_the_command_is_named() -> None:
    section = section_of(supernet("a", SETTLED))
    command = (
        "bnnas sweep CONFIG --set 'grid.indicator=[bn]' --set supernet.early_bird.window=5 "
        "--set name=early_bird"
    )
    assert f"`{command}`" in missing(section)


# --- commands ---


def test_a_study_s_supernets_are_compared_by_a_sweep_of_the_study_s_file() -> None:
    command = "bnnas correlate study.yaml --set storage.path=here"
    said = missing(section_of(supernet("a", SETTLED, command=command)))
    sweep = "bnnas sweep study.yaml --set storage.path=here"
    for settings in (
        "--set 'grid.trainable=[all,bn]' --set name=trainables",
        "--set 'grid.indicator=[bn]' --set name=searched",
        "--set 'grid.indicator=[bn]' --set supernet.early_bird.window=5 --set name=early_bird",
    ):
        assert f"`{sweep} {settings}`" in said
    assert "CONFIG" not in said


def test_a_sweep_can_be_made_of_a_study_s_file() -> None:
    file = Path(__file__).parents[2] / "experiments/configs/correlation_fashion_mnist.yaml"
    sweep = load_sweep(file, ["grid.trainable=[all,bn]", "name=trainables"])
    assert sweep.name == "trainables"
    assert {cell.supernet.trainable for cell in sweep.cells} == {"all", "bn"}


# --- odd data ---


def test_the_newest_records_are_read_once_each() -> None:
    many = [supernet(f"s{n}", SETTLED[:2], seed=n, started_at=float(n)) for n in range(123)]
    asked: Counter[str] = Counter()

    class Counted(Evidence):
        def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
            asked[run.run_id] += 1
            return super().record(run)

    records: dict[str, Any] = {made.run_id: record for made, record in many}
    runs = tuple(made for made, _ in many)
    section = early_bird_section(Counted(TrackedExperiment("", "e", runs, 0, records)))
    assert asked == {f"s{n}": 1 for n in range(3, 123)}
    assert "3 older supernets are left out" in missing(section)


def test_nothing_tracked_is_said() -> None:
    section = section_of()
    assert not section.blocks
    assert "No supernet of fixed length is finished" in missing(section)


@pytest.mark.parametrize(
    "scores", [[(1.0, math.nan, 2.0)] * 8, [(1.0, 2.0)] * 8, [(1.0, math.inf, 2.0)] * 8, []]
)
def test_scores_that_are_not_whole_leave_a_gap(scores: Scores) -> None:
    section = section_of(supernet("odd", scores), supernet("a", SETTLED, trainable="all"))
    assert len(section.tables[0].rows) == 1
    assert "scores of odd cannot be read back whole" in missing(section)


def test_a_supernet_that_is_not_finished_is_left_out() -> None:
    section = section_of(supernet("a", SETTLED, status="RUNNING"))
    assert not section.blocks
    assert "1 supernet is not finished" in missing(section)


def test_of_many_groups_the_newest_are_drawn_and_all_have_their_tables() -> None:
    many = [
        supernet(f"s{n}", SETTLED, lr=float(n), started_at=float(n))
        for n in range(MOST_PICTURES + 2)
    ]
    section = section_of(*many)
    titles = [picture.title for picture in section.pictures]
    assert len(titles) == MOST_PICTURES
    assert not [title for title in titles if re.search(r"lr [01]\.0", title)]
    assert len(section.tables) == MOST_PICTURES + 2
    assert "2 older groups of supernets are not drawn" in missing(section)
