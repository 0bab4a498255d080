"""The encoding of architectures, and what a space's YAML may and may not say."""

from __future__ import annotations

import copy
import functools
import operator
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.space import (
    IDENTITY,
    Architecture,
    Candidate,
    built_in_spaces,
    format_architecture,
    load_space,
    parse_architecture,
    space_from_dict,
)
from tests.nas.examples import RAGGED_YAML, TINY, random_architectures

PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"


def test_encoding_is_kernel_times_expansion_with_expansion_fastest() -> None:
    expected = tuple(Candidate(k, e) for k in (3, 5, 7) for e in (3, 6))
    assert expected[3] == Candidate(kernel=5, expansion=6)
    for name in ("spos", "fairnas", "cifar", "micro"):
        assert all(layer.candidates == expected for layer in load_space(name).layers)


@pytest.mark.parametrize("name", built_in_spaces())
def test_spaces_and_architectures_round_trip(name: str) -> None:
    space = load_space(name)
    assert space_from_dict(space.to_dict()) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert hash(space_from_dict(space.to_dict())) == hash(space)
    for arch in random_architectures(space, 20):
        space.validate(arch)
        assert parse_architecture(format_architecture(arch)) == arch
        identities = [i for i, layer in enumerate(space.layers) if layer.fixed_identity]
        assert [i for i, choice in enumerate(arch) if choice == IDENTITY] == identities


def test_every_published_form_parses_and_nothing_else() -> None:
    for text in ("3 -1 0", "3, -1,0", "[3, -1, 0]", "(3,-1,0)", "  3\t-1\n0 ", "+3 -1 0"):
        assert parse_architecture(text) == (3, -1, 0)
    for text in ("", "[]", " , "):
        with pytest.raises(ValueError, match="the architecture is empty"):
            parse_architecture(text)
    for text in ("3 x 0", "3 1.0 0", "3;1", "3 --1"):
        with pytest.raises(ValueError, match="is not a whole number"):
            parse_architecture(text)


def test_spos_has_the_layers_of_the_design() -> None:
    space = load_space("spos")
    assert len(space.layers) == 21
    assert [i for i, layer in enumerate(space.layers) if layer.fixed_identity] == [1, 5, 6, 9]
    assert space.num_architectures == 6**17
    assert [layer.out_channels for layer in space.layers] == (
        [32] * 4 + [56] * 4 + [112] * 4 + [128] * 4 + [256] * 4 + [432]
    )
    strided = {i: layer.resolution for i, layer in enumerate(space.layers) if layer.stride == 2}
    assert strided == {0: 112, 4: 56, 8: 28, 16: 14}
    assert space.layers[-1].out_resolution == 7
    assert not space.se
    space.validate(parse_architecture(PUBLISHED))


def test_fairnas_has_the_layers_of_the_design() -> None:
    space = load_space("fairnas")
    assert space.num_architectures == 6**19
    assert [layer.in_channels for layer in space.layers] == (
        [16] + [32] * 2 + [40] * 4 + [80] * 4 + [96] * 4 + [192] * 4
    )
    assert space.head_channels == 1280
    assert space.layers[-1].out_channels == 320


def test_se_spaces_differ_from_their_parents_in_nothing_else() -> None:
    for name in ("spos", "fairnas"):
        parent = load_space(name).to_dict()
        assert load_space(f"{name}_se").to_dict() == {**parent, "name": f"{name}_se", "se": True}


def test_for_images_changes_the_images_only() -> None:
    space = load_space("spos")
    adapted = space.for_images(in_channels=1, resolution=29, num_classes=3)
    assert (adapted.in_channels, adapted.resolution, adapted.num_classes) == (1, 29, 3)
    # 29 → 15 (stem) → 15 (first block) → 8 → 4 → 2 → 2 → 1
    assert [adapted.layers[i].resolution for i in (0, 4, 8, 12, 16, 20)] == [15, 8, 4, 2, 2, 1]
    assert adapted.for_images(in_channels=3, resolution=224, num_classes=1000) == space


def test_user_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RAGGED_YAML, encoding="utf-8")
    space = load_space(path)
    assert space.name == "ragged"
    assert [len(layer.candidates) for layer in space.layers] == [2, 2, 6, 6, 1]
    assert space.layers[2].candidates == tuple(Candidate(k, e) for k in (1, 3, 5) for e in (1, 2))
    assert [layer.resolution for layer in space.layers] == [8, 4, 4, 4, 4]
    assert space.num_candidates == 6
    assert space.searched_layers == (0, 1, 2, 4)
    assert space.num_architectures == 2 * 2 * 6 * 1
    drawn = {space.random_architecture(np.random.default_rng(seed)) for seed in range(300)}
    assert len(drawn) == 24


def test_a_user_space_can_extend_another(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(RAGGED_YAML, encoding="utf-8")
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nse: false\n", encoding="utf-8")
    extended = load_space(child)
    assert extended.name == "child"
    assert not extended.se
    assert extended.layers == load_space(tmp_path / "parent.yaml").layers
    child.write_text("extends: spos\nhead: {channels: 9}\n", encoding="utf-8")
    assert load_space(child).head_channels == 9
    assert load_space(child).layers == load_space("spos").layers


def test_unknown_space_lists_the_known_and_suggests() -> None:
    known = ", ".join(built_in_spaces())
    with pytest.raises(ValueError, match=f"unknown space 'sposs'.*{known}.*Did you mean 'spos'?"):
        load_space("sposs")
    with pytest.raises(ValueError, match=r"unknown space 'zzz'.*YAML file\.$"):
        load_space("zzz")
    with pytest.raises(ValueError, match="there is no space file 'no/such.yaml'"):
        load_space("no/such.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- spos", "expected a mapping, got list"),
        (b"extends: bad.yaml", "extends itself"),
        (b"extends: spoz", "unknown space 'spoz'"),
    ],
)
def test_file_that_is_no_space_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_space(path)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ((0, -1, 0, 0), "the architecture has 4 choices, but space 'tiny' has 5 layers"),
        ((0, -1, 0, 0, 3), "layer 4 of space 'tiny': index 3 is out of range.*0 to 2"),
        ((0, -1, -2, 0, 0), "layer 2 of space 'tiny': index -2 is out of range"),
        ((0, 1, 0, 0, 0), "layer 1 of space 'tiny' is fixed to the identity: expected -1, got 1"),
        ((0, -1, 0, -1, 0), r"layer 3 .*it changes the shape \(8 to 12 channels, stride 2\): give"),
        ((0, -1, -1, 0, 0), "layer 2 .*the space does not fix it to the identity"),
    ],
)
def test_what_is_no_architecture_of_the_space_is_refused(arch: Architecture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TINY.validate(arch)


MISSING = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", 1, "space 'tiny': unknown key 'colour'; the known keys are name"),
        ("stages.1.depth", 3, r"stages\[1\]: unknown key 'depth'"),
        ("head", MISSING, "space 'tiny': the key 'head' is missing"),
        ("name", 3, "name must be a name, got 3"),
        ("head", 16, "head must be a mapping, got 16"),
        ("head.channels", True, "head: channels must be a whole number above 0"),
        ("head.channels", 0, "head: channels must be a whole number above 0"),
        ("stem.stride", 3, "stem: stride must be 1 or 2, got 3"),
        ("first_block.kernel", 4, "first_block: kernel must be an odd number, got 4"),
        ("stages", [], "stages must be a list with at least one layer group"),
        ("stages.0.candidates", MISSING, r"stages\[0\]: candidates are missing"),
        ("stages.0.candidates", [], "must name at least one operation"),
        ("stages.0.candidates", [[2, 3]], r"\[2, 3\] must be .* odd kernel"),
        ("stages.0.candidates", [[3, 0]], "expansion of at least 1"),
        ("stages.0.candidates", [3], "candidate 3 must be"),
        ("stages.0.candidates", [[3, 6], [3, 6]], "is listed twice"),
        ("stages.0.candidates", {"kernels": 3}, "candidates: kernels must be a list of ints"),
        ("fixed_identity", [5], "names layer 5, .* numbered 0 to 4"),
        ("fixed_identity", [-1], "names layer -1"),
        ("fixed_identity", [3], r"layer 3 cannot be fixed .*\(8 to 12 channels"),
        ("fixed_identity", ["1"], "must be a list of 0-based layer indices"),
        ("se", "yes", "se must be true or false, got 'yes'"),
    ],
)
def test_data_that_is_no_space_is_refused(path: str, value: Any, message: str) -> None:
    data: Any = TINY.to_dict()
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    section = functools.reduce(operator.getitem, parents, data)
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    with pytest.raises(ValueError, match=message):
        space_from_dict(data)


def test_a_space_needs_no_name_and_reading_leaves_the_data_alone() -> None:
    data = TINY.to_dict()
    del data["name"]
    before = copy.deepcopy(data)
    space = space_from_dict(data)
    assert space.name == "unnamed"
    assert space.layers == TINY.layers
    assert data == before
