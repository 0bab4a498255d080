"""The building blocks that supernet and subnet share: one definition for both.

MobileNetV2's inverted bottleneck (Sandler et al., CVPR 2018) as BN-NAS uses it: every convolution
is followed by batch norm, activations are ReLU6, and a block ends with a batch norm, whose γ is
what Eq. 3 reads.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from nas.cost import se_channels


class ConvBNAct(nn.Sequential):
    """Convolution, batch norm and (unless `act` is false) ReLU6; 'same' padding for odd kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                stride=stride,
                padding=kernel // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if act:
            layers.append(nn.ReLU6(inplace=True))
        super().__init__(*layers)


class MBConv(nn.Module):
    """Inverted bottleneck: 1×1 expansion, depthwise convolution, optional SE, 1×1 projection.

    The residual is added where the shape stays the same. With `expansion` 1 there is no expansion
    convolution. Input [B, in_channels, H, W], output [B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        expansion: int,
        stride: int = 1,
        se: bool = False,
    ) -> None:
        super().__init__()
        mid_channels = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(ConvBNAct(in_channels, mid_channels))
        layers.append(
            ConvBNAct(mid_channels, mid_channels, kernel=kernel, stride=stride, groups=mid_channels)
        )
        if se:
            from torchvision.ops import SqueezeExcitation  # only then: it takes 0.5 s to import

            layers.append(SqueezeExcitation(mid_channels, se_channels(mid_channels)))
        self.inner = nn.Sequential(*layers)
        self.project = ConvBNAct(mid_channels, out_channels, act=False)
        self.residual = stride == 1 and in_channels == out_channels

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The batch norm that ends the block (Fig. 3, red box): the one the BN indicator reads."""
        return cast(nn.BatchNorm2d, self.project[1])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.project(self.inner(images_BCHW))
        return images_BCHW + out_BCHW if self.residual else out_BCHW
