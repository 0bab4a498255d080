"""The end of a command: the tables of the page, what it cost, what failed, and where to look."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.report.make import Report, build_report
from experiments.report.tables import Table
from experiments.report.terminal import print_report
from tests.experiments.made_up_runs import MadeUpRuns, table, two_seeds

SECTIONS = {"run": "ablation", "sweep": "ablation", "detect": "detection"}


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
def runs() -> MadeUpRuns:
    """A sweep of twelve cells, as in the demo, with its random baseline and a detector."""
    runs = MadeUpRuns()
    runs.add("demo", "sweep", {"space": "micro", "data": "digits", "winner": "bn-bn-10"})
    runs.change(0, "metrics", random_baseline=0.93, random_top1=0.88, random_top1_std=0.02)
    for trainable in ("all", "bn"):
        for epochs in (1, 3, 10):
            end = f"{trainable}-{epochs}"
            supernet = runs.supernet(f"supernet-{end}", 0, trainable=trainable, epochs=epochs)
            for indicator in ("accuracy", "bn"):
                name = f"{trainable}-{indicator}-{epochs}"
                inputs = {
                    "supernet": supernet,
                    "search": runs.search(f"search-{name}", 0, supernet),
                    "retrain": runs.retrain(f"retrain-{name}", 0),
                }
                axes: Mapping[str, Any] = {"trainable": trainable, "indicator": indicator}
                runs.cell(name, 0, inputs, epochs=epochs, parent="demo", **axes)
    params = {"detect.data.name": "digit_scenes", "backbone.arch": "1 1 1 1 1 1 1 1"}
    metrics = {"coco/bbox_mAP": 0.3674, "coco/bbox_mAP_50": 0.5584, "device_hours": 0.05}
    runs.add("detector", "detect", params, metrics)
    for number, run in enumerate(runs.tracked):
        if run.kind in ("supernet", "search", "retrain", "detect"):
            runs.change(number, "tags", **{"bnnas.fingerprint": f"{number:064x}"})
    return runs


@pytest.fixture(scope="module")
def report(runs: MadeUpRuns) -> Report:
    return build_report(runs.runs)


@pytest.mark.parametrize("kind", ["run", "sweep", "detect"])
def test_the_terminal_shows_the_tables_of_the_page(report: Report, kind: str) -> None:
    text = printed(report, kind=kind)
    names = {
        "run": "cells-demo",
        "sweep": "ablation-demo",
        "detect": "detection-digit_scenes",
    }
    assert_shown(table(report.section(SECTIONS[kind]), names[kind]), text)
    assert_shown(report.lineage.tables[0], text)  # what it cost


def test_the_cost_counts_what_cells_share_once(runs: MadeUpRuns, report: Report) -> None:
    (cost,) = [each for each in report.lineage.tables if each.name == "stages"]
    rows = {row[0]: row[1:] for row in cost.rows}
    supernets = [run.metrics for run in runs.tracked if run.kind == "supernet"]
    wall_s = sum(each["wall_s"] for each in supernets)
    device_s = 3600 * sum(each["device_hours"] for each in supernets)
    assert len(supernets) == 6
    assert list(map(str, rows["supernet"])) == ["6", f"{wall_s:.1f}", f"{device_s:.1f}"]


def test_the_last_screen_of_the_demo_has_forty_lines(report: Report) -> None:
    text = printed(report, page=Path("report/report.html"), mlflow="bnnas ui")
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
        page=Path("report.html"),
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
    text = printed(build_report(MadeUpRuns().runs), page=Path("report.html"))
    assert "│" not in text
    assert text.split()[-2:] == ["Report", "report.html"]
