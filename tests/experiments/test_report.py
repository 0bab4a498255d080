"""The report of an experiment that the real commands have made: every number is MLflow's."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import BarContainer

from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.report import SECTIONS, build_report
from experiments.report.evidence.values import MeanStd, Picture, Table
from experiments.report.page import PAGE
from tests.experiments.browser import visit
from tests.experiments.command import assert_refused
from tests.experiments.recorded import Recorded

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

KEYS = [
    "ablation",
    "early-bird",
    "correlation",
    "cost",
    "comparison",
    "detection",
    "preference",
    "lineage",
]


class Page(HTMLParser):
    """The numbers, images and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tracked: list[dict[str, str]] = []
        self.images: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "span" and "data-metric" in found:
            self.tracked.append(found)
        if tag == "img":
            self.images.append(found)
        self.links += [found[key] for key in ("href", "src") if key in found]


@pytest.fixture(scope="module")
def written(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on all of it."""
    from experiments.report.make import make_report

    folder = tmp_path_factory.mktemp("report") / "all"
    return make_report(recorded.read(), folder).folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / PAGE).read_text("utf-8"))


def reduced(values: Sequence[float], how: str) -> float:
    """The reductions again, written by somebody else."""
    mean = sum(values) / len(values)
    if how == "std":
        return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)
    if how == "value":
        (only,) = values
        return only
    return {"mean": mean, "sum": sum(values), "max": max(values), "min": min(values)}[how]


def test_every_number_is_found_again_in_mlflow(page: Page, recorded: Recorded) -> None:
    assert len(page.tracked) > 100
    runs: dict[str, Any] = {}
    for number in page.tracked:
        values = []
        for run_id in number["data-runs"].split():
            run = runs.setdefault(run_id, recorded.client.get_run(run_id))
            values.append(run.data.metrics[number["data-metric"]])
        assert float(number["data-value"]) == pytest.approx(reduced(values, number["data-how"]))


def test_every_section_is_there_and_filled(page: Page, recorded: Recorded) -> None:
    assert [key for key in page.ids if key in KEYS] == KEYS
    report = build_report(Evidence(recorded.read()))
    with_pictures = {section.key for section in report.sections if section.pictures}
    assert {"ablation", "early-bird", "correlation", "cost", "preference"} <= with_pictures
    assert all(section.tables for section in report.sections)
    assert len(SECTIONS) == len(KEYS) - 1


def test_the_ablation_has_what_the_sweep_has_printed(recorded: Recorded) -> None:
    report = build_report(Evidence(recorded.read()))
    table = next(t for t in report.sections[0].tables if t.name == "ablation-ablation")
    cells = recorded.printed["sweep"]["cells"]
    for row in table.rows:
        for indicator, value in zip(("accuracy", "bn"), row[2:4], strict=True):
            top1 = [
                cell["top1"]
                for cell in cells
                if (cell["trainable"], cell["indicator"]) == (row[0], indicator)
            ]
            assert isinstance(value, MeanStd)
            assert value.std is not None
            assert value.mean.value == pytest.approx(statistics.mean(top1))
            assert value.std.value == pytest.approx(statistics.stdev(top1))
    baseline = table.rows[0][-2]
    assert isinstance(baseline, MeanStd)
    assert baseline.std is not None
    assert baseline.mean.value == recorded.printed["sweep"]["random_baseline"]
    assert baseline.std.value == recorded.printed["sweep"]["random_baseline_std"]


def test_the_figure_draws_the_table(recorded: Recorded) -> None:
    section = build_report(Evidence(recorded.read())).sections[0]
    picture = next(p for p in section.pictures if p.name == "ablation-ablation")
    table = next(t for t in section.tables if t.name == "ablation-ablation")
    (axes,) = picture.figure.axes
    bars = [each for each in axes.containers if isinstance(each, BarContainer)]
    heights = [bar.get_height() for container in bars for bar in container]
    means = [row[column] for column in (2, 3) for row in table.rows]
    assert heights == pytest.approx([100 * m.mean.value for m in means if isinstance(m, MeanStd)])
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    baseline = table.rows[0][-2]
    assert isinstance(baseline, MeanStd)
    assert np.asarray(lines[0].get_ydata()).tolist() == pytest.approx(
        [100 * baseline.mean.value] * 2
    )


def test_the_page_needs_nothing_beside_itself(page: Page) -> None:
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"<script|@import|url\(", page.text)
    assert page.images
    assert all(len(image["alt"]) > 20 for image in page.images)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_files_beside_the_page(written: Path, recorded: Recorded) -> None:
    blocks = [
        block
        for section in build_report(Evidence(recorded.read())).sections
        for block in section.blocks
    ]
    pictures = {block.name for block in blocks if isinstance(block, Picture)}
    tables = [block for block in blocks if isinstance(block, Table)]
    assert {path.stem for path in (written / "figures").glob("*.pdf")} == pictures
    assert {path.stem for path in (written / "figures").glob("*.png")} == pictures
    for table in tables:
        with (written / "tables" / f"{table.name}.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        assert len(rows) == len(table.rows)
        assert len(head) >= len(table.columns)
        lines = (written / "tables" / f"{table.name}.md").read_text("utf-8").splitlines()
        assert sum(line.startswith("| ") for line in lines) == len(table.rows) + 1


def test_lineage_names_commit_command_and_machine_of_every_run(
    page: Page, recorded: Recorded
) -> None:
    report = build_report(Evidence(recorded.read()))
    (table,) = report.sections[-1].tables
    rows = {str(row[2]): row for row in table.rows}
    shown = {run_id for number in page.tracked for run_id in number["data-runs"].split()}
    assert shown <= set(rows)
    # A study's τ is made from retrainings that other groups have shown first.
    retrained = [run for run in recorded.read().runs if run.kind == "retrain"]
    studied = {row["arch"] for row in recorded.printed["correlate"]["architectures"]}
    made = {run.run_id for run in retrained if run.params["arch"] in studied}
    assert len(made) >= 8
    assert made <= set(rows)
    part = recorded.read().part(recorded.printed["correlate"]["mlflow_run_id"])
    assert made <= {run.run_id for run in part.runs}
    for run_id, row in rows.items():
        tags = recorded.client.get_run(run_id).data.tags
        code = json.loads(tags["bnnas.code"])
        assert row[6] == str(code["commit"] or "not known")
        assert row[7] == code["command"]
        assert code["hardware"]["machine"] in str(row[8])
        assert str(row[3]) == tags.get("bnnas.fingerprint", "")[:12]


def test_run_and_sweep_attach_a_report_on_themselves(recorded: Recorded) -> None:
    for name in ("sweep", "run", "correlate"):
        printed = recorded.printed[name]
        shown = Path(printed["report"]).read_text("utf-8")
        listed = recorded.client.list_artifacts(printed["mlflow_run_id"], "report")
        assert f"report/{PAGE}" in [artifact.path for artifact in listed]
        ids = {i for number in Page(shown).tracked for i in number["data-runs"].split()}
        assert printed["mlflow_run_id"] in ids
    swept, early = recorded.printed["sweep"]["mlflow_run_id"], recorded.printed["run"]
    assert swept not in Path(early["report"]).read_text("utf-8")


def test_the_command_says_what_is_there_and_what_is_missing(
    bnnas: Any, recorded: Recorded, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    told = bnnas("report", recorded.folder / "sweep.yaml", "--out", out, "--json").json()
    assert told["page"] == str(out / PAGE)
    assert [section["key"] for section in told["sections"]] == KEYS
    comparison = next(s for s in told["sections"] if s["key"] == "comparison")
    assert any("imagenet_spos.yaml" in gap for gap in comparison["missing"])
    again = bnnas("report", "--uri", recorded.uri, "--out", out)
    assert again.status == 0
    assert str(PAGE) in again.out
    one = bnnas(
        "report",
        "--uri",
        recorded.uri,
        "--out",
        out,
        "--run",
        recorded.printed["run"]["mlflow_run_id"],
    )
    assert one.status == 0


def test_what_cannot_be_reported_on(bnnas: Any, recorded: Recorded, tmp_path: Path) -> None:
    assert_refused(
        bnnas("report", "--uri", recorded.uri, "--experiment", "bnas", "--out", tmp_path / "r"),
        "no experiment 'bnas'",
        "'bnnas'",
    )
    assert_refused(bnnas("report", "--uri", f"sqlite:///{tmp_path}/none.db"), "no MLflow database")
    assert not (tmp_path / "none.db").exists()
    assert_refused(
        bnnas("report", "--uri", "http://127.0.0.1:9", "--out", tmp_path / "r"),
        "connection refused",
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert_refused(
        bnnas("report", "--uri", recorded.uri, "--out", tmp_path / "mine"), "other things"
    )
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    assert_refused(
        bnnas("report", "--uri", recorded.uri, "--out", tmp_path / "r", "--run", "0" * 32),
        "has no run",
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_in_a_browser(written: Path, width: int) -> None:
    """Nothing is asked of a network, nothing complains, nothing sticks out of the window."""
    with visit(written / PAGE, width=width) as seen:
        images = seen.page.eval_on_selector_all(
            "img", "all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt])"
        )
        inner = seen.page.evaluate("document.documentElement.scrollWidth")
        text_px = seen.page.eval_on_selector_all(
            "td, th, p, h2",
            "all => Math.min(...all.map(e => parseFloat(getComputedStyle(e).fontSize)))",
        )
        told = seen.page.title()
    assert seen.complaints == []
    # Pictures are data, which Chromium counts as requests that reach no network.
    assert [url for url in seen.requests if not url.startswith("data:")] == [
        (written / PAGE).as_uri()
    ]
    assert images
    assert all(done and natural > 0 and alt for done, natural, _, alt in images)
    # Ten-point letters are 22 pixels high in a picture; a wide picture scrolls by itself.
    assert all(22 * shown / natural >= 9 for _, natural, shown, _ in images)
    assert inner <= width
    assert text_px >= 12
    assert told.startswith("bnnas")
