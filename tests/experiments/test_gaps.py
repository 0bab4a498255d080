"""Commands that sentences quote: what made a run, changed in what is missing, ready to paste."""

from __future__ import annotations

import pytest

from experiments.report.evidence.gaps import MOST_PICTURES, again, as_sweep, undrawn, with_settings
from orchestration.tracking.reader import TrackedRun


def run(command: str, kind: str = "supernet") -> TrackedRun:
    tags = {"bnnas.stage": kind, "mlflow.source.name": command}
    return TrackedRun("id", "name", "FINISHED", {}, {}, tags, 0.0)


def test_a_field_is_set_once_and_how_to_print_is_left_open() -> None:
    typed = (
        "bnnas sweep a.yaml --set name=x --quiet --set 'grid.indicator=[bn]' --set=seed=3 --json"
    )
    assert with_settings(typed, "name=y", "grid.epochs=[1, 2]") == (
        "`bnnas sweep a.yaml --set 'grid.indicator=[bn]' --set seed=3 --set name=y "
        "--set 'grid.epochs=[1, 2]'`"
    )
    assert with_settings("bnnas sweep 'my file.yaml'") == "`bnnas sweep 'my file.yaml'`"


@pytest.mark.parametrize(
    ("command", "kind", "same", "sweep"),
    [
        ("bnnas correlate a.yaml -q", "supernet", "correlate a.yaml", "sweep a.yaml"),
        ("bnnas run 'a b.yaml'", "cell", "run 'a b.yaml'", "sweep 'a b.yaml'"),
        ("python train.py", "supernet", "sweep CONFIG", "sweep CONFIG"),
        ("", "correlate", "correlate CONFIG", "sweep CONFIG"),
        ("bnnas sweep 'cut o", "supernet", "sweep CONFIG", "sweep CONFIG"),
    ],
)
def test_what_made_a_run_can_be_given_again(command: str, kind: str, same: str, sweep: str) -> None:
    assert again(run(command, kind)) == f"`bnnas {same}`"
    assert as_sweep(run(command, kind)) == f"`bnnas {sweep}`"


def test_pictures_that_are_left_out_are_counted() -> None:
    assert undrawn("older sweeps", MOST_PICTURES) == []
    (sentence,) = undrawn("older sweeps", MOST_PICTURES + 3)
    assert sentence.startswith("3 older sweeps are not drawn, ")
