"""The detector as a whole, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@MODELS.register_module()
class EfficientDet(SingleStageDetector):
    """MMDetection's one-stage detector whose neck takes its input channels from the backbone.

    So a config with another backbone differs in the backbone alone. `in_channels` may still be
    given, and then has to be what the backbone gives: ValueError otherwise.

    Args:
        backbone: config of a backbone; if it has `out_channels` per stride, the neck needs none.
        neck: config of the neck.
        bbox_head: config of the head.
        train_cfg: MMDetection's.
        test_cfg: MMDetection's.
        data_preprocessor: MMDetection's.
        init_cfg: MMEngine's.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any],
        bbox_head: dict[str, Any],
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            bbox_head=bbox_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.neck = MODELS.build(_fitted(neck, self.backbone))


def _fitted(neck: Mapping[str, Any], backbone: nn.Module) -> dict[str, Any]:
    """The neck's config with the backbone's channels in it."""
    given, found = neck.get("in_channels"), getattr(backbone, "out_channels", None)
    if not isinstance(found, tuple):  # many of MMDetection's backbones do not say
        return dict(neck)
    if given is not None and tuple(given) != found:
        raise ValueError(
            f"the backbone gives features of {list(found)} channels, but neck.in_channels is "
            f"{list(given)}: leave it out, or give the backbone's."
        )
    return {**neck, "in_channels": found}


class DetectorCost(NamedTuple):
    """FLOPs (multiply-adds of one image) and parameters of backbone, neck and head."""

    flops: dict[str, int]
    params: dict[str, int]


def detector_cost(
    model_cfg: Mapping[str, Any], image_size: int | tuple[int, int] = 512
) -> DetectorCost:
    """What a detector costs, from its config alone: no weights are read and nothing is computed.

    Multiply-adds of convolutions and linear layers, as `nas.cost` counts them; suppression and the
    decoding of boxes are left out, as they are in the published numbers.

    Args:
        model_cfg: the `model` of a config.
        image_size: side of a square image in pixels, or height and width.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    config = deepcopy(dict(model_cfg))  # MMDetection writes into what it is given
    config.pop("data_preprocessor", None)
    for pretrained in ("checkpoint", "weights", "init_cfg"):
        config["backbone"].pop(pretrained, None)
    detector = MODELS.build(config).to("meta").eval()
    parts = {"backbone": detector.backbone, "neck": detector.neck, "head": detector.bbox_head}
    value: Any = torch.empty(1, _image_channels(detector.backbone), height, width, device="meta")
    flops = {}
    for name, part in parts.items():
        value, flops[name] = _run_counted(part, value)
    params = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
    }
    return DetectorCost(flops, params)


@torch.no_grad()
def _run_counted(part: nn.Module, value: Tensor | tuple[Tensor, ...]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        output = part(value)
    return output, counter.get_total_flops() // 2  # it counts an addition and a multiplication


def _image_channels(backbone: nn.Module) -> int:
    return next(m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d))
