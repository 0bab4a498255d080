"""A sweep's grid: which cells it has, what they are called, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from experiments.config.cell import Config
from experiments.config.load import dump_config, load_config, load_experiment, load_sweep
from experiments.config.section import ConfigError
from experiments.config.sweep import GridConfig, Sweep, SweepSettings
from experiments.plan.cell import plan_cell
from experiments.plan.decides import FIELDS
from experiments.plan.sweep import SweepPlan, plan_sweep
from nas.data import ImageSpec
from tests.experiments.configs import Values, changed, small, write_yaml

IMAGES = ImageSpec(in_channels=1, resolution=8, num_classes=10)
PAPER = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [10, 30, 100]}


def values(**changes: Any) -> Values:
    return changed(changed(small(), grid=PAPER), **changes)


def load(folder: Path, *overrides: str, **changes: Any) -> Sweep:
    return load_sweep(write_yaml(folder / "sweep.yaml", values(**changes)), overrides)


def plan(folder: Path, **changes: Any) -> SweepPlan:
    return plan_sweep(load(folder, **changes), IMAGES)


def points(sweep: Sweep) -> list[tuple[str, str, int, int]]:
    return [
        (cell.supernet.trainable, cell.search.indicator, cell.supernet.epochs, cell.seed)
        for cell in sweep.cells
    ]


def test_the_grid_of_the_paper_has_twelve_cells_and_six_supernets(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    expected = set(itertools.product(["all", "bn"], ["accuracy", "bn"], [10, 30, 100], [0]))
    assert set(points(planned.sweep)) == expected
    assert len(planned.cells) == 12
    kinds = Counter(stage.kind for stage in planned.known)
    assert kinds == {"supernet": 6, "search": 12, "retrain": 2}
    assert planned.sharing == 2


def test_a_cell_is_the_experiment_that_it_would_be_alone(tmp_path: Path) -> None:
    sweep = load(tmp_path)
    for cell in sweep.cells:
        alone = changed(
            small(),
            name=cell.name,
            supernet__trainable=cell.supernet.trainable,
            supernet__epochs=cell.supernet.epochs,
            search__indicator=cell.search.indicator,
        )
        expected = load_config(write_yaml(tmp_path / "alone.yaml", alone))
        assert cell == expected
        written = tmp_path / "dumped.yaml"
        written.write_text(dump_config(cell), encoding="utf-8")
        assert load_config(written) == cell
        mine, its = plan_cell(cell, IMAGES), plan_cell(expected, IMAGES)
        assert [stage.fingerprint for stage in mine.known] == [
            stage.fingerprint for stage in its.known
        ]


def test_those_that_start_together_share_nothing_and_the_longest_come_first(
    tmp_path: Path,
) -> None:
    planned = plan(tmp_path)
    first = [cell.supernet.fingerprint for cell in planned.cells[:6] if cell.supernet]
    assert len(set(first)) == 6
    epochs = [cell.config.supernet.epochs for cell in planned.cells[:6]]
    assert epochs == sorted(epochs, reverse=True)


def test_an_axis_that_is_left_out_keeps_what_the_experiment_says(tmp_path: Path) -> None:
    sweep = load(tmp_path, grid={"indicator": ["bn", "flops"]}, supernet__trainable="last_bn")
    assert points(sweep) == [("last_bn", "bn", 3, 0), ("last_bn", "flops", 3, 0)]
    assert [cell.name for cell in sweep.cells] == ["last_bn-bn-3", "last_bn-flops-3"]


def test_seeds_repeat_every_cell_and_the_baseline(tmp_path: Path) -> None:
    planned = plan(tmp_path, grid={"epochs": [2, 3]}, seeds=[0, 7])
    assert set(points(planned.sweep)) == set(itertools.product(["bn"], ["bn"], [2, 3], [0, 7]))
    assert len({cell.name for cell in planned.sweep.cells}) == 4
    assert "bn-bn-2-seed7" in {cell.name for cell in planned.sweep.cells}
    by_seed = Counter(random.cell.config.seed for random in planned.baseline)
    assert by_seed == {0: 2, 7: 2}
    assert len({random.stage.fingerprint for random in planned.baseline}) == 4


def test_a_sweep_is_found_again_by_what_decides_its_results(tmp_path: Path) -> None:
    group = plan(tmp_path).group
    assert plan(tmp_path, cluster__num_workers=2, tracking__experiment="e").group == group
    for change in ({"seed": 1}, {"name": "other"}, {"retrain__epochs": 3}):
        assert plan(tmp_path, **change).group != group


def test_every_field_of_a_sweep_is_an_axis_over_a_classified_field() -> None:
    assert set(SweepSettings.model_fields) == {"grid", "seeds"}
    axes = {"trainable": "supernet", "indicator": "search", "epochs": "supernet"}
    assert set(GridConfig.model_fields) == set(axes)
    for field, section in axes.items():
        annotation = Config.model_fields[section].annotation
        assert annotation is not None
        assert field in annotation.model_fields
        assert FIELDS.get(section) or FIELDS[f"{section}.{field}"]
    assert FIELDS["seed"]


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({}, "the grid is empty: name trainable, indicator or epochs in it"),
        (None, "the grid is empty"),
        ({"epochs": []}, "grid.epochs is []: must name at least one value, or be left out"),
        ({"epochs": [3, 2, 3]}, "names 3 more than once, which would be equal cells"),
        ({"epoch": [3]}, "grid.epoch is an unknown key: did you mean 'epochs'?"),
        ({"indicator": ["bnn"]}, "unknown indicator: the known ones are bn, accuracy"),
        ({"trainable": ["none"]}, "grid.trainable.0 is 'none'"),
        ({"epochs": [1]}, "warmup_epochs is 1, which must be less than epochs (1)"),
    ],
)
def test_grids_that_cannot_be(tmp_path: Path, grid: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, grid=grid)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_searcher_that_does_not_fit_every_indicator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="searcher 'exact' needs a score that is a sum"):
        load(tmp_path, search__searcher="exact")
    searchers = {cell.search.indicator: cell.search.searcher for cell in load(tmp_path).cells}
    assert searchers == {"accuracy": "evolution", "bn": "exact"}


def test_cells_that_come_out_the_same_are_refused(tmp_path: Path) -> None:
    grid = {"trainable": ["all", "bn"], "indicator": ["bn", "flops"]}
    with pytest.raises(ValueError, match="all-flops-3 and bn-flops-3 are the same"):
        plan(tmp_path, grid=grid)


def test_cells_and_sweeps_are_told_apart(tmp_path: Path) -> None:
    cell = write_yaml(tmp_path / "cell.yaml", small())
    sweep = write_yaml(tmp_path / "sweep.yaml", values())
    assert isinstance(load_experiment(cell), Config)
    assert isinstance(load_experiment(sweep), Sweep)
    with pytest.raises(ConfigError, match="has a grid, so it is a sweep: start it with 'bnnas sw"):
        load_config(sweep)
    with pytest.raises(ConfigError, match="has no grid, so it is one cell: start it with 'bnnas r"):
        load_sweep(cell)
    assert load_sweep(sweep, ["grid.epochs=[4]", "seeds=[1,2]"]).settings.seeds == (1, 2)
