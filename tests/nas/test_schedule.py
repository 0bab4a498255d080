"""The learning rate at steps computed by hand."""

from __future__ import annotations

import math

import pytest

from nas.schedule import WarmupCosine

PAPER = WarmupCosine.scaled(
    start=0.2, peak=0.8, batch_size=1024, warmup_epochs=5, epochs=105, steps_per_epoch=1251
)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.2),
        (1, 0.32),  # a fifth of the way from 0.2 to 0.8
        (2.5, 0.5),
        (5, 0.8),
        (5 + 100 / 3, 0.6),  # cos 60° = 1/2
        (55, 0.4),
        (5 + 200 / 3, 0.2),  # cos 120° = −1/2
        (105, 0.0),
    ],
)
def test_the_papers_schedule(epoch: float, rate: float) -> None:
    assert PAPER.at(round(epoch * 1251)) == pytest.approx(rate, abs=3e-4)


def test_the_papers_schedule_step_by_step() -> None:
    assert (PAPER.warmup_steps, PAPER.num_steps) == (6255, 131355)
    assert PAPER.at(1) == pytest.approx(0.2 + 0.6 / 6255, rel=1e-12)
    assert PAPER.at(6256) == pytest.approx(0.4 * (1 + math.cos(math.pi / 125100)), rel=1e-12)
    rates = [PAPER.at(step) for step in range(PAPER.num_steps)]
    assert rates[:6256] == sorted(rates[:6256])
    assert rates[6255:] == sorted(rates[6255:], reverse=True)
    assert max(rates) == 0.8
    assert 0 < rates[-1] < 1e-9


def test_a_short_schedule_by_hand() -> None:
    schedule = WarmupCosine(start=0.1, peak=0.5, warmup_steps=2, num_steps=6)
    expected = [0.1, 0.3, 0.5, 0.25 * (1 + 0.5**0.5), 0.25, 0.25 * (1 - 0.5**0.5), 0.0, 0.0]
    assert [schedule.at(step) for step in range(8)] == pytest.approx(expected)


def test_rates_scale_with_the_batch() -> None:
    quarter = WarmupCosine.scaled(
        start=0.2, peak=0.8, batch_size=256, warmup_epochs=5, epochs=105, steps_per_epoch=1251
    )
    for step in (0, 100, 6255, 70_000):
        assert quarter.at(step) == pytest.approx(PAPER.at(step) / 4, rel=1e-12)


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    schedule = WarmupCosine(start=0.1, peak=0.5, warmup_steps=0, num_steps=4)
    assert [schedule.at(step) for step in (0, 2, 4)] == pytest.approx([0.5, 0.25, 0.0])


@pytest.mark.parametrize(("warmup_steps", "num_steps"), [(5, 5), (6, 5), (0, 0), (-1, 5)])
def test_a_warm_up_must_be_shorter_than_the_training(warmup_steps: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"takes {warmup_steps} steps of {num_steps}"):
        WarmupCosine(start=0.1, peak=0.5, warmup_steps=warmup_steps, num_steps=num_steps)
