"""What a report consists of: numbers that know where they come from, tables, pictures, sections.

A number is tracked (it is found again in MLflow), published (somebody else's), or derived from
others by a rule that is said in words. The page shows the three apart, and a reader can ask each of
them where it comes from.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from matplotlib.figure import Figure

from experiments.report.evidence.units import Show

# How several tracked values become one; a test recomputes every number of a page by these.
REDUCTIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "value": lambda values: values[0],
    "mean": statistics.fmean,
    "std": statistics.stdev,
    "sum": math.fsum,
    "max": max,
    "min": min,
}


@dataclass(frozen=True)
class Tracked:
    """A number that MLflow has.

    Attributes:
        metric: its name there, or of a param.
        run_ids: of one run, or of those whose values were reduced.
        how: the name of the reduction.
    """

    metric: str
    run_ids: tuple[str, ...]
    how: str = "value"


@dataclass(frozen=True)
class Published:
    """A number that somebody else has published; `source` is paper and table."""

    source: str


@dataclass(frozen=True)
class Derived:
    """A number that follows from others.

    Attributes:
        rule: how, in words.
        run_ids: the runs that have the others; empty for what is computed from no run.
    """

    rule: str
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """A number as it is shown, and what it is in full.

    Attributes:
        value: as it is tracked.
        text: as people read it, in the unit of its heading.
        source: where it comes from.
        scale: from the value to that unit.
    """

    value: float
    text: str
    source: Tracked | Published | Derived
    scale: float = 1.0

    @classmethod
    def of(cls, value: float, show: Show, source: Tracked | Published | Derived) -> Number:
        """A number that is printed in this way."""
        return cls(value, show(value), source, show.scale)

    @property
    def in_unit(self) -> float:
        """With all its digits, in the unit of its heading."""
        return float(f"{self.scale * self.value:.15g}")


@dataclass(frozen=True)
class MeanStd:
    """Mean ± standard deviation, or with one value the mean alone."""

    mean: Number
    std: Number | None


Cell: TypeAlias = "str | Number | MeanStd"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without an extension.
        title: what it shows, with the unit.
        columns: the headings.
        rows: as many cells each.
        note: what must be known to read it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its files, without an extension.
        title: what it shows.
        alt: the same for who does not see it: what is to be read off it.
        figure: drawn, and not written yet.
    """

    name: str
    title: str
    alt: str
    figure: Figure = field(repr=False, compare=False)


Block: TypeAlias = "str | Table | Picture"


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        key: its anchor.
        title: its heading.
        paper: what of the paper it answers to, such as `Fig. 5`; empty if nothing.
        blocks: paragraphs, tables and pictures in their order.
        missing: what it cannot show, and which command would fill it; a sentence each.
    """

    key: str
    title: str
    paper: str
    blocks: tuple[Block, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """In their order."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """In their order."""
        return tuple(block for block in self.blocks if isinstance(block, Picture))


NOTHING = "–"  # the cell where something is missing
