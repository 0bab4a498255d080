"""Measured latency is a cost table like any other; how long anything takes is not asserted."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.cost import flops_table
from nas.latency import latency_table
from tests.nas.examples import RAGGED, TINY, random_architectures


def test_every_choice_has_a_time_and_nothing_else() -> None:
    before = torch.get_rng_state()
    for space in (TINY, RAGGED):
        table = latency_table(space, num_repeats=1)
        assert table.name == "latency_ms"
        missing_LN = np.isnan(flops_table(space).table_LN)
        assert np.array_equal(np.isnan(table.table_LN), missing_LN)
        assert (table.table_LN[~missing_LN] > 0).all()
        assert table.constant > 0
        (arch,) = random_architectures(space, 1)
        parts_ms = [table.table_LN[i, c] for i, c in enumerate(arch) if c >= 0]
        assert table.of(arch) == pytest.approx(table.constant + sum(parts_ms))
    assert torch.equal(torch.get_rng_state(), before)  # measuring leaves the generator alone


def test_times_are_medians_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that says how long each pass takes, every time is known."""
    # Since the look before: two passes of warm-up, at whose end nobody looks, then 1, 9 and 2 s.
    laps_s = itertools.cycle([0.0, 100.0, 100.0, 1.0, 0.0, 9.0, 0.0, 2.0])
    now_s = itertools.accumulate(laps_s)
    monkeypatch.setattr("nas.latency.time", SimpleNamespace(perf_counter=lambda: next(now_s)))
    table = latency_table(TINY, num_repeats=3)
    assert np.unique(table.table_LN[~np.isnan(table.table_LN)]).tolist() == [2000.0]
    assert table.constant == 3 * 2000.0
