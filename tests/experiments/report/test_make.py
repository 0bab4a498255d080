"""From runs to a folder: the same from MLflow and from results in hand, drawn once, never lost."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from experiments.commands.run import run_and_print
from experiments.config.load import load_experiment
from experiments.config.places import open_tracker
from experiments.report import make
from experiments.report.formats import percent
from experiments.report.make import Report, build_report, keep_report, write_report
from experiments.report.page import PAGE
from experiments.report.run_table import Runs
from experiments.report.tables import NOTHING, Number, Section, Table
from experiments.run.tracked import tracked_runs
from orchestration.tracking.tracker import Tracker
from tests.experiments.command import Outcome, assert_refused, environment
from tests.experiments.made_up_runs import MadeUpRuns, two_seeds
from tests.experiments.recorded import Recorded

KEYS = [
    *("ablation", "early-bird", "correlation", "cost"),
    *("comparison", "detection", "preference", "lineage"),
]
AXES = ("trainable", "indicator", "epochs")
# The command in a process of its own, which ends in an error where matplotlib was imported.
LIGHT = """
import sys
from experiments.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"matplotlib", "torch", "ray"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a database, in which every test has an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest) -> Tracker:
    opened = Tracker(uri, request.node.name)
    opened.check()
    return opened


def add_sweep(
    tracker: Tracker,
    name: str = "s",
    top1: float = 0.5,
    command: str = "bnnas sweep s.yaml",
) -> str:
    """A sweep of one finished cell; returns the sweep's run id."""
    source = {"mlflow.source.name": command}
    params = {"space": "tiny", "data": "digits"}
    group = tracker.start_group(name, {"bnnas.stage": "sweep", **source}, params, group=name)
    axes: dict[str, Any] = {"trainable": "bn", "indicator": "bn", "epochs": 3, "seed": 0}
    cell = tracker.start_group(
        f"cell of {name}",
        {"bnnas.stage": "cell", **source},
        axes,
        group=f"{name}/cell",
        parent_run_id=group,
    )
    tracker.finish_group(cell, metrics={"top1": top1})
    tracker.finish_group(group)
    return group


def report_on(tracker: Tracker) -> Report:
    return build_report(Runs.read(tracker.uri, tracker.experiment))


# --- a table as a file ---


def test_a_table_for_people_and_for_a_notebook() -> None:
    rows = (
        ("a|b", Number(1 / 3, percent, 0.125)),
        ("<i>", Number(1 / 3, percent)),
        ("c", NOTHING),
    )
    table = Table("top1", "Top-1 (%)", ("cell", "mean"), rows, "A note.")
    assert table.csv().splitlines() == [
        'cell,mean,"mean, ±"',
        "a|b,33.3333333333333,12.5",
        "<i>,33.3333333333333,",
        "c,,",
    ]
    assert table.markdown().splitlines() == [
        "**Top-1 (%)**",
        "",
        "| cell | mean |",
        "|---|--:|",
        r"| a\|b | 33.33 ± 12.50 |",
        "| &lt;i&gt; | 33.33 |",
        "| c | – |",
        "",
        "A note.",
    ]


# --- from runs to sections ---


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sweep", "study", "detector"])
def test_results_in_hand_give_the_report_that_mlflow_gives(recorded: Recorded, kind: str) -> None:
    result = getattr(recorded, kind)
    found = tracked_runs(result, open_tracker(result.plan.experiment.shared))
    in_hand = Runs("bnnas", found.runs, 0, found)
    own_ids = {run.run_id for run in found.runs}
    everything = Runs.read(recorded.uri, "bnnas")
    tracked = tuple(run for run in everything.tracked if run.run_id in own_ids)
    read = dataclasses.replace(everything, tracked=tracked)
    # In MLflow a stage that several groups share leads to what the first of them made it from.
    run_id = result.run_id or result.chains[0].stages[-1].mlflow_run_id
    assert own_ids <= {run.run_id for run in Runs.read(recorded.uri, "bnnas", run=run_id).tracked}
    for own, other in zip(build_report(in_hand).shown, build_report(read).shown, strict=True):
        assert own.summary == other.summary
        assert [table.csv() for table in own.tables] == [table.csv() for table in other.tables]
        assert [picture.alt for picture in own.pictures] == [p.alt for p in other.pictures]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_attaches_its_report_and_its_figure_once(
    recorded: Recorded, bnnas: Callable[..., Outcome]
) -> None:
    path = recorded.folder / "sweep.yaml"
    assert recorded.sweep.run_id is not None
    printed = bnnas("sweep", path, "--json").json()
    page, figures = Path(printed["report"]), recorded.sweep.figures
    run_id = printed["mlflow_run_id"]
    listed = {file.path for file in recorded.client.list_artifacts(run_id)}
    assert {"report", "ablation.png"} <= listed
    assert f"report/{PAGE}" in {f.path for f in recorded.client.list_artifacts(run_id, "report")}
    with (page.parent / "tables" / "cells-sweep.csv").open(newline="") as file:
        shown = {row["cell"]: float(row["test top-1 (%)"]) for row in csv.DictReader(file)}
    top1 = {"-".join(str(cell[axis]) for axis in AXES): cell["top1"] for cell in printed["cells"]}
    assert shown == pytest.approx({name: 100 * each for name, each in top1.items()})
    drawn = (page.parent / "figures" / "ablation-sweep.png").read_bytes()
    assert (figures / "ablation.png").read_bytes() == drawn
    assert run_id in page.read_text("utf-8")
    written = [page.stat().st_mtime_ns, (figures / "ablation.png").stat().st_mtime_ns]
    run_and_print(load_experiment(path), [str(path)], json=True, quiet=True)
    assert written == [page.stat().st_mtime_ns, (figures / "ablation.png").stat().st_mtime_ns]


def test_every_section_is_there_and_what_is_missing_names_a_command() -> None:
    report = build_report(MadeUpRuns().runs)
    assert [section.key for section in report.sections] == KEYS
    assert report.shown == ()
    assert "Nothing is tracked" in report.summary[0]
    assert len(report.missing) >= 4
    assert all("`bnnas run " in line for line in report.missing)


def test_lineage_names_commit_command_and_machine_of_every_run() -> None:
    runs = two_seeds()
    code = (
        '{"commit": "ab3038a", "command": "bnnas run \'a b.yaml\'", "hardware": '
        '{"processor": "EPYC", "machine": "x86_64", "num_cpus": 2}}'
    )
    runs.change(0, "tags", **{"bnnas.code": code})
    lineage = build_report(runs.runs).lineage
    (table,) = [table for table in lineage.tables if table.name == "lineage"]
    assert [row[2] for row in table.rows] == [run.run_id for run in runs.tracked]
    assert table.rows[0][6:] == ("ab3038a", "bnnas run 'a b.yaml'", "EPYC x86_64, 2 CPUs")


def test_runs_of_another_program_are_counted_and_left_out(tracker: Tracker) -> None:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(tracker.experiment)
    assert experiment is not None
    for _ in range(2):
        other = client.create_run(experiment.experiment_id, run_name="somebody-else")
        client.log_metric(other.info.run_id, "top1", 0.99)
    add_sweep(tracker)
    report = report_on(tracker)
    text = " ".join(str(block) for section in report.sections for block in section.blocks)
    assert "2 runs of other programs are left out" in text
    assert "somebody-else" not in text


def test_a_section_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost_section(runs: Runs) -> Section:
        raise RuntimeError("the fan is loud")

    monkeypatch.setitem(make.SECTIONS, "cost", cost_section)
    report = build_report(two_seeds().runs)
    assert [section.key for section in report.sections] == KEYS
    (told,) = report.section("cost").blocks
    assert "the fan is loud" in str(told)
    assert report.section("cost") in report.shown
    assert not any("loud" in line for line in report.missing)
    assert report.section("ablation").blocks


# --- from a report to a folder ---


def test_beside_the_page_lies_every_figure_and_table(tmp_path: Path) -> None:
    report = build_report(two_seeds().runs)
    write_report(report, tmp_path / "report")
    figures = {block.name for section in report.sections for block in section.pictures}
    for suffix in ("pdf", "png"):
        written = {path.stem for path in (tmp_path / "report" / "figures").glob(f"*.{suffix}")}
        assert written
        assert written <= figures  # what cannot be had is not drawn
    for section in report.sections:
        for table in section.tables:
            with (tmp_path / "report" / "tables" / f"{table.name}.csv").open(newline="") as file:
                head, *rows = csv.reader(file)
            assert len(rows) == len(table.rows)
            assert [name for name in head if not name.endswith(", ±")] == list(table.columns)
            text = (tmp_path / "report" / "tables" / f"{table.name}.md").read_text("utf-8")
            assert text == table.markdown()


def test_a_report_that_is_current_is_not_drawn_again(tracker: Tracker, tmp_path: Path) -> None:
    add_sweep(tracker)
    folder = tmp_path / "report"
    page = write_report(report_on(tracker), folder)

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = times()
    named = ["--uri", tracker.uri, "--experiment", tracker.experiment, "--out", folder]
    command = [sys.executable, "-c", LIGHT, "report", *map(str, named)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert times() == before
    add_sweep(tracker, "another")
    assert write_report(report_on(tracker), folder) == page
    assert "another" in page.read_text("utf-8")
    assert times() != before


def test_names_of_runs_are_no_paths_and_do_not_collide(tracker: Tracker, tmp_path: Path) -> None:
    sweeps = ("../a b", "../a  b", "A", "a", "a-2", "n" * 250, "<script>alert(1)</script>|x\n| y")
    for number, name in enumerate(sweeps):
        add_sweep(tracker, name, 0.1 * (number + 1))
    report = report_on(tracker)
    page = write_report(report, tmp_path / "report").read_text("utf-8")
    section = report.section("ablation")
    for kind, blocks in (("tables", section.tables), ("figures", section.pictures)):
        written = {path.stem for path in (tmp_path / "report" / kind).glob("*.[cp][sn][vg]")}
        assert {block.name for block in blocks} <= written
        assert len({block.name.casefold() for block in blocks}) == len(blocks)
        assert all(len(block.name) < 100 for block in blocks)
    # Each picture is under its own title: of the newest sweep first.
    shown = [f"{10 * (number + 1):.1f}" for number in reversed(range(len(sweeps)))]
    assert [picture.alt.split(" ± ")[0].split()[-1] for picture in section.pictures] == shown
    assert page.count('<table id="table-ablation') == len(sweeps)
    assert "<script" not in page
    for path in (tmp_path / "report" / "tables").glob("*ablation*.md"):
        text = path.read_text("utf-8")
        assert "<script" not in text
        assert len({line.replace("\\|", "").count("|") for line in text.splitlines()} - {0}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


def test_passwords_stay_out_of_it(tracker: Tracker, tmp_path: Path) -> None:
    command = "-c sweep s.yaml --set tracking.uri=https://me:secret@host/x"
    add_sweep(tracker, command=command)
    write_report(report_on(tracker), tmp_path / "report")
    lineage = (tmp_path / "report" / "tables" / "lineage.csv").read_text("utf-8")
    assert "bnnas sweep s.yaml --set tracking.uri=https://host/x" in lineage
    files = (path for path in (tmp_path / "report").rglob("*") if path.is_file())
    assert not any(b"secret" in path.read_bytes() for path in files)


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    report = build_report(MadeUpRuns().runs)
    folder = tmp_path / "report"
    for _ in range(2):
        write_report(report, folder)
    (folder / "thesis.txt").write_text("mine")
    other = tmp_path / "pytest"
    other.mkdir()
    (other / PAGE).write_text("<html>another program's</html>")
    for place in (folder, other, other / PAGE):
        with pytest.raises(ValueError, match="holds other things than a report"):
            write_report(report, place)
    assert (folder / "thesis.txt").read_text() == "mine"
    assert "another program's" in (other / PAGE).read_text()


def test_a_report_that_fails_costs_a_warning_and_nothing_else(
    tracker: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the fan is loud")

    run_id = add_sweep(tracker)
    report = report_on(tracker)
    monkeypatch.setattr(make, "write_page", broken)
    assert keep_report(report, tmp_path / "report", tracker, run_id) is None
    assert "the fan is loud" in caplog.text
    assert not (tmp_path / "report").exists()


# --- the command ---


def test_the_command_says_what_is_there_and_what_is_missing(
    tracker: Tracker, tmp_path: Path, bnnas: Callable[..., Outcome]
) -> None:
    first = add_sweep(tracker, "first")
    add_sweep(tracker, "second")
    out = tmp_path / "page"
    named = ["--uri", tracker.uri, "--experiment", tracker.experiment, "--out", out]
    printed = bnnas("report", *named, "--json").json()
    assert (printed["page"], printed["experiment"]) == (str(out / PAGE), tracker.experiment)
    assert printed["gaps"] == []
    sections = {section["key"]: section for section in printed["sections"]}
    assert list(sections) == KEYS
    assert {frozenset(each) for each in sections.values()} == {
        frozenset({"key", "tables", "figures", "missing"})
    }
    assert sections["ablation"]["figures"] == ["ablation-second", "ablation-first"]
    assert "imagenet_spos.yaml" in sections["comparison"]["missing"][0]
    one = bnnas("report", *named, "--run", first[:8], "--json").json()
    assert one["sections"][0]["figures"] == ["ablation-first"]


def test_what_cannot_be_reported_on(
    tracker: Tracker, tmp_path: Path, bnnas: Callable[..., Outcome]
) -> None:
    add_sweep(tracker)
    out = tmp_path / "r"
    named = ["report", "--uri", tracker.uri, "--out", out]
    name = tracker.experiment
    near = name[:-1]
    assert_refused(bnnas(*named, "--experiment", near), f"no experiment {near!r}", repr(name))
    assert_refused(bnnas(*named, "--experiment", name, "--run", "0" * 32), "has no run")
    missing = f"sqlite:///{tmp_path}/none.db"
    assert_refused(bnnas("report", "--uri", missing, "--out", out), "no MLflow database")
    assert not (tmp_path / "none.db").exists()
    away = "http://127.0.0.1:9"
    assert_refused(bnnas("report", "--uri", away, "--out", out), "connection refused")
    assert_refused(bnnas("report", "--set", "seed=1"), "no config was given")
    assert not out.exists()
