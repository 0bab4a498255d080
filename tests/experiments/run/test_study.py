"""The correlation study: its numbers by hand, and its measurements from the stages."""

from __future__ import annotations

import csv
import math
import statistics
from dataclasses import replace

import pytest

from experiments.run.study import Row, Study
from experiments.stages.indicator import make_scorer
from experiments.stages.supernet import recorded_scores
from nas.cost import gather_sum
from nas.ranking import Interval, kendall_tau
from nas.space import parse_architecture
from tests.experiments.recorded import Recorded, tracked
from tests.experiments.stage_work import payload, supernet_of


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


def test_metrics_and_table_are_what_was_computed() -> None:
    metrics = STUDY.metrics
    assert metrics["num_architectures"] == 4
    assert metrics["tau/size"] == STUDY.agreement["size"].tau.value
    assert metrics["tau_within/size"] == STUDY.agreement["size"].within.value
    assert metrics["tau_within_low/size"] == STUDY.agreement["size"].within.low
    assert not [name for name in metrics if name.startswith("tau_over_bn")]
    spread = statistics.stdev(STUDY.agreement["good"].by_seed)
    assert metrics["tau_seed_std/good"] == pytest.approx(spread)
    # Every architecture has top-1 of ± 0.1 around its mean.
    assert metrics["within/top1"] == pytest.approx(math.sqrt(0.02))
    lines = list(csv.DictReader(STUDY.csv().splitlines()))
    assert [line["seed"] for line in lines] == ["0", "1"] * 4
    assert [float(line["top1"]) for line in lines[:2]] == [0.5, 0.7]
    assert [float(line["score/good"]) for line in lines[2:4]] == [2.0, 3.0]


def test_one_seed_says_nothing_of_chance() -> None:
    single = Study(
        tuple(row(n, (0.1 * n,), good=(float(n),)) for n in range(4)), seeds=(7,), num_bins=1
    )
    assert single.spreads == {}
    assert not any(name.startswith(("within/", "tau_seed_std")) for name in single.metrics)


@pytest.mark.ray
@pytest.mark.slow
def test_measurements_are_those_of_the_stages(recorded: Recorded) -> None:
    result, store = recorded.study, recorded.store
    (cell,) = result.plan.cells
    document = result.to_json()
    assert document["status"] == "done"
    supernet = store.get(supernet_of(cell).fingerprint)
    assert supernet is not None
    assert supernet.fingerprint in result.cached  # it is the sweep's
    table = document["architectures"]
    archs = [parse_architecture(line["arch"]) for line in table]
    assert tuple(archs) == result.plan.archs
    for line, arch in zip(table, archs, strict=True):
        record = store.get(cell.retrain(arch).fingerprint)
        assert record is not None
        assert (line["top1"], line["test_loss"]) == (
            record.metrics["top1"],
            record.metrics["test_loss"],
        )
    scores_LN = recorded_scores(supernet.history[-1], cell.space)
    assert [line["score/bn"] for line in table] == gather_sum(scores_LN, archs).tolist()
    score_stage = cell.score("accuracy", archs)
    config = payload(score_stage, recorded.folder, supernet=supernet.fingerprint)
    score = make_scorer(config, "cpu")
    assert [line["score/accuracy"] for line in table] == [score(arch) for arch in archs]


@pytest.mark.ray
@pytest.mark.slow
def test_mlflow_has_the_study_and_what_it_is_made_of(recorded: Recorded) -> None:
    result = recorded.study
    assert result.run_id is not None
    run = recorded.client.get_run(result.run_id)
    assert run.data.tags["bnnas.stage"] == "correlate"
    assert result.study is not None
    for name, value in result.study.metrics.items():
        assert run.data.metrics[name] == pytest.approx(value, nan_ok=True)
    files = {file.path for file in recorded.client.list_artifacts(run.info.run_id)}
    assert {"correlation.csv", "config.yaml"} <= files
    ids = {stage.mlflow_run_id for each in result.chains for stage in each.stages}
    shown = {run.info.run_id: run.data.tags["bnnas.stage"] for run in tracked(recorded.folder)}
    kinds = sorted(shown[run_id] for run_id in ids)
    assert kinds == ["retrain"] * 3 + ["score", "supernet"]
