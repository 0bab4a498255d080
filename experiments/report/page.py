"""A report as files: one page that opens from disk, figures for a paper, tables for a notebook."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import PIL.Image
from markupsafe import Markup, escape

from experiments.report.tables import Picture, Table

if TYPE_CHECKING:
    from experiments.report.make import Report

PAGE = "report.html"
GENERATOR = "bnnas report"  # the page says so, and what does not is never replaced
ENTRIES = {PAGE, "figures", "tables"}
_LEAST_SHARE = 0.5  # of its pixels, that a picture is shown with at least: 10 pt are 11 px then
_WIDE = 9  # columns of a table that has a row of the page for itself


class Image(NamedTuple):
    """A picture as the page holds it: the PNG in base 64, its least and its most width."""

    data: str
    least_px: int
    most_px: int


def write_page(report: Report, folder: Path) -> None:
    """Write the report into an empty folder.

    Beside the page lie `figures/NAME.png` and `.pdf`, and `tables/NAME.csv` and `.md`.
    """
    images = {}
    (folder / "tables").mkdir()
    for section in report.sections:
        for picture in section.pictures:
            if (image := _write_figure(picture, folder / "figures")) is not None:
                images[picture.name] = image
        for table in section.tables:
            for suffix, text in ((".csv", table.csv()), (".md", table.markdown())):
                (folder / "tables" / f"{table.name}{suffix}").write_text(text, encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _with_code
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "drawn": lambda block: isinstance(block, Picture) and block.name in images,
        "wide": lambda table: len(table.columns) > _WIDE,
    }
    page = environment.get_template("page.html.jinja").render(
        report=report, images=images, generator=GENERATOR
    )
    (folder / PAGE).write_text(page, encoding="utf-8")


def _write_figure(picture: Picture, folder: Path) -> Image | None:
    figure = picture.draw()
    if figure is None:
        return None
    from experiments.figures.style import save_figure

    save_figure(figure, folder / f"{picture.name}.pdf")
    png = save_figure(figure, folder / f"{picture.name}.png")
    with PIL.Image.open(png) as opened:
        width = opened.width
    data = base64.b64encode(png.read_bytes()).decode("ascii")
    return Image(data, round(width * _LEAST_SHARE), width)


def _with_code(text: str) -> Markup:
    """A paragraph in which `code` is marked as such."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
