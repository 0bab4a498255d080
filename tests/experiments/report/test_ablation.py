"""Fig. 5 by hand: means, what they are uncertain by, and what stands where there is no number."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from experiments.report.ablation import ablation_section
from experiments.report.tables import NOTHING, Number, Section
from tests.experiments.made_up_runs import MadeUpRuns, names, row, table, two_seeds, value


def heights(figure: Figure | None) -> list[float]:
    """Of all bars."""
    assert figure is not None
    containers = [each for each in figure.axes[0].containers if isinstance(each, BarContainer)]
    return [bar.get_height() for container in containers for bar in container]


def shown(section: Section) -> str:
    """Everything that the section says, as text."""
    tables = (each.markdown() for each in section.tables)
    return "\n".join([*tables, *section.summary, section.missing])


def test_seeds_are_a_mean_with_its_standard_deviation_and_the_figure_draws_it() -> None:
    runs = two_seeds()
    runs.change(0, "metrics", random_baseline=0.8, random_baseline_std=0.05, random_top1=0.7)
    section = ablation_section(runs.runs)
    assert names(section) == ["ablation-sweep", "cells-sweep"]
    found = table(section, "ablation-sweep")
    cells = row(found)
    assert [str(cells[name]) for name in ("supernet trains", "epochs")] == ["bn", "10"]
    top1, best = cells["ranked by bn"], cells["best random"]
    assert isinstance(top1, Number)
    assert isinstance(best, Number)
    assert top1.value == statistics.mean([0.9, 0.92])
    assert top1.std == statistics.stdev([0.9, 0.92])
    assert (best.value, best.std, value(cells["any random"])) == (0.8, 0.05, 0.7)
    assert found.csv().splitlines() == [
        'supernet trains,epochs,ranked by bn,"ranked by bn, ±",'
        'best random,"best random, ±",any random,"any random, ±"',
        "bn,10,91.0,1.4142135623731,80.0,5.0,70.0,",
    ]
    (picture,) = section.pictures
    figure = picture.draw()
    assert heights(figure) == pytest.approx([91.0])
    assert figure is not None
    (dashed,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert np.asarray(dashed.get_ydata()) == pytest.approx(np.array([80.0, 80.0]))


def test_one_seed_is_uncertain_by_what_its_test_images_leave() -> None:
    runs = MadeUpRuns()
    runs.add("sweep", "sweep", {"space": "micro", "data": "digits", "winner": "low"})
    for name, epochs, top1 in (("low", 1, 0.6), ("high", 10, 0.9)):
        inputs = {"retrain": runs.retrain(f"retrain-{name}", 0)}
        runs.cell(name, 0, inputs, epochs=epochs, top1=top1, parent="sweep")
    runs.change(0, "metrics", random_baseline=0.65)
    section = ablation_section(runs.runs)
    found = table(section, "ablation-sweep").column("ranked by bn")
    stds = [cell.std for cell in found if isinstance(cell, Number)]
    # Binomial, of 359 images.
    assert stds == pytest.approx([math.sqrt(0.6 * 0.4 / 359), math.sqrt(0.9 * 0.1 / 359)])
    text = " ".join(section.summary)
    # The winner is who was best on validation images, not who the test set prefers.
    assert "Found: 0 1 2 (low, the best cell on the search-validation images)" in text
    assert "60.00 % test top-1" in text
    assert f"±{100 * math.sqrt(0.6 * 0.4 / 359):.2f} points; 1 of 2 settings" in text
    assert len(section.summary) <= 5


@pytest.mark.parametrize(
    ("axis", "one", "other"), [("supernet.lr", "8.0", "16.0"), ("space", "micro", "nano")]
)
def test_a_further_axis_is_a_column_and_no_seed(axis: str, one: str, other: str) -> None:
    runs = MadeUpRuns()
    grid = {f"grid.{axis}": f'["{one}", "{other}"]'}
    runs.add("sweep", "sweep", {"space": "micro", "data": "digits", **grid})
    for place, (setting, top1) in enumerate({one: 0.6, other: 0.9}.items(), start=1):
        runs.cell(f"cell {setting}", 0, {}, top1=top1, parent="sweep")
        runs.change(place, "params", **{axis: setting})
    (picture,) = (section := ablation_section(runs.runs)).pictures
    found = table(section, "ablation-sweep")
    top1s = {
        str(setting): value(cell)
        for setting, cell in zip(found.column(axis), found.column("ranked by bn"), strict=True)
    }
    assert top1s == {one: 0.6, other: 0.9}
    assert sorted(heights(picture.draw())) == pytest.approx([60.0, 90.0])


def test_what_is_chance_is_called_so() -> None:
    runs = MadeUpRuns()
    inputs = {"retrain": runs.retrain("retrain", 0)}
    runs.change(0, "metrics", num_skipped=3)
    runs.cell("alone", 0, inputs, top1=0.13)  # below 0.1 + 2 · sqrt(0.1 · 0.9 / 359) = 0.1317
    section = ablation_section(runs.runs)
    text = " ".join(section.summary)
    assert "chance for 10 classes" in text
    assert "3 unreadable images" in text
    assert names(section) == ["cells-micro"]
    assert "`bnnas run " in section.missing
    runs.change(1, "metrics", top1=0.14)
    assert "chance" not in " ".join(ablation_section(runs.runs).summary)


def test_where_a_number_is_missing_stands_why() -> None:
    runs = MadeUpRuns()
    runs.add("sweep", "sweep", {"space": "micro", "data": "digits"}, status="RUNNING")
    runs.cell("done", 0, {}, epochs=1, top1=0.75, parent="sweep")
    for name, epochs, status in (("works", 2, "RUNNING"), ("lost", 3, "FAILED")):
        params = {"trainable": "bn", "indicator": "bn", "epochs": epochs, "seed": 0}
        runs.add(name, "cell", params, parent="sweep", status=status)
    runs.change(-1, "tags", **{"bnnas.error": "the fan is loud"})
    runs.cell("nan", 0, {}, epochs=4, top1=math.nan, parent="sweep")
    runs.cell("other", 0, {}, epochs=4, indicator="accuracy", top1=0.5, parent="sweep")
    # A stage that is no cell's own fails beside them; one that a cell shows is not told twice.
    for name, cell in (("random", "random-0"), ("supernet", "lost")):
        runs.add(name, "retrain", parent="sweep", status="FAILED")
        runs.change(-1, "tags", **{"bnnas.cell": cell, "bnnas.error": "the fan is loud"})
    section = ablation_section(runs.runs)
    found = table(section, "ablation-sweep")
    assert [str(cell) for cell in found.column("ranked by bn")] == [
        *("75.00", "not yet", "failed", "not finite")
    ]
    assert found.column("ranked by accuracy")[:3] == [NOTHING] * 3
    assert found.column("seeds finished")[1:3] == ["0 of 0, 0 of 1"] * 2
    failed = table(section, "failed-sweep")
    assert failed.rows == (("lost", "the fan is loud"), ("random", "the fan is loud"))
    assert heights(section.pictures[0].draw()) == [50.0, 75.0]


def test_a_mean_says_of_how_many_seeds_it_is_and_leaves_out_what_is_no_number() -> None:
    runs = MadeUpRuns()
    runs.add("sweep", "sweep", {"space": "micro", "data": "digits"})
    for seed, top1 in enumerate((0.5, 0.7, math.nan)):
        runs.cell(f"cell{seed}", seed, {}, top1=top1, parent="sweep")
    cells = row(table(ablation_section(runs.runs), "ablation-sweep"))
    assert str(cells["ranked by bn"]) == "60.00 ± 14.14"
    assert cells["seeds finished"] == "2 of 3"
    runs.change(1, "metrics", top1=math.inf)
    cells = row(table(ablation_section(runs.runs), "ablation-sweep"))
    assert str(cells["ranked by bn"]) == "70.00"  # one of several seeds has no spread


def test_sweeps_come_newest_first_and_one_without_a_result_has_no_figure() -> None:
    runs = MadeUpRuns()
    for name, top1 in (("old", 0.5), ("new", 0.6), ("empty", None)):
        runs.add(name, "sweep", {"space": "micro", "data": "digits"})
        if top1 is None:
            params = {"trainable": "bn", "indicator": "bn", "epochs": 1}
            runs.add("failed", "cell", params, parent=name, status="FAILED")
        else:
            runs.cell(f"of-{name}", 0, {}, top1=top1, parent=name)
    section = ablation_section(runs.runs)
    assert names(section) == [
        *("cells-empty", "failed-empty"),
        *("ablation-new", "cells-new", "ablation-old", "cells-old"),
    ]
    assert [heights(each.draw()) for each in section.pictures] == [[60.0], [50.0]]
    assert "failed" in shown(section)
    assert ablation_section(MadeUpRuns().runs).blocks == ()


def test_odd_params_end_no_section() -> None:
    runs = MadeUpRuns()
    runs.add("sweep", "sweep")
    odd: list[dict[str, object]] = [{}, {"epochs": "²"}, {"epochs": 1, "trainable": "bn"}]
    for number, params in enumerate(odd):
        runs.add(f"odd{number}", "cell", params, {"top1": 1.5}, parent="sweep")
    assert "150.00" in shown(ablation_section(runs.runs))
