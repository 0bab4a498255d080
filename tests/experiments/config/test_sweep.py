"""A sweep's grid: which cells it has, what they are called, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from experiments.config.experiment import Experiment
from experiments.config.load import load_experiment
from tests.experiments.configs import Values, changed, complaint, small, write_yaml

PAPER = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [10, 30, 100]}


def values(**changes: Any) -> Values:
    return changed(changed(small(), grid=PAPER), **changes)


def load(folder: Path, *overrides: str, **changes: Any) -> Experiment:
    return load_experiment(write_yaml(folder / "sweep.yaml", values(**changes)), overrides)


def points(sweep: Experiment) -> list[tuple[str, str, int, int]]:
    return [
        (cell.supernet.trainable, cell.search.indicator, cell.supernet.epochs, cell.seed)
        for cell in sweep.cells
    ]


def test_a_cell_is_the_experiment_that_it_would_be_alone(tmp_path: Path) -> None:
    sweep = load(tmp_path)
    grid = itertools.product(["all", "bn"], ["accuracy", "bn"], [10, 30, 100], [0])
    assert set(points(sweep)) == set(grid)
    for cell in sweep.cells:
        alone = changed(
            small(),
            name=cell.name,
            supernet__trainable=cell.supernet.trainable,
            supernet__epochs=cell.supernet.epochs,
            search__indicator=cell.search.indicator,
        )
        assert load_experiment(write_yaml(tmp_path / "alone.yaml", alone)).cells == (cell,)
    assert sweep.axes["supernet.epochs"] == (10, 30, 100)


def test_those_that_start_together_train_different_supernets_the_longest_first(
    tmp_path: Path,
) -> None:
    first = load(tmp_path).cells[:6]
    assert len({(cell.supernet.trainable, cell.supernet.epochs) for cell in first}) == 6
    epochs = [cell.supernet.epochs for cell in first]
    assert epochs == sorted(epochs, reverse=True)


def test_an_axis_that_is_left_out_keeps_what_the_experiment_says(tmp_path: Path) -> None:
    sweep = load(tmp_path, grid={"indicator": ["bn", "flops"]}, supernet__trainable="last_bn")
    assert points(sweep) == [("last_bn", "bn", 3, 0), ("last_bn", "flops", 3, 0)]
    assert [cell.name for cell in sweep.cells] == ["last_bn-bn-3", "last_bn-flops-3"]


def test_seeds_repeat_every_cell(tmp_path: Path) -> None:
    sweep = load(tmp_path, grid={"epochs": [2, 3]}, seeds=[0, 7])
    assert set(points(sweep)) == set(itertools.product(["bn"], ["bn"], [2, 3], [0, 7]))
    assert "bn-bn-2-seed7" in {cell.name for cell in sweep.cells}


def test_any_field_can_be_an_axis(tmp_path: Path) -> None:
    grid = {
        "supernet.lr": [0.5, 2],
        "search.evolution.population": [6, 8],
        "data.augment": [True, False],
    }
    sweep = load(tmp_path, grid=grid)
    found = {
        (cell.supernet.lr, cell.search.evolution.population, cell.data.augment): cell.name
        for cell in sweep.cells
    }
    assert set(found) == set(itertools.product([0.5, 2], [6, 8], [True, False]))
    assert len(set(found.values())) == 8
    assert found[0.5, 6, True] == "bn-bn-3-lr0.5-population6-augmentTrue"
    overridden = load(tmp_path, "grid.supernet.lr=[4]", "seeds=[1,2]", grid={"epochs": [2]})
    assert {(cell.supernet.lr, cell.seed) for cell in overridden.cells} == {(4, 1), (4, 2)}


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({}, "the grid is empty: name trainable, indicator, epochs or a config path"),
        ({"epochs": []}, "grid.epochs is []: expected a list of at least one value"),
        ({"epochs": [3, 2, 3]}, "names 3 more than once, which would be equal cells"),
        ({"supernet.epoch": [3]}, "grid.supernet.epoch is no field of a config: did you mean 'epo"),
        ({"storage.path": ["a", "b"]}, "grid.storage.path cannot be an axis"),
        ({"indicator": ["bnn"]}, "unknown indicator: the known ones are bn, accuracy"),
        ({"supernet.lr": ["fast"]}, "supernet.lr is 'fast'"),
        ({"epochs": [1]}, "warmup_epochs is 1, which must be less than epochs (1)"),
    ],
)
def test_grids_that_cannot_be(tmp_path: Path, grid: Any, says: str) -> None:
    assert says in complaint(tmp_path, values(grid=grid))


def test_a_searcher_has_to_fit_every_indicator(tmp_path: Path) -> None:
    refused = complaint(tmp_path, values(search__searcher="exact"))
    assert "searcher 'exact' needs a score that is a sum" in refused
    searchers = {cell.search.indicator: cell.search.searcher for cell in load(tmp_path).cells}
    assert searchers == {"accuracy": "evolution", "bn": "exact"}
