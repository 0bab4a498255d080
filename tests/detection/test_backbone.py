"""Taps at the right blocks, the classifier's features bit for bit, weights that fit or nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from detection.backbone import SearchedBackbone, TorchvisionBackbone
from detection.weights import WeightsError
from nas.network import Subnet
from nas.space import (
    Architecture,
    SearchSpace,
    built_in_spaces,
    format_architecture,
    load_space,
)
from nas.taps import select_taps, space_taps
from tests.nas.examples import random_architectures

PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"
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
USERS_ARCH = "1 -1 0 1 0"


@pytest.fixture
def users_space(tmp_path: Path) -> str:
    path = tmp_path / "users.yaml"
    path.write_text(USERS_YAML, encoding="utf-8")
    return str(path)


def trained(space: SearchSpace, arch: Architecture) -> Subnet:
    """A classifier none of whose numbers is an initial value."""
    subnet = Subnet(space, arch, seed=1)
    generator = torch.Generator().manual_seed(1)
    for value in subnet.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator), alpha=0.1)
        else:
            value.fill_(7)
    return subnet


def outputs_of(network: nn.Module, images: Tensor, names: list[str]) -> list[Tensor]:
    """What the named modules of a classifier return on its way through the images."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.update({name: output.clone()})
        )
        for name in names
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return [outputs[name] for name in names]


@pytest.mark.parametrize("name", [n for n in built_in_spaces() if 32 in space_taps(load_space(n))])
def test_features_of_the_built_in_spaces(name: str) -> None:
    space = load_space(name)
    channels = tuple(tap.channels for tap in select_taps(space, (8, 16, 32)))
    (arch,) = random_architectures(space, 1)
    config = {"type": "SearchedBackbone", "space": name, "arch": format_architecture(arch)}
    backbone = MODELS.build({**config, "in_channels": 3}).eval()
    assert backbone.out_channels == channels
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, 64, 97))
    assert [tuple(f.shape) for f in features] == [
        (2, width, *sides) for width, sides in zip(channels, ((8, 13), (4, 7), (2, 4)), strict=True)
    ]


def test_features_of_a_users_space(users_space: str) -> None:
    from_file = SearchedBackbone(users_space, USERS_ARCH)
    mapping = load_space(users_space).to_dict()
    from_mapping = SearchedBackbone(mapping, [1, -1, 0, 1, 0], out_strides=(32, 4))
    assert (from_file.out_channels, from_mapping.out_channels) == ((7, 9, 12), (12, 5))
    images = torch.rand(2, 3, 64, 64)
    assert [f.shape[-1] for f in from_file(images)] == [8, 4, 2]
    assert [f.shape[-1] for f in from_mapping(images)] == [2, 16]
    # Nothing behind the last tap is kept.
    keys = SearchedBackbone(users_space, USERS_ARCH, out_strides=(8, 16)).state_dict()
    parts = {".".join(key.split(".")[: 2 if key.startswith("layers") else 1]) for key in keys}
    assert parts == {"stem", "first_block", "layers.0", "layers.2"}


def test_what_a_space_does_not_have_is_refused() -> None:
    (arch,) = random_architectures(load_space("micro"), 1)
    with pytest.raises(ValueError, match="strides 1, 2, 4, but.*asks for 8, 16, 32"):
        SearchedBackbone("micro", arch)
    with pytest.raises(ValueError, match="21 choices, but space 'fairnas' has 19"):
        SearchedBackbone("fairnas", PUBLISHED)


def test_pretrained_weights_give_the_classifiers_features_exactly(tmp_path: Path) -> None:
    space = load_space("spos")
    subnet = trained(space, tuple(map(int, PUBLISHED.split())))
    torch.save(subnet.state_dict(), tmp_path / "network.pt")
    backbone = SearchedBackbone("spos", PUBLISHED, checkpoint=tmp_path / "network.pt")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        taps = ["layers.7", "layers.15", "layers.20"]
        expected = outputs_of(subnet.train(training), images, taps)
        features = backbone.train(training)(images)
        assert all(torch.equal(f, e) for f, e in zip(features, expected, strict=True))
        assert features[2].std() > 0
    backbone.init_weights()  # MMEngine calls this before it trains; the weights have to outlive it
    ours, theirs = backbone.state_dict(), subnet.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# --- every key has to fit; what lies behind the taps may be there or not ---

Weights = dict[str, Tensor]


def load_backbone(space: str, content: Any) -> SearchedBackbone:
    path = Path(space).with_name("weights.pt")
    torch.save(content, path)
    return SearchedBackbone(space, USERS_ARCH, checkpoint=path)


@pytest.fixture
def weights(users_space: str) -> Weights:
    return trained(load_space(users_space), (1, -1, 0, 1, 0)).state_dict()


def test_the_classifiers_own_keys_may_be_absent(users_space: str, weights: Weights) -> None:
    kept = {k: v for k, v in weights.items() if not k.startswith(("head.", "classifier."))}
    assert len(kept) < len(weights)
    state = load_backbone(users_space, kept).state_dict()
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda w: w.update({"stem.0.kernel": w.pop("stem.0.weight")}),
            "missing stem.0.weight; unexpected stem.0.kernel",
        ),
        (
            lambda w: w.update({"classifier.kernel": w.pop("classifier.weight")}),
            "unexpected classifier.kernel",
        ),
        (
            lambda w: w.update({"stem.1.bias": torch.zeros(8)}),
            r"of another shape stem.1.bias \[8\] instead of \[6\]\. Give the weights of the same",
        ),
        (lambda w: w.clear(), r"missing (\S+, ){4}\S+ and \d+ more"),
    ],
    ids=["renamed", "renamed behind the taps", "shape", "many"],
)
def test_keys_that_do_not_fit_are_named(
    users_space: str, weights: Weights, spoil: Callable[[Weights], Any], message: str
) -> None:
    spoil(weights)
    with pytest.raises(WeightsError, match=message):
        load_backbone(users_space, weights)


class Code:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_code_in_a_checkpoint_is_refused_and_not_run(users_space: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(WeightsError, match="nothing in it was run"):
        load_backbone(users_space, {"stem.0.weight": Code(marker)})
    assert not marker.exists()
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert marker.exists(), "the pickle had no code in it, so the test proved nothing"


def test_anything_but_a_whole_state_dict_is_refused(
    users_space: str, weights: Weights, tmp_path: Path
) -> None:
    for content in ([torch.zeros(1)], {"model": {"a": torch.zeros(1)}}):
        with pytest.raises(WeightsError, match="not a state dict"):
            load_backbone(users_space, content)
    with pytest.raises(WeightsError, match="nowhere.pt"):
        SearchedBackbone(users_space, USERS_ARCH, checkpoint=tmp_path / "nowhere.pt")
    torch.save(weights, tmp_path / "whole.pt")
    for size in (0, 1000):
        cut = tmp_path / f"{size}.pt"
        cut.write_bytes((tmp_path / "whole.pt").read_bytes()[:size])
        with pytest.raises(WeightsError, match=f"{size}.pt"):
            SearchedBackbone(users_space, USERS_ARCH, checkpoint=cut)


# --- torchvision's ---

ROWS = {
    "efficientnet_b0": ((40, 112, 320), ("features.3", "features.5", "features.7")),
    "mobilenet_v2": ((32, 96, 320), ("features.6", "features.13", "features.17")),
    "resnet18": ((128, 256, 512), ("layer2", "layer3", "layer4")),
    "shufflenet_v2_x1_0": ((116, 232, 464), ("stage2", "stage3", "stage4")),
}


@pytest.mark.parametrize("name", ROWS)
def test_features_are_torchvisions(name: str) -> None:
    channels, nodes = ROWS[name]
    backbone = TorchvisionBackbone(name).eval()
    network = get_model(name)
    body = getattr(network, "features", network)
    body.load_state_dict(backbone.parts.state_dict(), strict=False)
    extractor = create_feature_extractor(network.eval(), list(nodes))
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        features, expected = backbone(images), extractor(images)
    assert backbone.out_channels == channels == tuple(f.shape[1] for f in features)
    assert [tuple(f.shape[2:]) for f in features] == [(12, 8), (6, 4), (3, 2)]
    assert all(torch.equal(f, expected[n]) for f, n in zip(features, nodes, strict=True))


def test_a_copy_still_knows_training_from_inference() -> None:
    backbone = copy.deepcopy(TorchvisionBackbone("efficientnet_b0"))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        training = [backbone.train()(images)[2] for _ in range(2)]  # blocks are left out by chance
        inference = [backbone.eval()(images)[2] for _ in range(2)]
    assert not torch.equal(*training)
    assert torch.equal(*inference)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (
            lambda norm_eval: SearchedBackbone("fairnas", (0,) * 19, norm_eval=norm_eval),
            "layers.3.project.1.running_mean",
        ),
        (
            lambda norm_eval: TorchvisionBackbone("resnet18", norm_eval=norm_eval),
            "parts.bn1.running_mean",
        ),
    ],
    ids=["searched", "torchvision"],
)
def test_norm_eval_keeps_the_statistics_and_building_leaves_them_alone(
    build: Callable[[bool], nn.Module], key: str
) -> None:
    for norm_eval in (False, True):
        backbone = build(norm_eval).train()
        assert not backbone.state_dict()[key].any()
        backbone(torch.rand(2, 3, 64, 64))
        assert bool(backbone.state_dict()[key].any()) is not norm_eval
        assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_only_what_the_detector_needs_is_kept() -> None:
    backbone = TorchvisionBackbone("resnet18", out_strides=(4, 8))
    assert list(backbone.parts) == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]
    assert backbone.out_channels == (64, 128)
