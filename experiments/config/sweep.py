"""A sweep: the grid trainable × indicator × epochs over one experiment, for every seed.

A point of the grid is a cell, which is an experiment like any other; what the grid does not name
is the same in all of them. That is the paper's ablation (section 4.5.1, Fig. 5).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, NonNegativeInt, PositiveInt, model_validator

from experiments.config.cell import Config, IndicatorName, Trainable
from experiments.config.cells import Cells
from experiments.config.section import Section

_T = TypeVar("_T")


def _each_once(values: tuple[_T, ...]) -> tuple[_T, ...]:
    if not values:
        raise ValueError("must name at least one value, or be left out")
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} more than once, which would be equal cells")
    return values


class GridConfig(Section):
    """The axes of the grid; one that is left out keeps the value that the experiment has."""

    trainable: Annotated[tuple[Trainable, ...], AfterValidator(_each_once)] | None = None
    indicator: Annotated[tuple[IndicatorName, ...], AfterValidator(_each_once)] | None = None
    epochs: Annotated[tuple[PositiveInt, ...], AfterValidator(_each_once)] | None = None


class Seeds(Section):
    """With which seeds everything is done; one, the experiment's own, if not given."""

    seeds: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_each_once)] | None = None


class SweepSettings(Seeds):
    """What the file of a sweep has beyond that of an experiment."""

    grid: GridConfig

    @model_validator(mode="after")
    def _names_an_axis(self) -> Self:
        if all(axis is None for axis in dict(self.grid).values()):
            raise ValueError("the grid is empty: name trainable, indicator or epochs in it")
        return self

    def cells(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The values of every cell's experiment, from those that all cells share.

        Cells that share a supernet lie apart, so that those that start together start different
        ones; of these the longest come first, so that none is left over for the end.
        """
        grid = self.grid
        axes = {
            "search.indicator": grid.indicator,
            "seed": self.seeds,
            "supernet.epochs": None if grid.epochs is None else sorted(grid.epochs, reverse=True),
            "supernet.trainable": grid.trainable,
        }
        named = {path: axis for path, axis in axes.items() if axis is not None}
        for point in itertools.product(*named.values()):
            cell = {
                key: dict(value) if isinstance(value, dict) else value
                for key, value in values.items()
            }
            for path, value in zip(named, point, strict=True):
                section, _, field = path.rpartition(".")
                if section and not isinstance(cell.setdefault(section, {}), dict):
                    break  # no section at all: the experiment's own validation says so
                (cell[section] if section else cell)[field] = value
            yield cell


@dataclass(frozen=True)
class Sweep(Cells):
    """A grid of cells, and the random baseline.

    Attributes:
        name: of the sweep; cells have names of their own.
        settings: the grid and the seeds.
    """

    name: str
    settings: SweepSettings

    @classmethod
    def of(cls, settings: SweepSettings, experiments: Sequence[Config]) -> Sweep:
        """Name the cells of a grid by what sets them apart."""
        several = len({cell.seed for cell in experiments}) > 1
        cells = tuple(
            cell.model_copy(update={"name": cell_name(cell, with_seed=several)})
            for cell in experiments
        )
        return cls(cells, experiments[0].name, settings)

    @property
    def params(self) -> dict[str, Any]:
        """What the sweep's MLflow run shows as its params."""
        shared = self.shared
        return {
            "grid": {name: list(axis) for name, axis in dict(self.settings.grid).items() if axis},
            "seeds": sorted({cell.seed for cell in self.cells}),
            "space": Path(shared.space).stem,
            "data": shared.data.name,
            "max_flops": shared.search.max_flops,
            "retrain_epochs": shared.retrain.epochs,
            "num_random": shared.random_baseline.num_architectures,
        }


def cell_name(cell: Config, *, with_seed: bool) -> str:
    """Such as `bn-accuracy-10`: what trains, what ranks, epochs; a file name and a run name."""
    seed = f"-seed{cell.seed}" if with_seed else ""
    return f"{cell.supernet.trainable}-{cell.search.indicator}-{cell.supernet.epochs}{seed}"
