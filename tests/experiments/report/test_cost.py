"""Table 1 by hand: means over seeds, what is kept apart, and searchers against each other."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest

from experiments.report.cells import cell_sets
from experiments.report.cost import cost_section
from experiments.report.lineage import lineage_section
from experiments.report.tables import NOTHING, Number
from tests.experiments.made_up_runs import MadeUpRuns, names, row, table, two_seeds, value


def test_two_seeds_are_one_row_with_their_spread() -> None:
    section = cost_section(two_seeds().runs)
    found = table(section, "cost-sweep")
    assert [each[:4] for each in found.rows] == [("bn", "bn", "10", "2")]
    (top1,) = found.column("test top-1 (%)")
    assert isinstance(top1, Number)
    assert str(top1) == "91.00 ± 1.41"
    assert top1.std == statistics.stdev([0.9, 0.92])
    expected = {
        "epochs trained": 9.5,  # 10 and 9: the early bird ended one
        "trained parameters": 50.0,
        "of": 500.0,
        "search (s)": 1.0,
        "supernet (device-h)": 0.15,
        "search (device-h)": 0.001,
        "retraining (device-h)": 0.3,
        "whole (device-h)": 0.5,
        "whole (s)": 40.0,
    }
    shown = {heading: value(cell) for heading, cell in row(found).items() if heading in expected}
    assert shown == pytest.approx(expected)
    assert found.column("candidates") == ["none"]  # exact search samples none


def test_candidates_are_those_of_the_searcher_whatever_ranks() -> None:
    runs = two_seeds()
    for index, run in enumerate(runs.tracked):
        if run.kind == "search":
            runs.change(index, "params", **{"search.searcher": "evolution"})
    search = runs.accuracy_search("slow", 0, "supernet0")
    runs.cell("by-accuracy", 0, {"search": search}, indicator="accuracy", parent="sweep")
    found = table(cost_section(runs.runs), "cost-sweep")
    candidates = dict(zip(found.column("ranked by"), found.column("candidates"), strict=True))
    assert {name: value(cell) for name, cell in candidates.items()} == {
        "bn": 1000.0,
        "accuracy": 300.0,
    }


def test_a_shared_supernet_counts_once_in_a_row_and_in_what_it_all_cost() -> None:
    runs = MadeUpRuns()
    supernet = runs.supernet("supernet", 0)
    search = runs.search("search", 0, supernet)
    for number in (0, 1):  # the same search, retrained with another seed
        inputs = {"supernet": supernet, "search": search, "retrain": runs.retrain(f"r{number}", 0)}
        runs.cell(f"cell{number}", number, inputs)
    (cell_set,) = cell_sets(runs.runs)
    (group,) = cell_set.groups
    assert list(group.stages["supernet"].index) == ["supernet"]
    assert list(group.stages["retrain"].index) == ["r0", "r1"]
    for index in range(len(runs.tracked)):
        runs.change(index, "tags", **{"bnnas.fingerprint": str(index)})
    stages = table(lineage_section(runs.runs), "stages")
    hours = dict(zip(stages.column("stage"), stages.column("device time (s)"), strict=True))
    assert value(hours["supernet"]) == 0.1
    assert value(hours["retrain"]) == 0.6


def test_of_two_cells_with_one_seed_the_later_counts() -> None:
    runs = MadeUpRuns()
    for run_id, top1 in (("old", 0.5), ("new", 0.7)):
        runs.cell(run_id, 0, {}, top1=top1)
    (cell_set,) = cell_sets(runs.runs)
    assert [list(group.cells.index) for group in cell_set.groups] == [["new"]]


def test_other_settings_spaces_and_recipes_are_rows_and_tables_of_their_own() -> None:
    runs = MadeUpRuns()
    runs.cell("a", 0, {"retrain": runs.retrain("ra", 0, **{"retrain.lr": 1})})
    runs.cell("b", 1, {"retrain": runs.retrain("rb", 1, **{"retrain.lr": 2})})
    runs.cell("c", 0, {}, epochs=100)
    runs.cell("d", 0, {}, epochs=30)
    runs.change(-1, "params", space="nano")
    nano, micro = cost_section(runs.runs).tables[:2]
    assert [each[2] for each in nano.rows] == ["30"]
    assert [each[2:4] for each in micro.rows] == [("10", "1"), ("10", "1"), ("100", "1")]
    assert "Rows of equal names" in micro.note
    assert "Rows of equal names" not in nano.note


def test_the_paper_is_quoted_only_where_something_measured_on_imagenet_stands_beside_it() -> None:
    runs = two_seeds()
    assert "cost-published" not in names(cost_section(runs.runs))
    imagenet = {"data.name": "imagefolder", "space.input.num_classes": "1000"}
    inputs = {"search": "search0", "retrain": runs.retrain("r", 0, **imagenet)}
    runs.cell("on-imagenet", 0, inputs, top1=0.75)
    published = table(cost_section(runs.runs), "cost-published")
    top1 = [value(cell) for cell in published.column("top-1 (%)")]
    assert top1 == [75.73, 75.67, 74.07, 74.12, 0.75]
    searching = published.column("searching")
    # A number without its unit would say that 1 day is longer than 0.14 s by a factor of seven.
    assert searching == [*("1 GPU day", "0.14s on CPU") * 2, "0.50 s"]


def test_searchers_are_compared_over_the_searches_of_one_problem() -> None:
    found = table(cost_section(two_seeds().runs), "searchers")
    assert [each[:5] for each in found.rows] == [("micro", "digits", "bn", "flops ≤ 400.0 k", "2")]
    headings = ("exact (ms)", "evolution gap, mean (%)", "evolution gap, max (%)")
    assert [str(row(found)[heading]) for heading in headings] == ["2.0", "0.50", "1.00"]
    assert value(row(found)["random gap, mean (%)"]) == 0.2


@pytest.mark.parametrize(
    ("max_flops", "table_s", "evaluated", "longer"),
    [(400000, 0.2, 1000, 1000), (200000,) + (None,) * 3],
)
def test_a_candidate_by_accuracy_costs_so_many_of_those_by_scores_under_the_same_budget(
    max_flops: int, table_s: float | None, evaluated: float | None, longer: float | None
) -> None:
    runs = two_seeds()
    runs.accuracy_search("slow", 0, "supernet0", max_flops=max_flops)
    section = cost_section(runs.runs)
    found = row(table(section, "scored-searches"))
    # 60 s for 300 candidates; evolution on scores took 0.2 s for 1,000.
    assert value(found["1,000 candidates (s)"]) == pytest.approx(200.0)
    beside = [None if cell == NOTHING else value(cell) for cell in list(found.values())[-3:]]
    assert beside == pytest.approx([table_s, evaluated, longer])
    assert not section.missing


def test_a_budget_is_on_whatever_is_limited() -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "none"),
        ({"max_flops": "null", "max_params": "5e6"}, "params ≤ 5.0 M"),
        ({"max_latency": "3", "min_flops": "2e5"}, "latency ≤ 3, flops ≥ 200.0 k"),
    ]
    runs = MadeUpRuns()
    for number, (limits, _) in enumerate(cases):
        params = {f"search.{name}": text for name, text in limits.items()}
        params |= {"search.indicator": "accuracy", "search.top_k": "10"}
        runs.add(f"search{number}", "search", params)
    found = table(cost_section(runs.runs), "scored-searches")
    assert found.column("budget") == [budget for _, budget in cases]


def test_the_front_is_that_of_the_longest_supernet_and_the_lowest_seed() -> None:
    runs = MadeUpRuns()
    for run_id, seed, epochs in (("a", 0, 10), ("b", 1, 100), ("c", 0, 100), ("d", 0, 30)):
        supernet = runs.supernet(run_id, seed, epochs=epochs)
        runs.change(-1, "metrics", epochs=float(epochs))
        runs.search(f"search-{run_id}", seed, supernet)
    front = [{"flops": 1e5, "score": 1.0}, {"flops": 3e5, "score": 2.0}]
    runs.records["search-c"] = {
        "config": {"search": {"max_flops": 4e5}},
        "result": {"front": front, "found": {"exact": front[1] | {"optimality_gap": 0.0}}},
    }
    (picture,) = cost_section(runs.runs).pictures
    figure = picture.draw()
    assert figure is not None
    assert np.asarray(figure.axes[0].lines[0].get_xydata()).tolist() == [[0.1, 1.0], [0.3, 2.0]]
    assert "2 architectures from 1 at 100.0 k FLOPs to 2 at 300.0 k" in picture.alt
    assert "supernet bn of 100 epochs, seed 0" in picture.title


def test_a_search_without_a_whole_front_has_no_picture() -> None:
    point = {"flops": 1.0, "score": math.nan}
    records: list[dict[str, Any] | None] = [
        None,
        {},
        {"config": {}, "result": {"front": [], "found": {}}},
        {
            "config": {"search": {"max_flops": None}},
            "result": {"front": [point, point], "found": {}},
        },
    ]
    for record in records:
        runs = two_seeds()
        runs.records["search0"] = record
        section = cost_section(runs.runs)
        assert not section.pictures
        assert "searchers" in names(section)


def test_without_results_one_line_names_the_command() -> None:
    section = cost_section(MadeUpRuns().runs)
    assert not section.blocks
    assert section.missing.count("`bnnas run ") == 1


def test_odd_runs_leave_gaps() -> None:
    runs = MadeUpRuns()
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
    section = cost_section(runs.runs)
    found = table(section, "cost-sweep")
    assert "2 of 4 cells have no result" in found.note
    assert {str(cell) for cell in found.column("test top-1 (%)")} == {"90.00"}
    assert found.column("supernet (device-h)") == [NOTHING, NOTHING]
    assert "searchers" not in names(section)


def test_a_search_that_reads_no_supernet_is_said_to_read_none() -> None:
    runs = MadeUpRuns()
    search = runs.add("search", "search", {"search.indicator": "flops"}, {"wall_s": 1.0})
    runs.cell("cell", 0, {"search": search}, indicator="flops")
    found = table(cost_section(runs.runs), "cost-cells run alone, micro on digits")
    assert found.rows[0][:3] == ("no supernet", "flops", NOTHING)
