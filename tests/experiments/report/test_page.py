"""The page in a real browser: it needs nothing but itself, and fits into the window."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.report.make import Report, build_report, write_report
from experiments.report.tables import Picture, Section
from tests.experiments.report.browser import visit
from tests.experiments.report.demo_runs import DemoRuns

# What is wider than the window, or than what it stands in.
WIDE = """
[...document.querySelectorAll("body *")].filter(each => each.checkVisibility() && (
    each.getBoundingClientRect().right > innerWidth + 0.5
    || (each.scrollWidth > each.clientWidth + 1
        && getComputedStyle(each).overflowX != "visible")
)).map(each => each.outerHTML.slice(0, 80))
"""
HEIGHT = "document.documentElement.scrollHeight"
UNFOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"


def write(runs: DemoRuns, folder: Path) -> Path:
    """The page of a report on them."""
    report = build_report(runs.runs)
    assert not any("is a bug" in line for line in report.missing), report.missing
    assert len(report.shown) >= 5
    return write_report(report, folder / "report")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(DemoRuns(), tmp_path_factory.mktemp("page"))


def test_it_opens_from_disk_and_fits_into_the_window(page: Path) -> None:
    with visit(page, width=1280) as seen:
        assert seen.page.evaluate(WIDE) == []
        assert seen.page.evaluate(HEIGHT) <= 4000
        images = seen.page.eval_on_selector_all(
            "img", "all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt])"
        )
        text_px = seen.page.eval_on_selector_all(
            "td, th, p, h2",
            "all => Math.min(...all.map(e => parseFloat(getComputedStyle(e).fontSize)))",
        )
    assert seen.complaints == []
    # Pictures are data, which Chromium counts as requests that reach no network.
    assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
    assert len(images) >= 4
    assert all(done and natural > 0 and len(alt) > 20 for done, natural, _, alt in images)
    # Ten-point letters are 22 pixels high in a picture.
    assert all(22 * shown / natural >= 9 for _, natural, shown, _ in images)
    assert text_px >= 12


def test_nothing_is_wider_than_the_window_with_long_architectures_and_many_seeds(
    tmp_path: Path,
) -> None:
    arch = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"
    with visit(write(DemoRuns(arch, [0, 1]), tmp_path), width=1280) as seen:
        assert seen.page.evaluate(WIDE) == []
        seen.page.evaluate(UNFOLD)
        assert seen.page.evaluate(WIDE) == []


def test_on_a_phone_only_tables_and_figures_scroll(page: Path) -> None:
    with visit(page, width=400) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert seen.complaints == []


def test_what_was_found_stands_first_and_where_it_comes_from_last(page: Path) -> None:
    text = page.read_text("utf-8")
    header, main, footer = (
        re.search(f"<{part}>(.*)</{part}>", text, re.DOTALL)
        for part in ("header", "main", "footer")
    )
    assert header is not None
    assert main is not None
    assert footer is not None
    told = re.findall("<p>(.*?)</p>", header[1], re.DOTALL)
    assert 1 <= len(told) <= 5
    assert all(len(re.findall(r"[.?!](?:\s+(?=[A-Z])|$)", each.strip())) == 1 for each in told)
    assert header[1].count("<img") == 1
    sections = re.findall(r'<section id="([^"]+)"', main[1])
    # Nobody has retrained random architectures, and nothing says so but a line at the end.
    assert "ablation" in sections
    assert "detection" in sections
    assert "correlation" not in sections
    assert "correlation_fashion_mnist.yaml" in footer[1]
    visible = re.sub(r"<details.*?</details>", "", footer[1], flags=re.DOTALL)
    assert "<table" not in visible
    assert 'id="table-lineage"' in footer[1]


def test_the_page_needs_nothing_beside_itself(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"<script|@import|url\(", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_a_picture_stands_in_its_section_where_none_is_at_the_top(tmp_path: Path) -> None:
    picture = Picture("front", "a front", "the best score of every cost", Figure)
    sections = (Section("cost", "Cost", "Table 1", (picture,)), Section("lineage", "Lineage", ""))
    text = write_report(Report("e", "alone", sections, "digest"), tmp_path / "report").read_text()
    header, _, main = text.partition("</header>")
    assert "<img" not in header
    assert main.count("<img") == 1
