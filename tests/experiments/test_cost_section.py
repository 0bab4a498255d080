"""Table 1 by hand: means over seeds, what is kept apart, and what is found again in MLflow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest

from experiments.report.evidence.cell_groups import cell_sets
from experiments.report.evidence.cost import cost_section
from experiments.report.evidence.searches import SearchGroup
from experiments.report.evidence.values import (
    NOTHING,
    Derived,
    MeanStd,
    Published,
)
from tests.experiments.made_up_runs import (
    Runs,
    check_found_again,
    column,
    number_of,
    table,
    two_seeds,
)
from tests.experiments.test_figures import points


def test_two_seeds_are_one_row_with_their_spread() -> None:
    evidence = two_seeds(Runs()).evidence
    section = cost_section(evidence)
    found = table(section, "cost-sweep")
    assert [row[:4] for row in found.rows] == [("bn", "bn", "10", "2")]
    (top1,) = column(found, "test top-1 (%)")
    assert isinstance(top1, MeanStd)
    assert top1.std is not None
    assert (top1.mean.text, top1.std.text) == ("91.00", "1.41")
    assert top1.std.value == statistics.stdev([0.9, 0.92])
    by_column = {
        "epochs trained": 9.5,  # 10 and 9: the early bird ended one
        "trained parameters": 50.0,
        "of": 500.0,
        "search (s)": 1.0,
        "supernet (device-h)": 0.15,
        "retraining (device-h)": 0.3,
        "whole (device-h)": 0.5,
        "whole (s)": 40.0,
    }
    for name, value in by_column.items():
        assert number_of(column(found, name)[0]).value == pytest.approx(value), name
    assert column(found, "candidates") == ["none"]  # exact search samples none
    assert check_found_again(section, evidence) > 15


def test_candidates_are_those_of_the_searcher_whatever_ranks() -> None:
    runs = two_seeds(Runs())
    for index, run in enumerate(runs.runs):
        if run.kind == "search":
            runs.change(index, "params", **{"search.searcher": "evolution"})
    search = runs.accuracy_search("slow", 0, "supernet0")
    runs.cell("by-accuracy", 0, {"search": search}, indicator="accuracy", parent="sweep")
    found = table(cost_section(runs.evidence), "cost-sweep")
    by_indicator = dict(zip(column(found, "ranked by"), column(found, "candidates"), strict=True))
    shown = {name: number_of(cell).value for name, cell in by_indicator.items()}
    assert shown == {"bn": 1000.0, "accuracy": 300.0}


def test_a_shared_supernet_counts_once_in_a_row() -> None:
    runs = Runs()
    supernet = runs.supernet("supernet", 0)
    search = runs.search("search", 0, supernet)
    for number in (0, 1):  # the same search, retrained with another seed
        inputs = {"supernet": supernet, "search": search, "retrain": runs.retrain(f"r{number}", 0)}
        runs.cell(f"cell{number}", number, inputs)
    (cell_set,) = cell_sets(runs.evidence)
    (group,) = cell_set.groups
    assert [run.run_id for run in group.stages["supernet"]] == ["supernet"]
    assert [run.run_id for run in group.stages["retrain"]] == ["r0", "r1"]


def test_of_two_cells_with_one_seed_the_later_counts() -> None:
    runs = Runs()
    for run_id, top1 in (("old", 0.5), ("new", 0.7)):
        runs.cell(run_id, 0, {}, top1=top1)
    (cell_set,) = cell_sets(runs.evidence)
    assert [[cell.run_id for cell in group.cells] for group in cell_set.groups] == [["new"]]


def test_other_settings_spaces_and_recipes_are_rows_and_tables_of_their_own() -> None:
    runs = Runs()
    runs.cell("a", 0, {"retrain": runs.retrain("ra", 0, **{"retrain.lr": 1})})
    runs.cell("b", 1, {"retrain": runs.retrain("rb", 1, **{"retrain.lr": 2})})
    runs.cell("c", 0, {}, epochs=100)
    runs.cell("d", 0, {}, epochs=30)
    runs.change(-1, "params", space="nano")
    section = cost_section(runs.evidence)
    nano, micro = section.tables[:2]
    assert [row[2] for row in nano.rows] == ["30"]
    assert [row[2:4] for row in micro.rows] == [("10", "1"), ("10", "1"), ("100", "1")]
    assert "Rows of equal names" in micro.note
    assert "Rows of equal names" not in nano.note


def test_the_paper_stands_in_a_table_of_its_own() -> None:
    section = cost_section(two_seeds(Runs()).evidence)
    published = table(section, "cost-published")
    assert [number_of(cell).value for cell in column(published, "top-1 (%)")] == [
        75.73,
        75.67,
        74.07,
        74.12,
    ]
    assert column(published, "searching")[:2] == ["1 GPU day", "0.14s on CPU"]
    for each in section.tables:
        of_others = {
            isinstance(number.source, Published)
            for row in each.rows
            for cell in row
            if not isinstance(cell, str)
            for number in [number_of(cell)]
        }
        assert of_others == {each is published}


def test_searchers_are_compared_over_the_searches_of_one_problem() -> None:
    runs = two_seeds(Runs())
    section = cost_section(runs.evidence)
    found = table(section, "searchers")
    assert [row[:5] for row in found.rows] == [("micro", "digits", "bn", "flops ≤ 400.0 k", "2")]
    assert number_of(column(found, "exact (ms)")[0]).text == "2.0"
    assert number_of(column(found, "evolution gap, mean (%)")[0]).text == "0.50"
    assert number_of(column(found, "evolution gap, max (%)")[0]).text == "1.00"
    assert number_of(column(found, "random gap, mean (%)")[0]).value == 0.2


def test_a_candidate_by_accuracy_costs_so_many_of_those_by_scores() -> None:
    runs = two_seeds(Runs())
    runs.accuracy_search("slow", 0, "supernet0")
    section = cost_section(runs.evidence)
    found = table(section, "scored-searches")
    # 60 s for 300 candidates; evolution on scores took 0.2 s for 1,000.
    per_thousand = number_of(column(found, "1,000 candidates (s)")[0])
    longer = number_of(column(found, "times longer a candidate")[0])
    assert (per_thousand.value, longer.value) == pytest.approx((200.0, 1000.0))
    assert isinstance(per_thousand.source, Derived)
    assert per_thousand.source.run_ids == ("slow",)
    assert isinstance(longer.source, Derived)
    assert longer.source.run_ids == ("slow", "search0", "search1")
    assert not any("accuracy" in sentence for sentence in section.missing)


def test_searches_with_another_budget_are_not_compared() -> None:
    runs = two_seeds(Runs())
    runs.accuracy_search("slow", 0, "supernet0", max_flops=200000)
    found = table(cost_section(runs.evidence), "scored-searches")
    assert column(found, "budget") == ["flops ≤ 200.0 k"]
    assert number_of(column(found, "1,000 candidates (s)")[0]).value == pytest.approx(200.0)
    assert [column(found, name) for name in found.columns[-3:]] == [[NOTHING]] * 3


@pytest.mark.parametrize(
    ("limits", "budget"),
    [
        ({}, "none"),
        ({"max_flops": "null", "max_params": "5e6"}, "params ≤ 5.0 M"),
        ({"max_latency": "3", "min_flops": "2e5"}, "latency ≤ 3, flops ≥ 200.0 k"),
    ],
)
def test_a_budget_is_on_whatever_is_limited(limits: Mapping[str, str], budget: str) -> None:
    params = {"search.top_k": "10", **{f"search.{name}": text for name, text in limits.items()}}
    runs = Runs()
    runs.add("search", "search", params)
    (run,) = runs.runs
    assert SearchGroup("micro", "digits", (run,)).budget == budget


def test_the_front_is_that_of_the_longest_supernet_and_the_lowest_seed() -> None:
    runs = Runs()
    for run_id, seed, epochs in (("a", 0, 10), ("b", 1, 100), ("c", 0, 100), ("d", 0, 30)):
        runs.search(f"search-{run_id}", seed, runs.supernet(run_id, seed, epochs=epochs))
    runs.records["search-c"] = {
        "config": {"search": {"max_flops": 4e5}},
        "result": {
            "front": [{"flops": 1e5, "score": 1.0}, {"flops": 3e5, "score": 2.0}],
            "found": {"exact": {"flops": 3e5, "score": 2.0, "optimality_gap": 0.0}},
        },
    }
    (picture,) = cost_section(runs.evidence).pictures
    assert points(picture.figure.axes[0].lines[0]) == ([0.1, 0.3], [1.0, 2.0])
    assert "2 architectures from 1 at 100.0 k FLOPs to 2 at 300.0 k" in picture.alt
    assert "supernet bn of 100 epochs, seed 0" in picture.title


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"config": {}, "result": {"front": [], "found": {}}},
        {
            "config": {"search": {"max_flops": None}},
            "result": {"front": [{"flops": 1.0, "score": math.nan}], "found": {}},
        },
    ],
)
def test_a_search_without_a_front_is_said_to_have_none(record: Mapping[str, Any] | None) -> None:
    runs = two_seeds(Runs())
    runs.records["search0"] = record
    section = cost_section(runs.evidence)
    assert not section.pictures
    assert any(sentence.startswith("The front of search0") for sentence in section.missing)


def test_an_empty_experiment_names_the_commands() -> None:
    section = cost_section(Runs().evidence)
    assert [each.name for each in section.tables] == ["cost-published"]
    assert len(section.missing) == 3
    assert all("`bnnas " in sentence for sentence in section.missing)


def test_odd_runs_leave_gaps() -> None:
    runs = Runs()
    runs.add("sweep", "sweep", status="RUNNING")
    runs.add("running", "cell", parent="sweep", status="RUNNING")
    runs.cell("nan", 0, {}, parent="sweep", top1=math.nan)
    runs.cell("lost", 1, {"supernet": "elsewhere", "search": "elsewhere"}, parent="sweep")
    old = runs.add("old", "supernet", {"seed": 2}, {"wall_s": math.nan, "device_hours": math.inf})
    params = {"search.indicator": "bn", "seed": "two"}
    search = runs.add("old-search", "search", params, inputs={"supernet": old})
    runs.cell("made-before", 2, {"supernet": old, "search": search}, parent="sweep")
    runs.add("odd", "search", {"search.indicator": "of another version"})
    runs.add("bare", "search", {"search.indicator": "accuracy"}, {"wall_s": 1.0})
    section = cost_section(runs.evidence)
    found = table(section, "cost-sweep")
    assert "2 of 4 cells have no result" in found.note
    assert {number_of(cell).text for cell in column(found, "test top-1 (%)")} == {"90.00"}
    assert column(found, "supernet (device-h)") == [NOTHING, NOTHING]
    assert "searchers" not in [each.name for each in section.tables]
    assert any("1 of 1 supernets do not say" in sentence for sentence in section.missing)
    assert any("1 of 1 searches do not say" in sentence for sentence in section.missing)
    check_found_again(section, runs.evidence)


def test_a_search_that_reads_no_supernet_is_said_to_read_none() -> None:
    runs = Runs()
    search = runs.add("search", "search", {"search.indicator": "flops"}, {"wall_s": 1.0})
    runs.cell("cell", 0, {"search": search}, indicator="flops")
    found = table(cost_section(runs.evidence), "cost-cells run alone, micro on digits")
    assert found.rows[0][:3] == ("no supernet", "flops", NOTHING)
