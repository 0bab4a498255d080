"""Taps at the right blocks, the classifier's features bit for bit, weights that fit or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from detection.backbone import SearchedBackbone
from detection.weights import WeightsError
from nas.network import Subnet
from nas.space import (
    Architecture,
    SearchSpace,
    built_in_spaces,
    format_architecture,
    load_space,
    space_from_dict,
)
from tests.nas.examples import random_architectures

PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"
CHANNELS = {
    "spos": (56, 128, 432),
    "spos_se": (56, 128, 432),
    "fairnas": (40, 96, 320),
    "fairnas_se": (40, 96, 320),
    "micro_detection": (32, 64, 96),
}
NO_TAPS = {"cifar": "1, 2, 4, 8", "micro": "1, 2, 4", "nano": "2, 4, 8"}

# Stride 2 in the stem and in the first block, two layers at stride 8, one each at 16 and 32.
USERS_YAML = """
name: users
input: {channels: 3, resolution: 64, num_classes: 10}
stem: {channels: 6, stride: 2}
first_block: {channels: 5, kernel: 5, stride: 2}
candidates: [[3, 1], [5, 2]]
stages:
  - {channels: 7, layers: 2, stride: 2}
  - {channels: 9, layers: 1, stride: 2}
  - {channels: 12, layers: 2, stride: 2}
head: {channels: 11}
fixed_identity: [1]
"""
USERS_TAPS = {8: "layers.1", 16: "layers.2", 32: "layers.4"}
USERS_ARCH = "1 -1 0 1 0"


@pytest.fixture
def users_space(tmp_path: Path) -> str:
    path = tmp_path / "users.yaml"
    path.write_text(USERS_YAML, encoding="utf-8")
    return str(path)


def trained(space: SearchSpace, arch: Architecture, seed: int = 1) -> Subnet:
    """A classifier none of whose numbers is an initial value."""
    subnet = Subnet(space, arch, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for value in subnet.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator), alpha=0.1)
        else:
            value.fill_(7)
    return subnet


def hooked(subnet: nn.Module, images: Tensor, names: list[str]) -> list[Tensor]:
    """What the named modules of the classifier return on its way through the images."""
    found: dict[str, Tensor] = {}
    hooks = [
        subnet.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.clone()})
        )
        for name in names
    ]
    with torch.no_grad():
        subnet(images)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def test_every_built_in_space_is_covered() -> None:
    assert set(CHANNELS) | set(NO_TAPS) == set(built_in_spaces())


@pytest.mark.parametrize("name", CHANNELS)
def test_features_of_the_built_in_spaces(name: str) -> None:
    (arch,) = random_architectures(load_space(name), 1)
    backbone = MODELS.build(
        {
            "type": "SearchedBackbone",
            "space": name,
            "arch": format_architecture(arch),
            "in_channels": 3,
        }
    ).eval()
    assert backbone.out_channels == CHANNELS[name]
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, 64, 97))
    assert [tuple(f.shape) for f in features] == [
        (2, channels, height, width)
        for channels, height, width in zip(CHANNELS[name], (8, 4, 2), (13, 7, 4), strict=True)
    ]


def test_features_of_a_users_space(users_space: str) -> None:
    from_file = SearchedBackbone(users_space, USERS_ARCH)
    mapping = load_space(users_space).to_dict()
    from_mapping = SearchedBackbone(mapping, [1, -1, 0, 1, 0], out_strides=(32, 4))
    assert from_file.out_channels == (7, 9, 12)
    assert from_mapping.out_channels == (12, 5)
    images = torch.rand(2, 3, 64, 64)
    assert [f.shape[-1] for f in from_file(images)] == [8, 4, 2]
    assert [f.shape[-1] for f in from_mapping(images)] == [2, 16]


@pytest.mark.parametrize("name", NO_TAPS)
def test_a_space_with_too_few_strides_says_which_it_has(name: str) -> None:
    (arch,) = random_architectures(load_space(name), 1)
    with pytest.raises(ValueError, match=f"strides {NO_TAPS[name]}, but.*asks for 8, 16, 32"):
        SearchedBackbone(name, arch)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(ValueError, match="21 choices, but space 'fairnas' has 19"):
        SearchedBackbone("fairnas", PUBLISHED)


@pytest.mark.parametrize("training", [False, True])
def test_pretrained_weights_give_the_classifiers_features_exactly(
    training: bool, tmp_path: Path
) -> None:
    space = load_space("spos")
    subnet = trained(space, (3, -1, 0, 4, 0, -1, -1, 0, 4, -1, 4, 4, 1, 4, 2, 0, 0, 4, 0, 2, 2))
    torch.save(subnet.state_dict(), tmp_path / "network.pt")
    backbone = SearchedBackbone("spos", PUBLISHED, checkpoint=tmp_path / "network.pt")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = hooked(subnet.train(training), images, ["layers.7", "layers.15", "layers.20"])
    features = backbone.train(training)(images)
    assert all(torch.equal(f, e) for f, e in zip(features, expected, strict=True))
    assert features[2].std() > 0
    backbone.init_weights()  # MMEngine calls this before it trains; the weights have to outlive it
    found, given = backbone.state_dict(), subnet.state_dict()
    assert all(torch.equal(found[key], given[key]) for key in found)


def test_a_users_space_trained_on_greyscale_images(users_space: str, tmp_path: Path) -> None:
    space = load_space(users_space).for_images(in_channels=1, num_classes=4)
    subnet = trained(space, (1, -1, 0, 1, 0)).eval()
    torch.save(subnet.state_dict(), tmp_path / "network.pt")
    backbone = SearchedBackbone(
        users_space, USERS_ARCH, checkpoint=str(tmp_path / "network.pt"), in_channels=1
    ).eval()
    images = torch.rand(2, 1, 64, 64)
    expected = hooked(subnet, images, list(USERS_TAPS.values()))
    assert all(torch.equal(f, e) for f, e in zip(backbone(images), expected, strict=True))
    with pytest.raises(WeightsError, match=r"stem.0.weight \[6, 1, 3, 3\] instead of \[6, 3, 3, 3"):
        SearchedBackbone(users_space, USERS_ARCH, checkpoint=tmp_path / "network.pt")


def test_nothing_behind_the_last_tap_is_kept(users_space: str) -> None:
    keys = SearchedBackbone(users_space, USERS_ARCH, out_strides=(8, 16)).state_dict()
    parts = {".".join(key.split(".")[: 2 if key.startswith("layers") else 1]) for key in keys}
    assert parts == {"stem", "first_block", "layers.0", "layers.2"}


class TestCheckpoints:
    """Every key has to fit; what lies behind the taps may be there or not."""

    @pytest.fixture
    def weights(self, users_space: str) -> dict[str, Tensor]:
        return trained(load_space(users_space), (1, -1, 0, 1, 0)).state_dict()

    def load(self, space: str, content: Any, folder: Path) -> SearchedBackbone:
        path = folder / "weights.pt"
        torch.save(content, path)
        return SearchedBackbone(space, USERS_ARCH, checkpoint=path)

    def test_the_classifiers_own_keys_may_be_absent(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        kept = {k: v for k, v in weights.items() if not k.startswith(("head.", "classifier."))}
        assert len(kept) < len(weights)
        backbone = self.load(users_space, kept, tmp_path)
        assert all(torch.equal(backbone.state_dict()[key], kept[key]) for key in kept)
        assert backbone.state_dict().keys() == kept.keys()

    def test_a_missing_key_is_named(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        del weights["layers.2.project.1.running_var"]
        with pytest.raises(ValueError, match="missing layers.2.project.1.running_var"):
            self.load(users_space, weights, tmp_path)

    def test_a_renamed_key_is_named_twice(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        weights["stem.0.kernel"] = weights.pop("stem.0.weight")
        with pytest.raises(ValueError, match="missing stem.0.weight; unexpected stem.0.kernel"):
            self.load(users_space, weights, tmp_path)

    def test_a_renamed_key_behind_the_taps_is_named(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        weights["classifier.kernel"] = weights.pop("classifier.weight")
        with pytest.raises(ValueError, match="unexpected classifier.kernel"):
            self.load(users_space, weights, tmp_path)

    def test_another_shape_is_named(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        weights["stem.1.bias"] = torch.zeros(8)
        with pytest.raises(
            ValueError, match=r"of another shape stem.1.bias \[8\] instead of \[6\]"
        ):
            self.load(users_space, weights, tmp_path)

    def test_of_many_keys_five_are_named(self, users_space: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"missing (\S+, ){4}\S+ and \d+ more"):
            self.load(users_space, {}, tmp_path)

    def test_another_architecture_is_refused(self, users_space: str, tmp_path: Path) -> None:
        other = trained(load_space(users_space), (1, -1, 1, 1, 0)).state_dict()
        with pytest.raises(ValueError, match="layers.2"):
            self.load(users_space, other, tmp_path)

    def test_a_pickle_with_code_is_refused_and_not_executed(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        marker = tmp_path / "executed"
        with pytest.raises(ValueError, match="more than tensors"):
            self.load(users_space, {**weights, "extra": Code(marker)}, tmp_path)
        assert not marker.exists()
        torch.load(tmp_path / "weights.pt", weights_only=False)
        assert marker.exists(), "the pickle had no code in it, so the test proved nothing"

    @pytest.mark.parametrize(
        "content", [[torch.zeros(1)], {"model": {"a": torch.zeros(1)}}, {"epoch": 3}]
    )
    def test_anything_but_a_state_dict_is_refused(
        self, users_space: str, content: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="not a state dict"):
            self.load(users_space, content, tmp_path)

    def test_no_file_and_a_cut_off_one_are_refused(
        self, users_space: str, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="nowhere.pt"):
            SearchedBackbone(users_space, USERS_ARCH, checkpoint=tmp_path / "nowhere.pt")
        torch.save(weights, tmp_path / "whole.pt")
        for size in (0, 1000):
            cut = tmp_path / f"{size}.pt"
            cut.write_bytes((tmp_path / "whole.pt").read_bytes()[:size])
            with pytest.raises(ValueError, match=f"{size}.pt"):
                SearchedBackbone(users_space, USERS_ARCH, checkpoint=cut)


class Code:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_norm_eval_keeps_the_statistics() -> None:
    space = space_from_dict(load_space("fairnas").to_dict())
    arch = random_architectures(space, 1)[0]
    images = torch.rand(2, 3, 64, 64)
    for norm_eval in (False, True):
        backbone = SearchedBackbone("fairnas", arch, norm_eval=norm_eval).train()
        key = "layers.3.project.1.running_mean"
        before = backbone.state_dict()[key].clone()
        backbone(images)
        assert torch.equal(backbone.state_dict()[key], before) is norm_eval
        assert all(parameter.requires_grad for parameter in backbone.parameters())
