"""What a report consists of: tables, pictures and sections, as values that are shown anywhere.

The page, the terminal, CSV and Markdown show the same objects. An entry is text, or a number with
the digits that count and, where it is a mean, its spread. A picture is drawn when it is written.
"""

from __future__ import annotations

import csv
import html
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import rich.table
from rich.markup import escape

from experiments.figures.numbers import Mean
from experiments.report.formats import Format

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import JustifyMethod

NOTHING = "–"  # where something is missing
MOST_PICTURES = 20  # that a section has, of the newest runs; every run has its tables


@dataclass(frozen=True)
class Number:
    """A value as it is tracked, and how it is printed.

    Attributes:
        value: in the unit of the metric.
        form: of value and spread.
        std: the spread of a mean; NaN for a mean of one value, None where it is no mean.
    """

    value: float
    form: Format
    std: float | None = None

    @property
    def mean(self) -> Mean:
        """As figures take it."""
        return Mean(self.value, 0.0 if self.std is None or math.isnan(self.std) else self.std)

    def __str__(self) -> str:
        mean = self.form(self.value)
        if self.std is None or math.isnan(self.std):
            return mean
        return f"{mean} ± {self.form(self.std).removeprefix('+')}"


Entry: TypeAlias = "str | Number"


def number(value: float | None, form: Format, std: float | None = None) -> Entry:
    """An entry; `NOTHING` where there is no value."""
    return NOTHING if value is None or math.isnan(value) else Number(value, form, std)


def mean_std(values: Iterable[float], form: Format) -> Entry:
    """The mean ± the standard deviation over seeds; what is not finite is left out."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return NOTHING
    std = statistics.stdev(finite) if len(finite) > 1 else math.nan
    return Number(statistics.fmean(finite), form, std)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without an extension.
        title: what it shows, with the unit.
        columns: the headings.
        rows: as many entries each.
        note: what must be known to read it.
        folded: whether the page shows it on demand only.
        brief: the columns that a terminal has room for; all if empty.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""
    folded: bool = False
    brief: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        rows: Iterable[Mapping[str, Entry]],
        note: str = "",
        *,
        folded: bool = False,
        brief: tuple[str, ...] = (),
    ) -> Table:
        """Of rows that have the headings as their keys, all the same ones."""
        listed = list(rows)
        columns = tuple(listed[0]) if listed else ()
        assert all(tuple(row) == columns for row in listed), name
        entries = tuple(tuple(row.values()) for row in listed)
        return cls(name, title, columns, entries, note, folded, brief)

    def without(self, *columns: str) -> Table:
        """The same without some columns."""
        kept = [place for place, name in enumerate(self.columns) if name not in columns]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows),
        )

    def column(self, name: str) -> list[Entry]:
        """The entries below a heading."""
        return [row[self.columns.index(name)] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, and whatever stands where one is missing."""
        return [
            any(isinstance(entry, Number) for entry in self.column(name)) for name in self.columns
        ]

    def rich(self, style: str = "") -> rich.table.Table:
        """For a terminal: the columns that it has room for, without the note."""
        dropped = (name for name in self.columns if self.brief and name not in self.brief)
        table = self.without(*dropped)
        shown = rich.table.Table(title=escape(table.title), title_justify="left", style=style)
        for heading, is_number in zip(table.columns, table.numeric, strict=True):
            justify: JustifyMethod = "right" if is_number else "left"
            shown.add_column(escape(heading), justify=justify, overflow="fold")
        for row in table.rows:
            shown.add_row(*(escape(str(entry)) for entry in row))
        return shown

    def csv(self) -> str:
        """With all digits, in the units of the headings; what is missing is empty.

        A standard deviation has a column of its own.
        """
        wide = [
            any(isinstance(entry, Number) and entry.std is not None for entry in self.column(name))
            for name in self.columns
        ]
        rows: list[list[tuple[float | str, float | str]]] = [
            [(name, f"{name}, ±") for name in self.columns],
            *([_digits(entry) for entry in row] for row in self.rows),
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            pairs = zip(row, wide, strict=True)
            writer.writerow([each for both, is_wide in pairs for each in both[: 1 + is_wide]])
        return text.getvalue()

    def markdown(self) -> str:
        """As people read it, for a README or an issue."""
        align = ["--:" if is_number else "---" for is_number in self.numeric]
        rows = [self.columns, *(map(str, row) for row in self.rows)]
        lines = ["| " + " | ".join(map(_in_markdown, row)) + " |" for row in rows]
        lines.insert(1, f"|{'|'.join(align)}|")
        note = ["", _in_markdown(self.note)] if self.note else []
        return "\n".join([f"**{_in_markdown(self.title)}**", "", *lines, *note, ""])


def _digits(entry: Entry) -> tuple[float | str, float | str]:
    """Value and spread with all their digits, in the unit of the heading."""
    if isinstance(entry, str):
        return "" if entry == NOTHING else entry, ""
    value, std = (
        "" if each is None or math.isnan(each) else float(f"{entry.form.scale * each:.15g}")
        for each in (entry.value, entry.std)
    )
    return value, std


def _in_markdown(text: str) -> str:
    """Names of runs are anybody's: on one line, without markup of their own."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", r"\|")


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its files, without an extension.
        title: what it shows.
        alt: the same for who does not see it: what is to be read off it.
        draw: draws it; None where what it shows cannot be had. Imports matplotlib.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[], Figure | None] = field(repr=False, compare=False)


Block: TypeAlias = "str | Table | Picture"


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        key: its anchor, such as `ablation`.
        title: its heading.
        paper: what of the paper it answers to, such as `Fig. 5`; empty if nothing.
        blocks: paragraphs, tables and pictures in their order; none where nothing is tracked.
        missing: one static line that names the command which makes what is not there; empty if
            nothing is missing.
        summary: sentences with the numbers that the top of the page has.
    """

    key: str
    title: str
    paper: str
    blocks: tuple[Block, ...] = ()
    missing: str = ""
    summary: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """In their order."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """In their order."""
        return tuple(block for block in self.blocks if isinstance(block, Picture))
