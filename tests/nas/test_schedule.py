"""The learning rate at steps computed by hand."""

from __future__ import annotations

import math

import pytest

from nas.schedule import WarmupCosine


def paper(batch_size: int = 1024) -> WarmupCosine:
    return WarmupCosine.scaled(
        start=0.2,
        peak=0.8,
        batch_size=batch_size,
        warmup_epochs=5,
        epochs=105,
        steps_per_epoch=1251,
    )


def test_the_papers_schedule() -> None:
    schedule = paper()
    assert (schedule.warmup_steps, schedule.num_steps) == (6255, 131355)
    by_epoch = {
        0: 0.2,
        1: 0.32,  # a fifth of the way from 0.2 to 0.8
        5: 0.8,
        5 + 100 / 3: 0.6,  # cos 60° = 1/2
        55: 0.4,
        5 + 200 / 3: 0.2,  # cos 120° = −1/2
        105: 0.0,
    }
    for epoch, rate in by_epoch.items():
        assert schedule.at(round(epoch * 1251)) == pytest.approx(rate, abs=3e-4)
    assert schedule.at(1) == pytest.approx(0.2 + 0.6 / 6255, rel=1e-12)
    assert schedule.at(6256) == pytest.approx(0.4 * (1 + math.cos(math.pi / 125100)), rel=1e-12)


def test_a_short_schedule_by_hand() -> None:
    schedule = WarmupCosine(start=0.1, peak=0.5, warmup_steps=2, num_steps=6)
    expected = [0.1, 0.3, 0.5, 0.25 * (1 + 0.5**0.5), 0.25, 0.25 * (1 - 0.5**0.5), 0.0, 0.0]
    assert [schedule.at(step) for step in range(8)] == pytest.approx(expected)
    no_warmup = WarmupCosine(start=0.1, peak=0.5, warmup_steps=0, num_steps=4)
    assert [no_warmup.at(step) for step in (0, 2, 4)] == pytest.approx([0.5, 0.25, 0.0])


def test_rates_scale_with_the_batch() -> None:
    for step in (0, 100, 6255, 70_000):
        assert paper(256).at(step) == pytest.approx(paper().at(step) / 4, rel=1e-12)


def test_a_warm_up_must_be_shorter_than_the_training() -> None:
    for warmup_steps, num_steps in ((5, 5), (0, 0), (-1, 5)):
        with pytest.raises(ValueError, match=f"takes {warmup_steps} steps of {num_steps}"):
            WarmupCosine(start=0.1, peak=0.5, warmup_steps=warmup_steps, num_steps=num_steps)
