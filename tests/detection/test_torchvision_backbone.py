"""The other backbones give what torchvision's own feature extractor gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from detection.torchvision_backbone import TorchvisionBackbone

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


def test_building_leaves_the_statistics_alone_and_norm_eval_keeps_them() -> None:
    for norm_eval in (False, True):
        backbone = TorchvisionBackbone("resnet18", norm_eval=norm_eval)
        fresh = get_model("resnet18").state_dict()["bn1.running_mean"]
        assert torch.equal(backbone.state_dict()["parts.bn1.running_mean"], fresh)
        backbone.train()(torch.rand(2, 3, 32, 32))
        found = backbone.state_dict()["parts.bn1.running_mean"]
        assert torch.equal(found, fresh) is norm_eval


def test_only_what_the_detector_needs_is_kept() -> None:
    backbone = TorchvisionBackbone("resnet18", out_strides=(4, 8))
    assert list(backbone.parts) == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]
    assert backbone.out_channels == (64, 128)


def test_unknown_networks_and_strides_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'vgg16'.*resnet"):
        TorchvisionBackbone("vgg16")
    with pytest.raises(ValueError, match="strides 4, 8, 16, 32, but the detector asks for 8, 64"):
        TorchvisionBackbone("resnet18", out_strides=(8, 64))
