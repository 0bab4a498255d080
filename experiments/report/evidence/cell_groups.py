"""Finished cells as tables compare them: by sweep, and as one where only the seed differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.report.evidence.evidence import Evidence, mean_std
from experiments.report.evidence.units import Show
from experiments.report.evidence.values import NOTHING, Cell
from orchestration.tracking.reader import TrackedRun

# The params of a stage that may differ among the cells of a group: what was drawn or found.
_OWN = ("seed", "arch")
_KINDS = ("supernet", "search", "retrain")


@dataclass(frozen=True)
class CellGroup:
    """Cells that differ in nothing but the seed.

    Attributes:
        cells: one for every seed, in the order of their seeds.
        stages: kind → the runs that they were made from, each once.
    """

    cells: tuple[TrackedRun, ...]
    stages: Mapping[str, tuple[TrackedRun, ...]]

    def label(self, param: str) -> str:
        """A param of the cells."""
        return self.cells[0].params.get(param, "")

    @property
    def trains(self) -> str:
        """What the supernet trains; a search that reads none says so."""
        return "no supernet" if self.has_no_supernet else self.label("trainable")

    @property
    def has_no_supernet(self) -> bool:
        """Whether the indicator reads none."""
        searches = self.stages["search"]
        return bool(searches) and not any("supernet" in run.inputs for run in searches)

    @property
    def searcher(self) -> str:
        """Such as `exact`; empty if no search is tracked."""
        searches = self.stages["search"]
        return searches[0].params.get("search.searcher", "") if searches else ""


@dataclass(frozen=True)
class CellSet:
    """The finished cells of a sweep, or those that were run alone and are comparable.

    Attributes:
        name: of the sweep, or what the cells have in common.
        sweep: its run, if it is one.
        cells: all of them, those that are not finished too.
        groups: of the finished ones.
    """

    name: str
    sweep: TrackedRun | None
    cells: tuple[TrackedRun, ...]
    groups: tuple[CellGroup, ...]

    @property
    def space(self) -> str:
        """The name of the search space."""
        return self._run.params.get("space", "unknown space")

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self._run.params.get("data", "unknown data")

    @cached_property
    def num_finished(self) -> int:
        """How many cells have a result."""
        return sum(map(is_done, self.cells))

    @property
    def _run(self) -> TrackedRun:
        return self.sweep or self.cells[0]


def cell_sets(evidence: Evidence) -> tuple[CellSet, ...]:
    """The sweeps, and then the cells that were run alone; the newest first."""
    found = [
        CellSet(sweep.name, sweep, cells, _groups(evidence, cells))
        for sweep in reversed(evidence.of("sweep"))
        if (cells := tuple(run for run in evidence.children(sweep) if run.kind == "cell"))
    ]
    alone: dict[tuple[str, ...], list[TrackedRun]] = {}
    for cell in reversed(evidence.of("cell")):
        if cell.parent_run_id not in evidence.by_id:
            common = ("space", "data", "max_flops", "retrain_epochs")
            alone.setdefault(tuple(cell.params.get(p, "") for p in common), []).append(cell)
    for (space, data, *_), lone in alone.items():
        name = f"cells run alone, {space} on {data}"
        found.append(CellSet(name, None, tuple(lone), _groups(evidence, lone[::-1])))
    return tuple(found)


def is_done(cell: TrackedRun) -> bool:
    """Whether a cell, or a retraining, has a result that is a number."""
    return math.isfinite(cell.metrics.get("top1", math.nan))


def average(runs: Sequence[TrackedRun], metric: str, show: Show) -> Cell:
    """Mean ± standard deviation of what is a number."""
    return mean_std(runs, metric, show) or NOTHING


def _groups(evidence: Evidence, cells: Sequence[TrackedRun]) -> tuple[CellGroup, ...]:
    """Of the finished cells; of two with one seed the later one."""
    by_recipe: dict[tuple[object, ...], dict[str, TrackedRun]] = {}
    for cell in cells:
        if is_done(cell):
            by_seed = by_recipe.setdefault(_recipe(evidence, cell), {})
            by_seed[cell.params.get("seed", "")] = cell
    groups = [
        _group(evidence, [by_seed[seed] for seed in sorted(by_seed, key=_number)])
        for by_seed in by_recipe.values()
    ]
    order = ("trainable", "indicator", "epochs")
    return tuple(sorted(groups, key=lambda group: [_number(group.label(param)) for param in order]))


def _recipe(evidence: Evidence, cell: TrackedRun) -> tuple[object, ...]:
    """What two cells must agree in, to be the same but for the seed."""
    params = [
        (kind, *pair)
        for kind in _KINDS
        if (run := evidence.input(cell, kind)) is not None
        for pair in run.params.items()
        if pair[0] not in _OWN
    ]
    named = tuple(cell.params.get(param, "") for param in ("trainable", "indicator", "epochs"))
    return named, frozenset(params)


def _group(evidence: Evidence, cells: Sequence[TrackedRun]) -> CellGroup:
    stages = {}
    for kind in _KINDS:
        runs = [run for cell in cells if (run := evidence.input(cell, kind)) is not None]
        stages[kind] = tuple({run.run_id: run for run in runs}.values())
    return CellGroup(tuple(cells), stages)


def _number(text: str) -> tuple[float, str]:
    """Numbers by their size, before words by the alphabet."""
    return (float(text), "") if text.isdecimal() else (math.inf, text)
