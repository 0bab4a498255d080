"""What a report says of an experiment that is empty, half done, failed, odd, or somebody else's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.container import BarContainer
from mlflow import MlflowClient

from experiments.report import make
from experiments.report.evidence import report as evidence_report
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.report import Report, build_report
from experiments.report.evidence.values import Picture, Section
from experiments.report.make import keep_report, make_report
from orchestration.tracking.reader import read_experiment
from orchestration.tracking.tracker import Tracker

EXPERIMENT = "odd"


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    found = Tracker(f"sqlite:///{tmp_path}/mlflow.db", EXPERIMENT)
    found.check()
    return found


def start(tracker: Tracker, kind: str, name: str, parent: str | None = None, **params: Any) -> str:
    tags = {"bnnas.stage": kind, "mlflow.source.name": "bnnas sweep s.yaml"}
    return tracker.start_group(name, tags, params, group=name, parent_run_id=parent)


def cell(tracker: Tracker, sweep: str, trainable: str, seed: int = 0) -> str:
    name = f"{trainable}-bn-3-seed{seed}"
    params = {"trainable": trainable, "indicator": "bn", "epochs": 3, "seed": seed}
    return start(tracker, "cell", name, sweep, **params)


def sweep_of(tracker: Tracker) -> str:
    return start(tracker, "sweep", "s", space="tiny", data="digits")


def report(tracker: Tracker, folder: Path) -> tuple[Report, str]:
    """The report, and its page."""
    experiment = read_experiment(tracker.uri, EXPERIMENT)
    page = make_report(experiment, folder / "report").page.read_text("utf-8")
    return build_report(Evidence(experiment)), page


def height(picture: Picture) -> float:
    """Of a figure's only bar."""
    (bars,) = [one for one in picture.figure.axes[0].containers if isinstance(one, BarContainer)]
    return float(bars[0].get_height())


def test_an_empty_experiment_says_what_would_fill_it(tracker: Tracker, tmp_path: Path) -> None:
    found, page = report(tracker, tmp_path)
    assert "Nothing is tracked" in found.gaps[0]
    assert found.gaps[0].split("`")[0] in page
    filled = {"comparison", "cost", "detection"}  # by what others have published
    for section in found.sections:
        assert section.missing, section.key
        assert section.key in filled or not section.tables
    assert all("`" in " ".join(s.missing) for s in found.sections if s.key != "lineage")


def test_a_half_finished_sweep_shows_what_is_there(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    done = cell(tracker, sweep, "all")
    tracker.finish_group(done, metrics={"top1": 0.75, "flops": 1e5, "params": 1e4})
    cell(tracker, sweep, "bn")
    found, page = report(tracker, tmp_path)
    gaps = " ".join(found.sections[0].missing)
    assert "has not come to its end (1 of 2 cells at work)" in gaps
    assert "`bnnas sweep s.yaml` goes on with it" in gaps
    assert ">75.00</span>" in page
    assert "not yet" in page


def test_a_failed_sweep_says_which_cells_and_why(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    lost = cell(tracker, sweep, "bn")
    tracker.finish_group(lost, "FAILED", tags={"bnnas.error": "the fan <is> loud"})
    for name, of in (("supernet bn", "bn-bn-3-seed0"), ("retrain 0 1", "random")):
        tags = {"bnnas.stage": name.split()[0], "bnnas.cell": of}
        stage = tracker.start_group(name, tags, {}, parent_run_id=sweep)
        tracker.finish_group(stage, "FAILED", tags={"bnnas.error": "the fan <is> loud"})
    tracker.finish_group(sweep, "FAILED")
    found, page = report(tracker, tmp_path)
    gaps = " ".join(found.sections[0].missing)
    assert "1 of 1 cells of the sweep s have failed (bn-bn-3-seed0: the fan <is> loud)" in gaps
    assert "1 stages of the sweep s outside its cells have failed (retrain 0 1: the fan" in gaps
    assert "the fan &lt;is&gt; loud" in page
    assert "no cell has come to its end" in page


def test_a_sweep_of_which_no_cell_was_tracked_says_so(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    tracker.start_group("retrain 0", {"bnnas.stage": "retrain"}, {}, parent_run_id=sweep)
    found, _ = report(tracker, tmp_path)
    assert found.sections[0].missing == (
        "The sweep s has no cell yet: `bnnas sweep s.yaml` goes on with it.",
    )


@pytest.mark.parametrize(("num_random", "num_gaps"), [(5, 1), (0, 0)])
def test_a_random_baseline_that_nobody_wanted_is_not_missed(
    tracker: Tracker, tmp_path: Path, num_random: int, num_gaps: int
) -> None:
    sweep = start(tracker, "sweep", "s", space="tiny", data="digits", num_random=num_random)
    tracker.finish_group(cell(tracker, sweep, "bn"), metrics={"top1": 0.75})
    tracker.finish_group(sweep)
    found, _ = report(tracker, tmp_path)
    assert len(found.sections[0].missing) == num_gaps


def test_a_number_that_is_none_is_left_out_and_named(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    for seed, top1 in enumerate((0.5, 0.7, math.nan)):
        run_id = cell(tracker, sweep, "bn", seed)
        tracker.finish_group(run_id, metrics={"top1": top1})
    tracker.finish_group(sweep)
    found, page = report(tracker, tmp_path)
    assert "The top-1 of bn-bn-3-seed2 is no number, and left out of the means" in " ".join(
        found.sections[0].missing
    )
    assert ">60.00</span> ±" in page
    assert "not finite" in page


def test_runs_of_another_program_are_counted_and_left_out(tracker: Tracker, tmp_path: Path) -> None:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    for _ in range(2):
        run = client.create_run(experiment.experiment_id, run_name="somebody-else")
        client.log_metric(run.info.run_id, "top1", 0.99)
    sweep = sweep_of(tracker)
    tracker.finish_group(cell(tracker, sweep, "bn"), metrics={"top1": 0.5})
    found, page = report(tracker, tmp_path)
    assert "2 run(s) of the experiment are of another program" in " ".join(found.gaps)
    assert "somebody-else" not in page
    assert "99.00" not in page


def test_names_of_runs_are_no_paths_and_do_not_collide(tracker: Tracker, tmp_path: Path) -> None:
    names = ("../a b", "../a b", "A", "a", "a", "a-2", "n" * 250)
    for number, name in enumerate(names):
        sweep = tracker.start_group(
            name, {"bnnas.stage": "sweep"}, {"space": "tiny"}, group=f"g{number}"
        )
        run_id = start(tracker, "cell", f"c{number}", sweep, trainable="bn", epochs=1)
        tracker.finish_group(run_id, metrics={"top1": 0.1 * (number + 1)})
        tracker.finish_group(sweep)
    found, page = report(tracker, tmp_path)
    section = found.sections[0]
    for kind, blocks in (("tables", section.tables), ("figures", section.pictures)):
        written = [path.stem for path in (tmp_path / "report" / kind).glob("*.[cp][sn][vg]")]
        assert {block.name for block in blocks} <= set(written)
        assert len({block.name.casefold() for block in blocks}) == len(blocks)
        assert all(len(block.name) < 100 for block in blocks)
    drawn = [picture for picture in section.pictures if picture.name.startswith("ablation")]
    assert len(drawn) == len(names)
    # Each picture is under its own title: of the newest sweep first.
    tops = [height(picture) for picture in drawn]
    assert tops == pytest.approx([10 * (number + 1) for number in reversed(range(len(names)))])
    assert page.count('<table id="table-ablation') == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "report"]


def test_a_mean_says_of_how_many_seeds_it_is(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    tracker.finish_group(cell(tracker, sweep, "bn", 0), metrics={"top1": 0.7})
    for seed in (1, 2):
        tracker.finish_group(cell(tracker, sweep, "bn", seed), "FAILED")
    found, page = report(tracker, tmp_path)
    table = found.sections[0].tables[0]
    assert table.columns[-1] == "seeds finished"
    assert table.rows[0][-1] == "1 of 3"
    assert ">70.00</span></td>" in page  # one of several seeds has no spread


def test_odd_params_and_numbers_end_no_report(tracker: Tracker, tmp_path: Path) -> None:
    sweep = sweep_of(tracker)
    odd: list[dict[str, Any]] = [{}, {"epochs": "²"}, {"epochs": 1, "trainable": "bn"}]
    for number, params in enumerate(odd):
        run_id = start(tracker, "cell", f"odd{number}", sweep, **params)
        tracker.finish_group(run_id, metrics={"top1": 1.5 if number else math.inf})
    tracker.finish_group(sweep, metrics={"random_baseline": math.nan})
    found, page = report(tracker, tmp_path)
    assert not any("is a bug" in gap for s in found.sections for gap in s.missing)
    assert "150.00" in page


def test_a_section_that_fails_is_a_gap(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost_section(evidence: Evidence) -> Section:
        raise RuntimeError("the fan is loud")

    sections = [one for one in evidence_report.SECTIONS if one.__name__ != "cost_section"]
    monkeypatch.setattr(evidence_report, "SECTIONS", (*sections, cost_section))
    found, page = report(tracker, tmp_path)
    failed = next(section for section in found.sections if section.key == "cost")
    assert "the fan is loud" in failed.missing[0]
    assert page.count("<section") == len(evidence_report.SECTIONS) + 1


def test_a_report_that_fails_costs_a_warning(
    tracker: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the fan is loud")

    sweep = sweep_of(tracker)
    monkeypatch.setattr(make, "build_report", broken)
    assert keep_report(tracker, sweep, tmp_path / "report") is None
    assert "the fan is loud" in caplog.text
    assert not (tmp_path / "report").exists()


def test_only_a_report_is_replaced(tracker: Tracker, tmp_path: Path) -> None:
    experiment = read_experiment(tracker.uri, EXPERIMENT)
    folder = tmp_path / "report"
    make_report(experiment, folder)
    make_report(experiment, folder)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other things than a report"):
        make_report(experiment, folder)
    assert (folder / "thesis.txt").read_text() == "mine"
    other = tmp_path / "pytest"
    other.mkdir()
    (other / "report.html").write_text("<html>another program's</html>")
    for place in (other, other / "report.html"):
        with pytest.raises(ValueError, match="holds other things than a report"):
            make_report(experiment, place)
    assert "another program's" in (other / "report.html").read_text()


def test_names_are_data_on_the_page_and_in_the_tables(tracker: Tracker, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>|x\n| y"
    sweep = tracker.start_group(hostile, {"bnnas.stage": "sweep"}, {"space": "tiny"}, group="g")
    tracker.finish_group(cell(tracker, sweep, "bn"), metrics={"top1": 0.5})
    tracker.finish_group(sweep)
    _, page = report(tracker, tmp_path)
    assert "<script" not in page
    for path in (tmp_path / "report" / "tables").glob("*ablation*.md"):
        text = path.read_text("utf-8")
        assert "<script" not in text
        assert len({line.replace("\\|", "").count("|") for line in text.splitlines()} - {0}) == 1


def test_passwords_stay_out_of_it(tracker: Tracker, tmp_path: Path) -> None:
    tags = {
        "bnnas.stage": "sweep",
        "mlflow.source.name": "-c sweep s.yaml --set tracking.uri=https://me:secret@host/x",
    }
    sweep = tracker.start_group("s", tags, {"space": "tiny"}, group="s")
    tracker.finish_group(cell(tracker, sweep, "bn"), metrics={"top1": 0.5})
    found, _ = report(tracker, tmp_path)
    assert "`bnnas sweep s.yaml --set tracking.uri=https://host/x`" in found.sections[0].missing[0]
    files = (path for path in (tmp_path / "report").rglob("*") if path.is_file())
    assert not any(b"secret" in path.read_bytes() for path in files)
