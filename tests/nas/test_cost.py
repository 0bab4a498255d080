"""Cost tables against the real networks, the published figures and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.cost import COST_TABLES, flops_table, gather_sum, layer_costs, params_table
from nas.network import Subnet
from nas.space import (
    Architecture,
    SearchSpace,
    built_in_spaces,
    load_space,
    parse_architecture,
)
from tests.nas.examples import RAGGED, TINY, random_architectures

PUBLISHED = [  # architecture, FLOPs and parameters in millions, as printed
    ("3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2", "473.5", "5.2"),
    ("0 -1 0 0 4 -1 -1 2 0 -1 4 4 3 0 2 1 0 4 2 5 2", "468.8", "5.8"),
]


@pytest.fixture(params=[*built_in_spaces(), "ragged"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return RAGGED if request.param == "ragged" else load_space(request.param)


def measured(space: SearchSpace, arch: Architecture) -> tuple[float, int]:
    """Multiply-adds and parameters of the real subnet."""
    subnet = Subnet(space, arch, seed=0).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subnet(torch.zeros(1, space.in_channels, space.resolution, space.resolution))
    return counter.get_total_flops() / 2, sum(p.numel() for p in subnet.parameters())


def test_tables_equal_the_real_subnet(space: SearchSpace) -> None:
    flops, params = flops_table(space), params_table(space)
    for arch in random_architectures(space, 2, seed=1):
        assert (flops.of(arch), params.of(arch)) == measured(space, arch)
        rows = layer_costs(space, arch)
        assert sum(row.flops for row in rows) == flops.of(arch)
        assert sum(row.params for row in rows) == params.of(arch)
        for row, after in itertools.pairwise(rows):
            assert row.out_channels == after.in_channels
            if after.name != "classifier":  # it follows the global average
                assert -(-row.resolution // row.stride) == after.resolution


def test_tables_equal_the_real_subnet_at_an_odd_resolution() -> None:
    space = load_space("spos").for_images(in_channels=1, resolution=75, num_classes=3)
    (arch,) = random_architectures(space, 1, seed=2)
    expected = measured(space, arch)
    assert (flops_table(space).of(arch), params_table(space).of(arch)) == expected


def test_layer_costs_of_one_block_by_hand() -> None:
    # TINY's layer 3 has input 8 channels at 4×4; k5e3 has 24 channels inside, stride 2, 12 outside.
    rows = layer_costs(TINY, (0, -1, 0, 2, 0))
    layers = [f"layer {number}" for number in range(5)]
    assert [r.name for r in rows] == ["stem", "first block", *layers, "head", "classifier"]
    row = rows[5]
    assert (row.name, row.operation) == ("layer 3", "k5e3")
    assert row.flops == 8 * 24 * 16 + 24 * 25 * 4 + 24 * 12 * 4
    assert row.params == (8 * 24 + 2 * 24) + (24 * 25 + 2 * 24) + (24 * 12 + 2 * 12)
    identity = rows[3]
    assert (identity.operation, identity.flops, identity.params) == ("identity", 0, 0)


@pytest.mark.parametrize(("text", "printed_flops", "printed_params"), PUBLISHED)
def test_published_architectures(text: str, printed_flops: str, printed_params: str) -> None:
    space, arch = load_space("spos"), parse_architecture(text)
    flops, params = flops_table(space).of(arch), params_table(space).of(arch)
    assert abs(flops / 1e6 / float(printed_flops) - 1) < 0.005
    assert f"{params / 1e6:.1f}" == printed_params
    # The release counts (2·in − 1)·out operations for the classifier instead of in·out.
    surplus = (space.head_channels - 1) * space.num_classes
    assert f"{(flops + surplus) / 1e6:.1f}" == printed_flops


@pytest.mark.parametrize("name", COST_TABLES)
def test_minimum_and_maximum_equal_brute_force(name: str) -> None:
    for space in (TINY, RAGGED):
        table = COST_TABLES[name](space)
        assert table.name == name
        choices = [
            [-1] if layer.fixed_identity else range(len(layer.candidates)) for layer in space.layers
        ]
        costs = [table.of(arch) for arch in itertools.product(*choices)]
        assert len(costs) == space.num_architectures
        assert (table.minimum, table.maximum) == (min(costs), max(costs))


def test_of_many_equals_one_by_one_and_nan_marks_what_does_not_exist() -> None:
    archs = random_architectures(RAGGED, 20)
    for table in (flops_table(RAGGED), params_table(RAGGED)):
        costs_B = table.of_many(archs)
        assert costs_B.tolist() == [table.of(arch) for arch in archs]
        assert np.array_equal(costs_B, table.of_many(np.array(archs, dtype=np.int8)))
        assert table.of_many([]).shape == (0,)
        assert table.table_LN.shape == (5, 6)
        for row_N, layer in zip(table.table_LN, RAGGED.layers, strict=True):
            num_choices = 0 if layer.fixed_identity else len(layer.candidates)
            assert (row_N[:num_choices] > 0).all()
            assert np.isnan(row_N[num_choices:]).all()


def test_what_is_no_architecture_has_no_cost() -> None:
    nan = float("nan")
    table_LN = np.array([[1.0, 2.0], [nan, nan], [8.0, 16.0]])
    for arch in ((0, -1, -1), (0, 0, 0), (0, -1), (0, -1, 0, 0)):
        with pytest.raises(AssertionError):
            gather_sum(table_LN, [arch])
    with pytest.raises(ValueError, match="has 2 choices"):
        layer_costs(TINY, (0, 0))
