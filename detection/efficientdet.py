"""The detector as a whole, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from torch import nn
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
        channels, given = getattr(self.backbone, "out_channels", None), neck.get("in_channels")
        if isinstance(channels, tuple):  # many of MMDetection's backbones do not have it
            if given is not None and tuple(given) != channels:
                raise ValueError(
                    f"the backbone gives features of {list(channels)} channels, but "
                    f"neck.in_channels is {list(given)}: leave it out, or give the backbone's."
                )
            neck = {**neck, "in_channels": channels}
        self.neck = MODELS.build(neck)


class DetectorCost(NamedTuple):
    """FLOPs (multiply-adds of one image) and parameters of backbone, neck and head."""

    flops: dict[str, int]
    params: dict[str, int]


def detector_cost(model_cfg: Mapping[str, Any], image_size: int = 512) -> DetectorCost:
    """What a detector costs, from its config alone: no weights are read and nothing is computed.

    Multiply-adds of convolutions and linear layers, as `nas.cost` counts them; suppression and the
    decoding of boxes are left out, as they are in the published numbers.

    Args:
        model_cfg: the `model` of a config.
        image_size: side of a square image in pixels.
    """
    config = deepcopy(dict(model_cfg))  # MMDetection writes into what it is given
    config.pop("data_preprocessor", None)
    for pretrained in ("checkpoint", "weights", "init_cfg"):
        config["backbone"].pop(pretrained, None)
    detector = MODELS.build(config).to("meta").eval()
    parts = {"backbone": detector.backbone, "neck": detector.neck, "head": detector.bbox_head}
    channels = next(m.in_channels for m in detector.backbone.modules() if isinstance(m, nn.Conv2d))
    value: Any = torch.empty(1, channels, image_size, image_size, device="meta")
    flops = {}
    for name, part in parts.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            value = part(value)
        flops[name] = counter.get_total_flops() // 2  # it counts an addition and a multiplication
    params = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
    }
    return DetectorCost(flops, params)
