"""The encoding of architectures, and what a space's YAML may and may not say."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
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
def test_architectures_round_trip_through_text(name: str) -> None:
    space = load_space(name)
    for arch in random_architectures(space, 50):
        space.validate(arch)
        assert parse_architecture(format_architecture(arch)) == arch


@pytest.mark.parametrize(
    "text",
    ["3 -1 0", "3,-1,0", "3, -1, 0", "[3, -1, 0]", "(3,-1,0)", "  3\t-1\n0 ", "+3 -1 0"],
)
def test_every_published_form_parses(text: str) -> None:
    assert parse_architecture(text) == (3, -1, 0)


@pytest.mark.parametrize("text", ["", "[]", " , "])
def test_empty_architecture_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the architecture is empty"):
        parse_architecture(text)


@pytest.mark.parametrize("text", ["3 x 0", "3 1.0 0", "3;1", "3 --1"])
def test_text_that_is_no_architecture_is_refused(text: str) -> None:
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


@pytest.mark.parametrize("name", ["spos", "fairnas"])
def test_se_spaces_differ_from_their_parents_in_nothing_else(name: str) -> None:
    plain, excited = load_space(name).to_dict(), load_space(f"{name}_se").to_dict()
    assert excited.pop("se") is True
    assert plain.pop("se") is False
    assert excited.pop("name") == f"{plain.pop('name')}_se"
    assert plain == excited


@pytest.mark.parametrize("name", built_in_spaces())
def test_spaces_round_trip_through_plain_data_and_pickle(name: str) -> None:
    space = load_space(name)
    assert space_from_dict(space.to_dict()) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert hash(space_from_dict(space.to_dict())) == hash(space)


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


def test_spaces_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    with pytest.raises(ValueError, match="extends itself"):
        load_space(tmp_path / "a.yaml")


def test_extending_an_unknown_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("extends: spoz\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unknown space 'spoz'"):
        load_space(path)


def test_unknown_space_lists_the_known_and_suggests() -> None:
    with pytest.raises(ValueError, match="unknown space 'sposs'") as caught:
        load_space("sposs")
    message = str(caught.value)
    assert all(name in message for name in built_in_spaces())
    assert "Did you mean 'spos'?" in message
    with pytest.raises(ValueError, match="unknown space 'zzz'") as caught:
        load_space("zzz")
    assert "Did you mean" not in str(caught.value)


def test_missing_space_file_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no space file 'no/such.yaml'"):
        load_space("no/such.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- spos", "expected a mapping, got list"),
        (b"", "expected a mapping, got NoneType"),
    ],
)
def test_file_that_is_no_space_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_space(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ((0, -1, 0, 0), "the architecture has 4 choices, but space 'tiny' has 5 layers"),
        ((0, -1, 0, 0, 0, 0), "the architecture has 6 choices"),
        ((0, -1, 0, 0, 3), "layer 4 of space 'tiny': index 3 is out of range.*0 to 2"),
        ((0, -1, -2, 0, 0), "layer 2 of space 'tiny': index -2 is out of range"),
        ((0, 1, 0, 0, 0), "layer 1 of space 'tiny' is fixed to the identity: expected -1, got 1"),
        (
            (0, -1, 0, -1, 0),
            r"layer 3 .*cannot be the identity \(-1\), it changes the shape "
            r"\(8 to 12 channels, stride 2\): give an index from 0 to 2",
        ),
        ((0, -1, -1, 0, 0), "layer 2 .*the space does not fix it to the identity"),
    ],
)
def test_what_is_no_architecture_of_the_space_is_refused(arch: Architecture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TINY.validate(arch)


def _set(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


def _drop(*keys: str | int) -> Callable[[dict[str, Any]], None]:
    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("colour", value=1), "space 'tiny': unknown key 'colour'; the known keys are name"),
        (_set("stem", "kernel", value=3), "stem: unknown key 'kernel'; .* channels, stride"),
        (_set("stages", 1, "depth", value=3), r"stages\[1\]: unknown key 'depth'"),
        (_set("name", value=3), "name must be a name, got 3"),
        (_drop("head"), "space 'tiny': the key 'head' is missing"),
        (_set("head", value=16), "head must be a mapping, got 16"),
        (_drop("input", "resolution"), "input: the key 'resolution' is missing"),
        (_set("head", "channels", value="16"), "head: channels must be a whole number above 0"),
        (_set("head", "channels", value=True), "head: channels must be a whole number above 0"),
        (_set("head", "channels", value=0), "head: channels must be .* got 0"),
        (_set("stem", "stride", value=3), "stem: stride must be 1 or 2, got 3"),
        (
            _set("first_block", "kernel", value=4),
            "kernel must be an odd number, got 4",
        ),
        (_set("stages", value=[]), "stages must be a list with at least one stage"),
        (_set("stages", value={"a": 1}), "stages must be a list with at least one stage"),
        (_set("stages", 0, value=8), r"stages\[0\] must be a mapping, got 8"),
        (_set("stages", 0, "layers", value=2.0), r"stages\[0\]: layers must be a whole number"),
        (_drop("stages", 0, "candidates"), r"stages\[0\]: candidates are missing"),
        (_set("stages", 0, "candidates", value=[]), "must name at least one operation"),
        (_set("stages", 0, "candidates", value=[[2, 3]]), r"\[2, 3\] must be .* odd kernel"),
        (_set("stages", 0, "candidates", value=[[3, 0]]), "expansion of at least 1"),
        (_set("stages", 0, "candidates", value=[3]), "candidate 3 must be"),
        (_set("stages", 0, "candidates", value=[[3, 6], [3, 6]]), "is listed twice"),
        (
            _set("stages", 0, "candidates", value={"kernels": 3, "expansions": [3]}),
            "kernels must be a list of ints",
        ),
        (
            _set("stages", 0, "candidates", value={"kernels": [3]}),
            r"stages\[0\]: candidates: the key 'expansions' is missing",
        ),
        (
            _set("stages", 0, "candidates", value={"kernels": [3], "expansions": [3], "se": 1}),
            "candidates: unknown key 'se'",
        ),
        (_set("fixed_identity", value=[5]), "names layer 5, .* numbered 0 to 4"),
        (_set("fixed_identity", value=[-1]), "names layer -1"),
        (_set("fixed_identity", value=[3]), r"layer 3 cannot be fixed .*\(8 to 12 channels"),
        (_set("fixed_identity", value=1), "must be a list of 0-based layer indices, got 1"),
        (_set("fixed_identity", value=["1"]), "must be a list of 0-based layer indices"),
        (_set("se", value="yes"), "se must be true or false, got 'yes'"),
    ],
)
def test_data_that_is_no_space_is_refused(
    edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = copy.deepcopy(TINY.to_dict())
    edit(data)
    with pytest.raises(ValueError, match=message):
        space_from_dict(data)


def test_a_space_needs_no_name() -> None:
    data = TINY.to_dict()
    del data["name"]
    space = space_from_dict(data)
    assert space.name == "unnamed"
    assert space.layers == TINY.layers


def test_reading_a_space_leaves_the_data_alone() -> None:
    data = TINY.to_dict()
    before = copy.deepcopy(data)
    space_from_dict(data)
    assert data == before


def test_random_architectures_keep_fixed_identities() -> None:
    space = load_space("spos")
    for arch in random_architectures(space, 20):
        assert [i for i, choice in enumerate(arch) if choice == IDENTITY] == [1, 5, 6, 9]
