"""Cells as tables compare them: by sweep, and as one where only the seed differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from experiments.config.load import AXES
from experiments.report.run_table import Runs, grouped, numbers, of_each_seed, texts
from orchestration.tracking.reader import TrackedRun

# The params of a stage that may differ among the cells of a group: what was drawn or found.
_OWN = ("seed", "arch")
_STAGES = ("supernet", "search", "retrain")
_COMPARABLE = ("space", "data", "max_flops", "retrain_epochs")


@dataclass(frozen=True)
class CellSet:
    """The cells of a sweep, or those that were run alone and are comparable.

    Attributes:
        name: of the sweep, or what the cells have in common.
        sweep: its run, if it is one.
        cells: all of them, those that are not finished too.
        runs: all there are.
    """

    name: str
    sweep: TrackedRun | None
    cells: pd.DataFrame
    runs: Runs

    def label(self, param: str) -> str:
        """A param that all cells share, such as `space` or `data`."""
        run = self.sweep or self.runs.by_id[self.cells.index[0]]
        return run.params.get(param, f"unknown {param}")

    @cached_property
    def num_finished(self) -> int:
        """How many cells have a result."""
        return int(is_done(self.cells).sum())

    @cached_property
    def num_seeds(self) -> int:
        """How many seeds its cells have, finished or not."""
        return int(texts(self.cells, "params.seed").nunique())

    @cached_property
    def groups(self) -> tuple[CellGroup, ...]:
        """The finished cells that differ in nothing but the seed; of two with one the later."""
        done = self.cells[is_done(self.cells)].sort_values("start_time", kind="stable")
        cell_groups = []
        for group in grouped(done, self._recipe):
            cells = of_each_seed(group)
            seeds = texts(cells, "params.seed").map(by_size)
            cell_groups.append(CellGroup(cells.loc[seeds.sort_values().index], self.runs))
        return tuple(sorted(cell_groups, key=lambda group: [by_size(group.label(p)) for p in AXES]))

    def _recipe(self, run_id: str) -> tuple[object, ...]:
        cell = self.runs.by_id[run_id]
        stages = [
            frozenset() if run is None else self.runs.params(run.run_id, _OWN)
            for run in (self.runs.input(run_id, kind) for kind in _STAGES)
        ]
        return (*(cell.params.get(p, "") for p in AXES), *stages)


@dataclass(frozen=True)
class CellGroup:
    """Cells that differ in nothing but the seed, one for every seed in the order of the seeds."""

    cells: pd.DataFrame
    runs: Runs

    def label(self, param: str) -> str:
        """A param of the cells."""
        return str(texts(self.cells, f"params.{param}").iloc[0])

    @cached_property
    def stages(self) -> Mapping[str, pd.DataFrame]:
        """Kind → the runs that the cells were made from, each once."""
        return {kind: self.runs.inputs(self.cells, kind) for kind in _STAGES}

    @property
    def has_no_supernet(self) -> bool:
        """Whether the indicator reads none."""
        searches = self.stages["search"]
        return len(searches) > 0 and not texts(searches, "input.supernet").any()

    @property
    def trains(self) -> str:
        """What the supernet trains; a search that reads none says so."""
        return "no supernet" if self.has_no_supernet else self.label("trainable")

    @property
    def setting(self) -> str:
        """What trains, what ranks, and for how many epochs."""
        return f"{self.trains}/{self.label('indicator')}/{self.label('epochs')}"


def cell_sets(runs: Runs) -> tuple[CellSet, ...]:
    """The sweeps, and then the cells that were run alone; the newest first."""
    cells = runs.of_kind("cell")
    sets = [
        CellSet(runs.by_id[sweep].name, runs.by_id[sweep], _by_axes(own), runs)
        for sweep in reversed(runs.of_kind("sweep").index)
        if len(own := cells[cells["parent_run_id"] == sweep])
    ]
    alone = cells[~cells["parent_run_id"].isin(runs.frame.index)][::-1]
    keys = [texts(alone, f"params.{param}") for param in _COMPARABLE]
    for (space, data, *_), own in alone.groupby(keys, sort=False):
        sets.append(CellSet(f"cells run alone, {space} on {data}", None, own, runs))
    return tuple(sets)


def _by_axes(cells: pd.DataFrame) -> pd.DataFrame:
    """In the order of the grid, which does not depend on what was begun first."""
    keys = [texts(cells, f"params.{param}").map(by_size) for param in (*AXES, "seed")]
    return cells.loc[pd.concat(keys, axis=1).apply(tuple, axis=1).sort_values(kind="stable").index]


def is_done(cells: pd.DataFrame) -> pd.Series:
    """Which cells or retrainings have a result that is a number."""
    return numbers(cells, "top1").map(math.isfinite).astype(bool)


def by_size(text: str) -> tuple[float, str]:
    """Sort key: numbers by their size, before words by the alphabet."""
    return (float(text), "") if text.isdecimal() else (math.inf, text)


def listed(values: Sequence[str]) -> str:
    """Each once, by size, as people list them."""
    return ", ".join(sorted(set(values), key=by_size))
