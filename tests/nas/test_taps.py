"""Taps of all built-in spaces, counted by hand."""

from __future__ import annotations

import pytest

from nas.space import built_in_spaces, load_space
from nas.taps import Tap, select_taps, space_taps, torchvision_taps

# Stride → (position, channels): the stem is position 0, the first block 1, layer 0 is 2.
EXPECTED = {
    "spos": {2: (1, 24), 4: (5, 32), 8: (9, 56), 16: (17, 128), 32: (22, 432)},
    "fairnas": {2: (1, 16), 4: (3, 32), 8: (7, 40), 16: (15, 96), 32: (20, 320)},
    "cifar": {1: (5, 32), 2: (9, 56), 4: (17, 128), 8: (22, 432)},
    "micro": {1: (0, 16), 2: (5, 24), 4: (9, 40)},
    "nano": {2: (1, 8), 4: (4, 8), 8: (7, 16)},
    "micro_detection": {2: (0, 16), 4: (1, 16), 8: (4, 32), 16: (7, 64), 32: (9, 96)},
}
EXPECTED["spos_se"], EXPECTED["fairnas_se"] = EXPECTED["spos"], EXPECTED["fairnas"]


def test_every_stride_is_tapped_behind_its_last_block() -> None:
    assert set(EXPECTED) == set(built_in_spaces())
    for name, expected in EXPECTED.items():
        taps = {stride: Tap(*where) for stride, where in expected.items()}
        assert space_taps(load_space(name)) == taps, name
        descending = sorted(expected, reverse=True)  # they come in the order asked for
        assert select_taps(load_space(name), descending) == tuple(taps[s] for s in descending)


def test_strides_that_a_space_has_not_are_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="'micro' has .* strides 1, 2, 4, but .* asks for 8, 16"):
        select_taps(load_space("micro"), (8, 16))
    with pytest.raises(ValueError, match="asks for none: take a space with more strides"):
        select_taps(load_space("spos"), ())


def test_torchvisions_parts_come_in_the_order_of_their_strides() -> None:
    # That these parts have these strides, tests/detection/test_backbone.py shows.
    for name, expected in {
        "efficientnet_b0": ["3", "5", "7"],
        "mobilenet_v2": ["6", "13", "17"],
        "resnet18": ["layer2", "layer3", "layer4"],
        "shufflenet_v2_x1_0": ["stage2", "stage3", "stage4"],
    }.items():
        assert torchvision_taps(name, (8, 16, 32)) == expected
        assert torchvision_taps(name, (32, 8)) == [expected[2], expected[0]]
    with pytest.raises(ValueError, match="'vgg16': expected .* efficientnet_b, mobilenet_v2, resn"):
        torchvision_taps("vgg16", (8, 16, 32))
    with pytest.raises(ValueError, match="resnet18 has .* strides 4, 8, 16, 32, but .* for 2, 4"):
        torchvision_taps("resnet18", (2, 4))
