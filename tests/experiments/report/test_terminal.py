"""The end of a command: the tables of the page, what it cost, what failed, and where to look."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from experiments.report.make import Report, build_report
from experiments.report.tables import Table
from experiments.report.terminal import print_report
from tests.experiments.made_up_runs import MadeUpRuns, table, two_seeds
from tests.experiments.report.demo_runs import DemoRuns


def printed(report: Report, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def assert_shown(shown: Table, text: str) -> None:
    """Every cell of the columns that a terminal has room for, in its row."""
    columns = shown.brief or shown.columns
    dropped = [name for name in shown.columns if name not in columns]
    rows = [line.split("│") for line in text.splitlines() if "│" in line]
    found = {tuple(cell.strip() for cell in row[1:-1]) for row in rows}
    assert {tuple(map(str, row)) for row in shown.without(*dropped).rows} <= found


@pytest.fixture(scope="module")
def report() -> Report:
    return build_report(DemoRuns().runs)


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [
        ("run", "ablation", "cells-demo"),
        ("sweep", "ablation", "ablation-demo"),
        ("detect", "detection", "detection-digit_scenes"),
    ],
)
def test_the_terminal_shows_the_tables_of_the_page(
    report: Report, kind: str, key: str, name: str
) -> None:
    text = printed(report, kind=kind)
    assert_shown(table(report.section(key), name), text)
    assert_shown(report.lineage.tables[0], text)  # what it cost


def test_the_last_screen_of_the_demo_has_forty_lines(report: Report) -> None:
    text = printed(report, page="report/report.html", mlflow="bnnas ui")
    lines = text.splitlines()
    assert len(lines) <= 40
    assert_shown(table(report.section("ablation"), "ablation-demo"), text)
    assert_shown(table(report.section("detection"), "detection-digit_scenes"), text)
    assert_shown(report.lineage.tables[0], text)
    assert "93.00" in text  # the best random architecture
    # The two places to look, and no hint of what is missing.
    assert [line.split()[0] for line in lines[-2:]] == ["Report", "MLflow"]
    assert "report/report.html" in lines[-2]
    assert "bnnas ui" in lines[-1]
    assert not any(line in text for line in report.missing)


def test_what_failed_stands_with_its_reason_above_where_to_look(report: Report) -> None:
    text = printed(
        report,
        kind="sweep",
        failures={"bn-bn-[3]": "the [red]fan[/] is loud"},
        num_executed=3,
        num_cached=14,
        elapsed_s=61.4,
        page="report.html",
    )
    assert "bn-bn-[3]" in text  # a name is no markup
    assert "the [red]fan[/] is loud" in text
    assert "tries again what failed, and nothing else" in text
    lines = text.splitlines()
    (failed,) = [number for number, line in enumerate(lines) if "fan" in line]
    words = [line.split() for line in lines[failed:]]
    assert [" ".join(each) for each in words if each[0] in ("Stages", "Elapsed")] == [
        "Stages 3 made, 14 from the store",
        "Elapsed 61 s",
    ]


def test_a_report_of_all_that_is_tracked_shows_the_newest_of_each() -> None:
    runs = two_seeds()
    runs.add("newer", "sweep", {"space": "micro", "data": "digits"})
    runs.cell("other", 0, {}, top1=0.123, parent="newer")
    text = printed(build_report(runs.runs))
    assert "12.30" in text
    assert "newer" in text
    assert "91.00" not in text


def test_where_nothing_is_tracked_nothing_is_shown_but_where_to_look() -> None:
    text = printed(build_report(MadeUpRuns().runs), page="report.html")
    assert "│" not in text
    assert text.split()[-2:] == ["Report", "report.html"]
