"""The correlation section: its numbers are the run's own, and what cannot be read is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from experiments.figures.correlation import correlation_figure
from experiments.report.correlation import correlation_section
from experiments.report.tables import MOST_PICTURES, NOTHING, Entry, Number
from experiments.run.study import Row, Study
from nas.ranking import Interval
from tests.experiments.made_up_runs import MadeUpRuns, names, row, value

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
    single = Study(tuple(replace(each, scores={"bn": each.top1}) for each in STUDY.rows), (4, 5), 1)
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


def studies(
    num: int = 1,
    *,
    params: Mapping[str, str] = PARAMS,
    metrics: Mapping[str, float] = SMALL.metrics,
    text: str = SMALL.csv(),
    **more: Any,
) -> MadeUpRuns:
    runs = MadeUpRuns()
    for number in range(num):
        run_id = runs.add(f"study{number}", "correlate", params, metrics, **more)
        runs.documents[run_id, "correlation.csv"] = text
    return runs


def numbers(found: Mapping[str, Entry]) -> list[float]:
    return [cell.value for cell in found.values() if isinstance(cell, Number)]


def test_every_number_is_the_runs_own() -> None:
    section = correlation_section(studies().runs)
    agreement, spread = section.tables
    metrics = SMALL.metrics
    ends = ("", "_low", "_high")
    for place, name in enumerate(("bn", "accuracy", "flops")):  # as the config lists them
        compared = ("tau", "tau_within") if name == "bn" else ("tau", "tau_over_bn", "tau_within")
        expected = [metrics[f"{metric}{end}/{name}"] for metric in compared for end in ends]
        expected += [metrics[f"tau_loss/{name}"], metrics[f"tau_seed_std/{name}"]]
        assert row(agreement, place)["indicator"] == name
        assert numbers(row(agreement, place)) == expected
    for place, name in enumerate(("top1", "test_loss")):
        expected = [metrics[f"{kind}/{name}"] for kind in ("between", "within", "reliability")]
        assert numbers(row(spread, place)) == expected
    assert str(row(agreement)["τ"]) == "0.67"
    assert value(row(agreement)["τ"]) == pytest.approx(4 / 6)
    # Every architecture has ± 0.01 in top-1 around its mean: the deviation is √0.0002.
    assert str(row(spread)["between seeds"]) == "1.41"
    assert value(row(spread)["between seeds"]) == pytest.approx(math.sqrt(0.0002))


def test_the_figure_shows_the_architectures_and_the_note_counts_them() -> None:
    section = correlation_section(studies().runs)
    (picture,) = section.pictures
    figure = picture.draw()
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title.split("\n")[0] for title in titles] == ["bn", "accuracy", "flops"]
    assert "τ 0.67" in titles[0]
    assert "accuracy τ -1.00" in picture.alt
    assert "2 (1.00 to 2.00 M), 2 (3.00 to 4.00 M)" in section.tables[0].note
    one_bin = correlation_section(studies(params={**PARAMS, "num_bins": "1"}).runs)
    assert "4 (1.00 to 4.00 M)" in one_bin.tables[0].note
    # An older run does not say how many bins there were, and its table does.
    older = {name: text for name, text in PARAMS.items() if name != "num_bins"}
    assert correlation_section(studies(params=older).runs).tables[0].note == section.tables[0].note


def test_a_panel_has_the_tau_that_is_given_or_none() -> None:
    scores = {name: SMALL.scores_BS(name) for name in ("bn", "accuracy")}
    given = {"accuracy": Interval(0.123, -0.5, 0.75)}
    figure = correlation_figure(scores, SMALL.top1_BS, SMALL.flops_B, SMALL.bins_B, given)
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["bn\n", "accuracy\nτ 0.12 [-0.50, 0.75]"]


def test_the_summary_has_the_numbers_of_the_newest_study_with_their_intervals() -> None:
    runs = studies()
    measured = {
        ("tau", "bn"): (0.4, 0.1, 0.6),
        ("tau", "accuracy"): (0.2, -0.1, 0.5),
        ("tau_over_bn", "accuracy"): (-0.2, -0.5, 0.1),
    }
    metrics = {
        f"{metric}{end}/{name}": number
        for (metric, name), interval in measured.items()
        for end, number in zip(("", "_low", "_high"), interval, strict=True)
    }
    runs.add("newest", "correlate", PARAMS, metrics)
    sentences = " ".join(correlation_section(runs.runs).summary)
    assert "bn 0.40 [0.10, 0.60], accuracy 0.20 [-0.10, 0.50]." in sentences
    assert "accuracy -0.20 [-0.50, 0.10]." in sentences


def test_without_a_study_with_results_one_line_names_the_command() -> None:
    empty = correlation_section(MadeUpRuns().runs)
    assert (empty.key, empty.paper, empty.blocks) == ("correlation", "Fig. 6", ())
    assert "experiments/configs/correlation_fashion_mnist.yaml`" in empty.missing
    for status in ("RUNNING", "KILLED", "FAILED", "FINISHED"):
        assert correlation_section(studies(metrics={}, status=status).runs) == empty


def test_a_study_of_which_a_part_failed_shows_the_rest() -> None:
    section = correlation_section(studies(status="FAILED").runs)
    assert (len(section.pictures), len(section.tables)) == (1, 2)


def test_of_many_studies_the_newest_come_first_and_are_drawn_and_all_have_their_tables() -> None:
    section = correlation_section(studies(MOST_PICTURES + 2).runs)
    newest = [f"study{number}" for number in range(MOST_PICTURES + 1, -1, -1)]
    drawn = [f"correlation-{name}" for name in newest[:MOST_PICTURES]]
    assert [picture.name for picture in section.pictures] == drawn
    assert names(section) == [
        f"{kind}-{name}" for name in newest for kind in ("agreement", "spread")
    ]


@pytest.mark.parametrize("text", ["", "arch,seed\n", SMALL.csv()[:-40], "\0\n"])
def test_without_its_table_a_study_has_no_figure_and_keeps_its_numbers(text: str) -> None:
    for params in (PARAMS, {"space": "nano"}):
        section = correlation_section(studies(params=params, text=text).runs)
        assert (len(section.pictures), len(section.tables)) == (0, 2)


def test_one_seed_cannot_say_what_is_chance() -> None:
    single = Study(
        tuple(
            replace(
                each,
                top1=each.top1[:1],
                test_loss=each.test_loss[:1],
                scores={"bn": each.scores["bn"][:1]},
            )
            for each in SMALL.rows
        ),
        (0,),
        2,
    )
    params = {**PARAMS, "seeds": "[0]"}
    section = correlation_section(
        studies(params=params, metrics=single.metrics, text=single.csv()).runs
    )
    (table,) = section.tables
    assert table.column("spread of τ over seeds") == [NOTHING]
    assert "one seed" in section.summary[-1]


def test_odd_numbers_and_old_runs_leave_gaps() -> None:
    odd = {**SMALL.metrics, "tau/bn": math.nan, "tau_low/bn": math.nan, "tau_high/bn": math.nan}
    del odd["tau_loss/flops"], odd["within/top1"]
    section = correlation_section(studies(metrics=odd).runs)
    agreement, spread = section.tables
    assert row(agreement)["τ"] == NOTHING
    assert row(agreement, 2)["τ with test loss"] == NOTHING
    assert row(spread)["between seeds"] == NOTHING
    assert "bn τ" not in section.pictures[0].alt
    bare = correlation_section(studies(metrics={"tau/flops": 0.5}, params={}).runs)
    assert bare.tables[0].rows[0][2:] == (NOTHING,) * 10
