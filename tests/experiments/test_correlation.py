"""The correlation study: numbers by hand, measurements from the stages, nothing made twice."""

from __future__ import annotations

import csv
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from experiments.config.load import load_correlation
from experiments.figures.study import Row, Study
from experiments.plan.cell import described
from experiments.plan.study import CorrelationPlan, plan_correlation
from experiments.report.correlation import correlation_figure
from experiments.run.study import collect_study
from experiments.stages.scored_search import make_scorer
from experiments.stages.supernet import recorded_scores
from nas.cost import flops_table, gather_sum
from nas.ranking import Interval, kendall_tau
from nas.space import parse_architecture
from orchestration.store.stage_store import StageStore
from tests.experiments.command import run
from tests.experiments.configs import write_config
from tests.experiments.test_stages import payload

# --- what is computed ---


def row(number: int, top1: tuple[float, ...], **scores: tuple[float, ...]) -> Row:
    return Row(
        arch=str(number),
        flops=float(number),
        params=1.0,
        top1=top1,
        test_loss=tuple(1 - value for value in top1),
        scores=scores,
    )


STUDY = Study(
    rows=(
        row(0, (0.5, 0.7), good=(1.0, 1.0), size=(0.0, 0.0)),
        row(1, (0.7, 0.5), good=(2.0, 3.0), size=(1.0, 1.0)),
        row(2, (0.7, 0.9), good=(3.0, 2.0), size=(2.0, 2.0)),
        row(3, (0.6, 0.8), good=(2.5, 2.5), size=(3.0, 3.0)),
    ),
    seeds=(0, 1),
    num_bins=2,
)


def test_agreement_is_that_of_the_means_over_seeds() -> None:
    # Mean top-1: 0.6, 0.6, 0.8, 0.7. Mean scores of `good`: 1, 2.5, 2.5, 2.5.
    good, size = STUDY.agreement["good"], STUDY.agreement["size"]
    assert good.tau.value == pytest.approx(kendall_tau([1, 2.5, 2.5, 2.5], [0.6, 0.6, 0.8, 0.7]))
    # Five untied pairs in top-1; of `size` four agree and one does not: 3 / sqrt(6 * 5).
    assert size.tau.value == pytest.approx(3 / math.sqrt(30))
    assert size.tau.low <= size.tau.value <= size.tau.high
    # Bins {0, 1} and {2, 3}: the first pair is tied in top-1, the second disagrees.
    assert size.within.value == pytest.approx(-1 / math.sqrt(2))
    assert size.within.low <= size.within.value <= size.within.high
    assert size.over_bn is None  # which is not judged
    assert size.loss == pytest.approx(size.tau.value)
    assert good.by_seed == pytest.approx(
        (
            kendall_tau([1, 2, 3, 2.5], [0.6, 0.6, 0.8, 0.7]),
            kendall_tau([1, 3, 2, 2.5], [0.6, 0.6, 0.8, 0.7]),
        )
    )


def test_indicators_are_compared_with_bn_over_the_same_architectures() -> None:
    rows = [
        replace(each, scores={"bn": each.scores["good"], **each.scores, "worse": (-n, -n)})
        for n, each in enumerate(STUDY.rows)
    ]
    found = replace(STUDY, rows=tuple(rows)).agreement
    assert found["bn"].over_bn is None
    assert (found["good"].over_bn, found["good"].tau) == (Interval(0, 0, 0), found["bn"].tau)
    worse = found["worse"].over_bn
    assert worse is not None
    assert worse.value == pytest.approx(found["worse"].tau.value - found["bn"].tau.value)
    assert worse.low < worse.value < worse.high <= 0


def test_metrics_are_what_was_computed() -> None:
    metrics = STUDY.metrics
    assert metrics["num_architectures"] == 4
    assert metrics["tau/size"] == STUDY.agreement["size"].tau.value
    assert metrics["tau_within/size"] == STUDY.agreement["size"].within.value
    assert metrics["tau_within_low/size"] == STUDY.agreement["size"].within.low
    assert not [name for name in metrics if name.startswith("tau_over_bn")]
    assert metrics["tau_seed_std/good"] == pytest.approx(
        statistics.stdev(STUDY.agreement["good"].by_seed)
    )
    # Every architecture has top-1 of ± 0.1 around its mean.
    assert metrics["within/top1"] == pytest.approx(math.sqrt(0.02))


def test_one_seed_says_nothing_of_chance() -> None:
    single = Study(
        tuple(row(n, (0.1 * n,), good=(float(n),)) for n in range(4)), seeds=(7,), num_bins=1
    )
    assert single.spreads == {}
    assert not any(name.startswith(("within/", "tau_seed_std")) for name in single.metrics)


def test_the_table_has_a_line_for_each_architecture_and_seed() -> None:
    lines = list(csv.DictReader(STUDY.csv().splitlines()))
    assert len(lines) == 8
    assert [float(line["top1"]) for line in lines[:2]] == [0.5, 0.7]
    assert [line["seed"] for line in lines[:2]] == ["0", "1"]
    assert [float(line["score/good"]) for line in lines[2:4]] == [2.0, 3.0]


def test_the_figure_shows_the_means() -> None:
    figure = correlation_figure(STUDY)
    panel = figure.axes[1]  # `size`
    points = [
        point
        for line in panel.lines
        if line.get_marker() == "o"
        for point in np.asarray(line.get_xydata()).tolist()
    ]
    assert sorted(points) == [
        pytest.approx(point) for point in ([0, 60], [1, 60], [2, 80], [3, 70])
    ]
    assert f"{STUDY.agreement['size'].tau.value:.2f}" in panel.get_title()


# --- what is planned ---

INDICATORS = ["bn", "accuracy", "flops"]


def write_study(folder: Path, **changes: Any) -> Path:
    return write_config(
        folder,
        **{
            "seeds": [3, 5],
            "correlate": {
                "num_architectures": 4,
                "num_strata": 2,
                "num_bins": 2,
                "indicators": INDICATORS,
            },
            "search__recalibration_images": 64,
            "search__batch_size": 64,
            "retrain__epochs": 1,
            "retrain__warmup_epochs": 0,
            **changes,
        },
    )


def planned(path: Path) -> CorrelationPlan:
    settings = load_correlation(path)
    return plan_correlation(settings, described(settings.shared.data))


def test_seeds_share_the_architectures_and_strata_their_number(tmp_path: Path) -> None:
    plan = planned(write_study(tmp_path))
    assert plan.seeds == (3, 5)
    assert len(set(plan.archs)) == 4
    flops_B = flops_table(plan.cells[0].space).of_many(plan.archs)
    middle = (flops_table(plan.cells[0].space).minimum + flops_B.max()) / 2
    assert np.count_nonzero(flops_B < middle) == 2
    fingerprints = [stage.fingerprint for stage in plan.stages]
    # For each seed a supernet, an indicator that is no sum over layers, and four retrainings.
    assert len(set(fingerprints)) == len(fingerprints) == 2 * (1 + 1 + 4)


def test_indicators_without_a_supernet_need_none(tmp_path: Path) -> None:
    path = write_study(tmp_path, correlate={"num_architectures": 4, "indicators": ["flops"]})
    plan = planned(path)
    assert {stage.kind for stage in plan.stages} == {"retrain"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correlate": {"num_architectures": 2}}, "num_architectures.*greater than or equal to 3"),
        ({"correlate": {"indicators": ["bm"]}}, "unknown indicator.*bn, accuracy"),
        ({"correlate": {"indicators": ["bn", "bn"]}}, "each once"),
        ({"correlate": {"num_architectures": 4000}}, "only [0-9]+ could be found"),
        ({"grid": {"epochs": [1]}}, "has a grid"),
        ({"seeds": [1, 1]}, "names 1 more than once"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(write_study(tmp_path, **changes))


# --- what is made ---


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which the study was run by its command, and what that printed."""
    folder = tmp_path_factory.mktemp("study")
    done = run("correlate", write_study(folder), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.ray
@pytest.mark.slow
def test_measurements_are_those_of_the_stages(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study
    plan = planned(folder / "small.yaml")
    store = StageStore(folder / "runs")
    assert (document["status"], document["executed"], document["cached"]) == ("done", 12, 0)
    table = document["architectures"]
    assert [line["seed"] for line in table] == [3, 5] * 4
    for cell in plan.cells:
        assert cell.supernet is not None
        ours = [line for line in table if line["seed"] == cell.config.seed]
        archs = [parse_architecture(line["arch"]) for line in ours]
        assert tuple(archs) == plan.archs
        for line, arch in zip(ours, archs, strict=True):
            record = store.get(cell.retrain(arch).fingerprint)
            assert record is not None
            assert line["top1"] == record.metrics["top1"]
            assert line["test_loss"] == record.metrics["test_loss"]
        supernet = store.get(cell.supernet.fingerprint)
        assert supernet is not None
        scores_LN = recorded_scores(supernet.history[-1], cell.space)
        assert [line["score/bn"] for line in ours] == gather_sum(scores_LN, archs).tolist()
        for stage in plan.scores(cell):
            place = {"inputs": {"supernet": supernet.fingerprint}}
            score = make_scorer(payload(stage, folder, **place), "cpu")
            name = stage.config["search"]["indicator"]
            assert [line[f"score/{name}"] for line in ours] == pytest.approx(
                [score(arch) for arch in archs]
            )


@pytest.mark.ray
@pytest.mark.slow
def test_mlflow_has_the_study_and_what_it_is_made_of(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    run_ = client.get_run(document["mlflow_run_id"])
    assert run_.data.tags["bnnas.stage"] == "correlate"
    found = collect_study(planned(folder / "small.yaml"), StageStore(folder / "runs"))
    assert found is not None
    for name, value in found.metrics.items():
        assert run_.data.metrics[name] == pytest.approx(value, nan_ok=True)
    assert document["metrics"].keys() == found.metrics.keys()
    files = {file.path for file in client.list_artifacts(run_.info.run_id)}
    assert {"correlation.png", "correlation.csv", "config.yaml"} <= files
    below = client.search_runs(
        [run_.info.experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{run_.info.run_id}'",
    )
    kinds = [each.data.tags["bnnas.stage"] for each in below]
    assert sorted(kinds) == sorted(["supernet"] * 2 + ["score"] * 2 + ["retrain"] * 8)


@pytest.mark.ray
@pytest.mark.slow
def test_again_it_makes_nothing_and_starts_no_cluster(study: tuple[Path, dict[str, Any]]) -> None:
    folder, document = study
    again = run("correlate", "small.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "Connecting to Ray" not in again.stderr
    assert "0 made, 12 from the store" in again.stdout
    plain = run("correlate", "small.yaml", "--json", cwd=folder)
    assert json.loads(plain.stdout)["metrics"] == document["metrics"]
