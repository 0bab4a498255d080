"""A report as files: one page that opens from disk, figures for a paper, tables for a notebook."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import PIL.Image
from markupsafe import Markup, escape

from experiments.figures.style import save_figure
from experiments.report.evidence.report import Report
from experiments.report.evidence.values import (
    NOTHING,
    Cell,
    Derived,
    MeanStd,
    Number,
    Picture,
    Published,
    Table,
    Tracked,
)

PAGE = "report.html"
MARK = "bnnas report"  # the page says so, and what does not is never replaced
_FIGURES, _TABLES = "figures", "tables"
ENTRIES = {PAGE, _FIGURES, _TABLES}
_LEAST_SHARE = 0.5  # of its pixels, that a picture is shown with at least: 10 pt are 11 px then


@dataclass(frozen=True)
class Image:
    """A picture as the page holds it.

    Attributes:
        data: the PNG in base 64.
        least_px: how narrow it may be shown.
    """

    data: str
    least_px: int

    @classmethod
    def of(cls, png: Path) -> Image:
        """Of a file."""
        with PIL.Image.open(png) as opened:
            least_px = round(opened.width * _LEAST_SHARE)
        return cls(base64.b64encode(png.read_bytes()).decode("ascii"), least_px)


_TEMPLATE = "page.html.jinja"


def write_page(report: Report, folder: Path) -> Path:
    """Write the report into an empty folder; returns the page's path.

    Beside the page lie `figures/NAME.png` and `.pdf`, and `tables/NAME.csv` and `.md`.
    """
    images = {}
    for section in report.sections:
        for picture in section.pictures:
            images[picture.name] = Image.of(_write_figure(picture, folder / _FIGURES))
        for table in section.tables:
            _write_table(table, folder / _TABLES)
    page = folder / PAGE
    page.write_text(render_page(report, images), encoding="utf-8")
    return page


def render_page(report: Report, images: Mapping[str, Image]) -> str:
    """The page; `images` has every picture of the report, by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "code": _with_code,
        "whence": whence,
        "repr": repr,
        "numeric": numeric_columns,
    }
    template = environment.get_template(_TEMPLATE)
    return template.render(report=report, images=images, mark=MARK)


def whence(source: Tracked | Published | Derived) -> str:
    """Where a number comes from, in words."""
    match source:
        case Tracked(metric, (run_id,), _):
            return f"{metric} of run {run_id}"
        case Tracked(metric, run_ids, how):
            return f"{how} of {metric} over {len(run_ids)} runs: {' '.join(run_ids)}"
        case Published(where):
            return f"published: {where}"
        case Derived(rule, ()):
            return f"derived: {rule}"
        case Derived(rule, run_ids):
            return f"derived: {rule}; from {' '.join(run_ids)}"


def table_csv(table: Table) -> str:
    """With all digits, in the units of the headings; what is missing is empty.

    A standard deviation has a column of its own.
    """
    wide = [
        any(isinstance(row[column], MeanStd) for row in table.rows)
        for column in range(len(table.columns))
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        name
        for column, is_wide in zip(table.columns, wide, strict=True)
        for name in ((column, f"{column}, ±") if is_wide else (column,))
    )
    for row in table.rows:
        writer.writerow(
            value
            for cell, is_wide in zip(row, wide, strict=True)
            for value in _values(cell)[: 2 if is_wide else 1]
        )
    return text.getvalue()


def table_markdown(table: Table) -> str:
    """As people read it, for a README or an issue."""
    align = ["--:" if is_number else "---" for is_number in numeric_columns(table)]
    rows = [table.columns, *([cell_text(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(map(_in_markdown, row)) + " |" for row in rows]
    lines.insert(1, f"|{'|'.join(align)}|")
    note = ["", _in_markdown(table.note)] if table.note else []
    return "\n".join([f"**{_in_markdown(table.title)}**", "", *lines, *note, ""])


def _in_markdown(text: str) -> str:
    """Names of runs are anybody's: on one line, without markup of their own."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", r"\|")


def cell_text(cell: Cell) -> str:
    """A cell as people read it."""
    match cell:
        case str():
            return cell
        case Number():
            return cell.text
        case MeanStd(mean, std):
            return mean.text if std is None else f"{mean.text} ± {std.text}"


def _values(cell: Cell) -> tuple[str | float, str | float]:
    match cell:
        case str():
            return "" if cell == NOTHING else cell, ""
        case Number():
            return cell.in_unit, ""
        case MeanStd(mean, std):
            return mean.in_unit, "" if std is None else std.in_unit


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers, and whatever stands where one is missing."""
    return [
        any(not isinstance(row[column], str) for row in table.rows)
        for column in range(len(table.columns))
    ]


def _write_figure(picture: Picture, folder: Path) -> Path:
    save_figure(picture.figure, folder / f"{picture.name}.pdf")
    return save_figure(picture.figure, folder / f"{picture.name}.png")


def _write_table(table: Table, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{table.name}.csv").write_text(table_csv(table), encoding="utf-8")
    (folder / f"{table.name}.md").write_text(table_markdown(table), encoding="utf-8")


def _with_code(text: str) -> Markup:
    """A paragraph in which `code` is marked as such."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
