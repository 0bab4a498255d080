"""Measured latency is a cost table like any other; how long anything takes is not asserted."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from nas.cost import flops_table
from nas.latency import latency_table
from nas.space import SearchSpace, space_from_dict
from tests.nas.examples import RAGGED_YAML, TINY, random_architectures

RAGGED = space_from_dict(yaml.safe_load(RAGGED_YAML))


@pytest.mark.parametrize("space", [TINY, RAGGED], ids=lambda space: space.name)
def test_every_choice_has_a_time_and_nothing_else(space: SearchSpace) -> None:
    table = latency_table(space, num_repeats=3)
    flops_LN = flops_table(space).table_LN
    assert table.name == "latency_ms"
    assert table.table_LN.shape == flops_LN.shape
    assert np.array_equal(np.isnan(table.table_LN), np.isnan(flops_LN))
    times_ms = table.table_LN[~np.isnan(table.table_LN)]
    assert (times_ms > 0).all()
    assert table.constant > 0
    for arch in random_architectures(space, 3):
        parts_ms = [table.table_LN[i, c] for i, c in enumerate(arch) if c >= 0]
        assert table.of(arch) == pytest.approx(table.constant + sum(parts_ms))
        assert table.minimum <= table.of(arch) <= table.maximum


def test_times_are_medians_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that says how long each pass takes, every time is known."""
    # Since the look before: two passes of warm-up, at whose end nobody looks, then 1, 9 and 2 s.
    laps_s = itertools.cycle([0.0, 100.0, 100.0, 1.0, 0.0, 9.0, 0.0, 2.0])
    now_s = itertools.accumulate(laps_s)
    monkeypatch.setattr("nas.latency.time", SimpleNamespace(perf_counter=lambda: next(now_s)))
    table = latency_table(TINY, num_repeats=3)
    assert np.unique(table.table_LN[~np.isnan(table.table_LN)]).tolist() == [2000.0]
    assert table.constant == 3 * 2000.0


def test_measuring_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    latency_table(TINY, num_repeats=1)
    assert torch.equal(torch.get_rng_state(), before)
