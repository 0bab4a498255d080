"""The correlation section: its numbers are MLflow's, its words follow from them, gaps are said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import pytest

from experiments.figures.study import Row, Study
from experiments.report.correlation import correlation_figure
from experiments.report.evidence.correlation import correlation_section
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import MOST_PICTURES
from experiments.report.evidence.values import NOTHING, Number, Section, Tracked
from nas.ranking import Interval
from orchestration.tracking.reader import TrackedExperiment, TrackedRun

# --- the table, read back ---

# Of these numbers no short decimal is exact; two architectures cost the same.
STUDY = Study(
    rows=tuple(
        Row(
            arch=f"{number} -1",
            flops=1e6 * (1 + number // 2),
            params=float(number),
            top1=(number / 7, (number + 1) / 7),
            test_loss=(0.1 + 0.2 * number, math.exp(-number)),
            scores={"bn": (math.pi * number, 1e-300), "flops": (math.inf, -1 / 3)},
        )
        for number in range(5)
    ),
    seeds=(7, 3),
    num_bins=2,
)
TEXT = STUDY.csv()


def test_a_study_is_read_back_from_its_table_exactly() -> None:
    assert Study.from_csv(TEXT, 2) == STUDY
    assert Study.from_csv(TEXT, 3) == replace(STUDY, num_bins=3)
    single = Study(tuple(replace(row, scores={"bn": row.top1}) for row in STUDY.rows), (4, 5), 1)
    assert Study.from_csv(single.csv(), 1) == single


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "\n",
        TEXT.splitlines()[0] + "\n",
        TEXT[:-30],
        TEXT.replace("test_loss", "loss"),
        TEXT.replace("seed", "sheep"),
        TEXT.replace("0.1,", "n/a,", 1),
        TEXT.replace("0.1,", "nan,", 1),
        "\n".join(TEXT.splitlines()[:-1]) + "\n",
        TEXT + TEXT.splitlines()[1] + "\n" + TEXT.splitlines()[2] + "\n",
        TEXT.replace("2000000.0", "2000001.0", 1),
        TEXT.replace("4 -1,3", "4 -1,8"),
        "<html>not found</html>\n",
    ],
    ids=[
        *("empty", "blank", "header", "cut", "no loss", "no seed", "word", "NaN", "row lost"),
        *("twice", "two costs", "other seed", "page"),
    ],
)
def test_a_damaged_table_is_no_study(damaged: str) -> None:
    assert damaged != TEXT
    with pytest.raises(ValueError, match=r"\w"):
        Study.from_csv(damaged, 2)


# --- the section ---


@dataclass(frozen=True)
class Experiment(TrackedExperiment):
    """With the artifacts of its runs in memory."""

    documents: Mapping[str, str] = field(default_factory=dict)

    def document(self, run: TrackedRun, path: str) -> str | None:
        assert path == "correlation.csv"
        return self.documents.get(run.run_id)


PARAMS = {
    "space": "nano",
    "data": "fashion_mnist",
    "seeds": "[0, 1]",
    "num_architectures": "4",
    "num_bins": "2",
    "indicators": '["bn", "accuracy", "flops"]',
    "supernet_epochs": "30",
    "trainable": "bn",
    "retrain_epochs": "12",
}
COMMAND = "bnnas correlate study.yaml"


def architecture(number: int, bn: float, accuracy: float) -> Row:
    return Row(
        arch=str(number),
        flops=1e6 * (number + 1),
        params=1.0,
        top1=(0.5 + 0.1 * number, 0.52 + 0.1 * number),
        test_loss=(1.0 - 0.1 * number, 0.9 - 0.1 * number),
        scores={
            "bn": (bn, bn),
            "accuracy": (accuracy, accuracy),
            "flops": (1e6 * (number + 1),) * 2,
        },
    )


# Ranked as bn ranks them: of six pairs one disagrees, (0, 1), so τ = 4/6; accuracy's is −1.
SMALL = Study(
    tuple(architecture(n, bn, 0.5 - 0.1 * n) for n, bn in enumerate((2.0, 1.0, 3.0, 4.0))),
    (0, 1),
    2,
)


def study_run(number: int = 0, **changes: Any) -> TrackedRun:
    values: dict[str, Any] = {
        "run_id": f"run{number}",
        "name": f"study{number}",
        "status": "FINISHED",
        "params": PARAMS,
        "metrics": SMALL.metrics,
        "tags": {"bnnas.stage": "correlate", "mlflow.source.name": COMMAND},
        "started_at": float(number),
    }
    return TrackedRun(**{**values, **changes})


def section_of(*runs: TrackedRun, text: str | None = None) -> Section:
    documents = {run.run_id: SMALL.csv() if text is None else text for run in runs}
    return correlation_section(
        Evidence(Experiment("sqlite:///x.db", "x", runs, 0, documents=documents))
    )


def words_of(section: Section) -> str:
    return " ".join(block for block in section.blocks if isinstance(block, str))


def gap(section: Section, *words: str) -> str:
    """The one sentence that has the words."""
    (found,) = [each for each in section.missing if all(word in each for word in words)]
    return found


def test_every_number_is_the_runs_own() -> None:
    run = study_run()
    section = section_of(run)
    agreement, spread = section.tables
    cells = [cell for table in section.tables for row in table.rows for cell in row[1:]]
    numbers = [cell for cell in cells if cell != NOTHING]
    assert len(numbers) == 3 * 11 - 3 + 2 * 3  # bn is not compared with itself
    names = set()
    for number in numbers:
        assert isinstance(number, Number)
        assert isinstance(number.source, Tracked)
        assert number.source.run_ids == (run.run_id,)
        assert number.value == run.metrics[number.source.metric]
        names.add(number.source.metric)
    assert names == run.metrics.keys() - {"num_architectures"}
    assert [row[0] for row in agreement.rows] == ["bn", "accuracy", "flops"]
    bn = dict(zip(agreement.columns, agreement.rows[0], strict=True))
    assert isinstance(tau := bn["τ"], Number)
    assert tau.text == "0.67"
    assert tau.value == pytest.approx(4 / 6)
    # Every architecture has ± 0.01 in top-1 around its mean: the deviation is √0.0002.
    assert isinstance(within := spread.rows[0][2], Number)
    assert within.text == "1.41"
    assert within.value == pytest.approx(math.sqrt(0.0002))


def test_the_figure_shows_the_architectures_and_the_note_counts_them() -> None:
    section = section_of(study_run())
    (picture,) = section.pictures
    titles = [axes.get_title() for axes in picture.figure.axes if axes.get_visible()]
    assert [title.split("\n")[0] for title in titles] == ["bn", "accuracy", "flops"]
    assert "τ 0.67" in titles[0]
    assert "accuracy τ -1.00" in picture.alt
    assert "2 (1.00 to 2.00 M), 2 (3.00 to 4.00 M)" in section.tables[0].note
    # An older run does not say how many bins there were, and its table does.
    older = {name: value for name, value in PARAMS.items() if name != "num_bins"}
    assert section_of(study_run(params=older)).tables[0].note == section.tables[0].note


def test_a_tau_that_is_known_is_not_computed_again() -> None:
    study = replace(SMALL)
    figure = correlation_figure(study, {"accuracy": Interval(0.123, -0.5, 0.75)})
    assert "agreement" not in vars(study)
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["bn\n", "accuracy\nτ 0.12 [-0.50, 0.75]"]


Intervals: TypeAlias = Mapping[str, tuple[float, float, float]]
_NONE: Intervals = MappingProxyType({})
TAUS = {"bn": (0.4, 0.1, 0.6), "accuracy": (0.2, -0.1, 0.5), "flops": (0.61, 0.5, 0.7)}


def metrics_of(
    taus: Intervals, over_bn: Intervals = _NONE, within: Intervals = _NONE
) -> dict[str, float]:
    return {
        f"{metric}{end}/{name}": number
        for metric, found in (("tau", taus), ("tau_over_bn", over_bn), ("tau_within", within))
        for name, ends in found.items()
        for end, number in zip(("", "_low", "_high"), ends, strict=True)
    }


def test_what_follows_is_said_in_words_that_the_numbers_choose() -> None:
    over_bn = {"accuracy": (-0.2, -0.5, 0.1), "flops": (0.21, 0.02, 0.4)}
    within = {"bn": (0.12, -0.1, 0.3), "flops": (0.2, 0.1, 0.3)}
    words = words_of(section_of(study_run(metrics=metrics_of(TAUS, over_bn, within))))
    assert "interval of accuracy holds 0" in words
    assert (
        "bn reaches τ 0.40 and accuracy 0.20; which of the two orders them better is not shown: "
        "the difference of -0.20 has the 95 % interval -0.50 to 0.10." in words
    )
    # Though the intervals of the two overlap: those of their τ are no measure of their difference.
    assert "flops reaches τ 0.61, beside bn's 0.40; flops orders them better: " in words
    assert "Within bins of FLOPs bn has 0.12, beside flops 0.20; the 95 % interval of bn" in words

    other = {"bn": (0.4, 0.1, 0.6), "accuracy": (0.8, 0.7, 0.9), "params": (0.05, 0.01, 0.09)}
    over_bn = {"params": (-0.35, -0.5, -0.1)}
    words = words_of(section_of(study_run(metrics=metrics_of(other, over_bn))))
    assert "No indicator's 95 % interval holds 0" in words
    assert "accuracy 0.80; whether that is more than chance, the study does not say." in words
    assert "params reaches τ 0.05, beside bn's 0.40; params orders them worse: " in words
    assert "Within bins" not in words


def test_accuracy_on_the_supernet_that_spos_trains_is_set_beside_bn() -> None:
    ours = study_run(0, metrics=metrics_of(TAUS))
    alone = section_of(ours)
    assert "trains bn alone" in gap(
        alone, f"`{COMMAND} --set supernet.trainable=all --set name=study0_all`"
    )
    spos = metrics_of({"accuracy": (0.55, 0.3, 0.7)})
    theirs = study_run(1, metrics=spos, params={**PARAMS, "trainable": "all"})
    both = section_of(ours, theirs)
    assert "accuracy has τ 0.55 (study1), beside the 0.40 of bn here" in words_of(both)
    assert not [each for each in both.missing if "supernet.trainable=all" in each]
    elsewhere = replace(theirs, params={**theirs.params, "retrain_epochs": "9"})
    assert "0.55 (study1)" not in words_of(section_of(ours, elsewhere))


def test_without_a_study_the_command_is_named() -> None:
    section = section_of()
    assert (section.key, section.paper, section.tables) == ("correlation", "Fig. 6", ())
    command = "bnnas correlate experiments/configs/correlation_fashion_mnist.yaml"
    assert section.missing == (f"No correlation study is tracked: `{command}` makes one.",)
    assert "no τ in numbers" in words_of(section)


def test_the_newest_study_comes_first_and_the_papers_data_are_asked_for() -> None:
    section = section_of(study_run(1), study_run(2))
    assert [picture.name for picture in section.pictures] == [
        *("correlation-study2", "correlation-study1")
    ]
    assert "data.root" in gap(section, "correlation_cifar10.yaml")
    on_cifar = study_run(3, params={**PARAMS, "data": "cifar10"})
    assert not [each for each in section_of(on_cifar).missing if "cifar10.yaml" in each]


def test_of_many_studies_the_newest_are_drawn_and_all_have_their_tables() -> None:
    section = section_of(*(study_run(number) for number in range(MOST_PICTURES + 2)))
    names = [picture.name for picture in section.pictures]
    assert names == [f"correlation-study{n}" for n in range(MOST_PICTURES + 1, 1, -1)]
    assert gap(section, "2 older studies are not drawn")
    assert len(section.tables) == 2 * (MOST_PICTURES + 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "RUNNING"}, ("not come to its end", "bnnas status", COMMAND)),
        ({"status": "KILLED"}, ("has failed", COMMAND)),
        (
            {"status": "FAILED", "tags": {"bnnas.stage": "correlate", "bnnas.error": "no disk"}},
            ("has failed (no disk)", "bnnas correlate CONFIG"),
        ),
        ({}, ("fewer than three architectures", "num_architectures", COMMAND)),
    ],
)
def test_a_study_without_numbers_is_a_sentence(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    section = section_of(study_run(metrics={}, **changes))
    assert gap(section, "study0", *words)
    assert (section.tables, section.pictures) == ((), ())


def test_a_study_of_which_a_part_failed_shows_the_rest() -> None:
    five = {**PARAMS, "num_architectures": "5"}
    section = section_of(study_run(status="FAILED", params=five))
    assert gap(section, "has failed", COMMAND)
    assert gap(section, "1 of the 5 architectures", "left out")
    assert len(section.pictures) == 1
    # The numbers may be those of a table that is not there any more.
    six = {**SMALL.metrics, "num_architectures": 6.0}
    assert gap(section_of(study_run(metrics=six)), "shows 4 architectures", "are of 6")


@pytest.mark.parametrize("text", ["", "arch,seed\n", SMALL.csv()[:-40], "\0\n"])
def test_without_its_table_a_study_has_no_figure_and_keeps_its_numbers(text: str) -> None:
    section = section_of(study_run(), text=text)
    assert gap(section, "study0 has no figure", "correlation.csv", COMMAND)
    assert section.pictures == ()
    assert len(section.tables) == 2
    older = study_run(params={"space": "nano"})
    assert section_of(older, text=text).pictures == ()


def test_what_one_seed_cannot_say_is_missing() -> None:
    single = Study(
        tuple(
            replace(
                row,
                top1=row.top1[:1],
                test_loss=row.test_loss[:1],
                scores={name: scores[:1] for name, scores in row.scores.items()},
            )
            for row in SMALL.rows
        ),
        (0,),
        2,
    )
    run = study_run(metrics=single.metrics, params={**PARAMS, "seeds": "[0]"})
    section = section_of(run, text=single.csv())
    assert "such as [0, 1]" in gap(section, "one seed")
    (table,) = section.tables
    assert [row[-1] for row in table.rows] == ["–"] * 3
    assert not [each for each in section.missing if "does not have all of" in each]


def test_odd_numbers_and_old_runs_leave_gaps() -> None:
    odd = {**SMALL.metrics, "tau/bn": math.nan, "tau_low/bn": math.nan, "tau_high/bn": math.nan}
    del odd["tau_loss/flops"], odd["within/top1"]
    section = section_of(study_run(metrics=odd))
    assert "tau_loss, within" in gap(section, "does not have all of", COMMAND)
    assert gap(section, "τ of bn is not defined")
    agreement, spread = section.tables
    assert isinstance(tau := agreement.rows[0][1], Number)
    assert tau.text == "not finite"
    assert (agreement.rows[2][10], spread.rows[0][2]) == ("–", "–")
    bare = section_of(study_run(metrics={"tau/flops": 0.5}, params={}))
    assert "bn and accuracy" in gap(bare, "Fig. 6", "correlate.indicators")
    assert bare.tables[0].rows[0][2:] == ("–",) * 10
