"""The pyramid against one that is written out level by level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detection.bifpn import BiFPN

CHANNELS = (5, 6, 7)


def scrambled(neck: torch.nn.Module) -> torch.nn.Module:
    """The module in inference mode with no number left at its initial value."""
    generator = torch.Generator().manual_seed(3)
    for name, value in neck.state_dict().items():
        if name.endswith("weights"):  # of a fusion: some are below 0
            value.uniform_(-0.3, 1, generator=generator)
        elif value.is_floating_point():
            value.uniform_(0.1, 1, generator=generator).mul_(0.4)
    return neck.eval()


def features(side: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    sides = [-(-side // stride) for stride in (8, 16, 32)]
    return [
        torch.randn(2, channels, side, side, generator=generator)
        for channels, side in zip(CHANNELS, sides, strict=True)
    ]


@pytest.mark.parametrize(
    ("image", "sides"), [(512, [64, 32, 16, 8, 4]), (200, [25, 13, 7, 4, 2]), (64, [8, 4, 2, 1, 1])]
)
def test_sides_of_the_pyramid(image: int, sides: list[int]) -> None:
    levels = BiFPN(CHANNELS, out_channels=4, num_stages=2)(features(image))
    assert [tuple(level.shape) for level in levels] == [(2, 4, side, side) for side in sides]


def test_it_agrees_with_the_papers_equations() -> None:
    image = 200  # some of the sides are odd
    neck = scrambled(BiFPN(CHANNELS, out_channels=4, num_stages=2))
    state = neck.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        shape = (1, -1, 1, 1)
        scale = weight / torch.sqrt(var + 1e-3)
        return (x - mean.view(shape)) * scale.view(shape) + bias.view(shape)

    def project(x: Tensor, name: str) -> Tensor:
        return norm(F.conv2d(x, state[f"{name}.conv.weight"]), f"{name}.bn")

    def node(name: str, *inputs: Tensor) -> Tensor:
        weights = [max(float(w), 0.0) for w in state[f"{name}.weights"]]
        weighted = torch.stack([w * i for w, i in zip(weights, inputs, strict=True)])
        x = weighted.sum(dim=0) / (sum(weights) + 1e-4)
        x = x * torch.sigmoid(x)
        depthwise = state[f"{name}.conv.depthwise_conv.conv.weight"]
        x = F.conv2d(x, depthwise, padding=1, groups=len(depthwise))
        x = F.conv2d(x, state[f"{name}.conv.pointwise_conv.conv.weight"])
        return norm(x, f"{name}.conv.pointwise_conv.bn")

    def up(x: Tensor, like: Tensor) -> Tensor:  # nearest neighbour, cut to an odd side
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[
            ..., : like.shape[2], : like.shape[3]
        ]

    def pool(x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        return padded.unfold(2, 3, 2).unfold(3, 3, 2).amax(dim=(4, 5))

    c3, c4, c5 = features(image)
    p3, p4, p5 = (project(c, f"lateral.{i}") for i, c in enumerate((c3, c4, c5)))
    p6 = pool(project(c5, "to_p6.0"))
    p7 = pool(p6)
    p4_up, p5_up = project(c4, "lateral_up.0"), project(c5, "lateral_up.1")
    for stage in ("stages.0", "stages.1"):
        m6 = node(f"{stage}.down.3", p6, up(p7, p6))
        m5 = node(f"{stage}.down.2", p5, up(m6, p5))
        m4 = node(f"{stage}.down.1", p4, up(m5, p4))
        p3 = node(f"{stage}.down.0", p3, up(m4, p3))
        p4 = node(f"{stage}.up.0", p4_up, m4, pool(p3))
        p5 = node(f"{stage}.up.1", p5_up, m5, pool(p4))
        p6 = node(f"{stage}.up.2", p6, m6, pool(p5))
        p7 = node(f"{stage}.up.3", p7, pool(p6))
        p4_up, p5_up = p4, p5
    with torch.no_grad():
        levels = neck(features(image))
    for level, expected in zip(levels, (p3, p4, p5, p6, p7), strict=True):
        assert expected.std() > 1e-3
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_and_another_number_of_features_is_refused() -> None:
    neck = BiFPN(CHANNELS, out_channels=4, num_stages=3)
    neck.init_weights()
    sum(level.square().mean() * (1 + i) for i, level in enumerate(neck(features(128)))).backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())
    with pytest.raises(ValueError, match=r"features of 3 strides.*\[40, 112\]"):
        BiFPN([40, 112])
    with pytest.raises(ValueError, match="num_stages=0"):
        BiFPN([40, 112, 320], num_stages=0)
