"""mmcv's operators without a compiler.

MMDetection imports `mmcv.ops` everywhere, and that wants `mmcv._ext`: C++ and CUDA that mmcv's
wheel does not carry, and that take a CUDA toolkit and a quarter of an hour to compile, again for
every PyTorch. A one-stage detector calls three of its operators, and these exist in torchvision and
PyTorch, too. So where `_ext` is missing, a module with these takes its place; any other operator
raises an error that names it. A compiled `_ext` is used as it is.

Shape legend: N boxes or anchors, K classes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

_NAME = "mmcv._ext"


class MissingOperatorError(ValueError):
    """The model that was asked for calls an operator that needs mmcv's compiled extension."""


def install_operators() -> None:
    """Replace `mmcv._ext`, unless it is there; before anything imports `mmcv.ops`."""
    if _NAME in sys.modules or importlib.util.find_spec(_NAME) is not None:
        return
    sys.modules[_NAME] = _Operators(_NAME)


class _Operators(ModuleType):
    """Stands in for `mmcv._ext`: `mmcv.ops` asks it for every operator by name when imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name, __doc__)
        self.__spec__ = ModuleSpec(name, loader=None)  # mmengine asks whether it has one
        self.nms = _nms
        self.softnms = _soft_nms
        self.sigmoid_focal_loss_forward = _focal_loss_forward
        self.sigmoid_focal_loss_backward = _focal_loss_backward

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOperatorError(
                f"mmcv's operator {name!r} needs its compiled extension, and this mmcv has none: "
                f"install an mmcv that was compiled for PyTorch {torch.__version__}, or use a "
                f"model without this operator."
            )

        return missing


def _nms(boxes_N4: Tensor, scores_N: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that hard NMS keeps, best first."""
    from torchvision.ops import nms

    return nms(_widened(boxes_N4, offset), scores_N, iou_threshold)


def _soft_nms(
    boxes_N4: Tensor,
    scores_N: Tensor,
    dets_N5: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017): indices kept, their boxes and new scores in `dets_N5`.

    The best box left is taken; the scores of the others fall with their overlap with it (method 0
    to nothing and 1 by 1 − IoU from the threshold on, 2 by exp(−IoU²/σ)), and those that fall below
    `min_score` are dropped.
    """
    from torchvision.ops import box_iou

    widened_N4, scores_N = _widened(boxes_N4, offset), scores_N.clone()
    kept: list[int] = []
    remaining = torch.arange(len(scores_N))
    while len(remaining) > 0:
        position = int(scores_N[remaining].argmax())
        best = int(remaining[position])
        dets_N5[len(kept), :4] = boxes_N4[best]
        dets_N5[len(kept), 4] = scores_N[best]
        kept.append(best)
        remaining = torch.cat([remaining[:position], remaining[position + 1 :]])
        overlap = box_iou(widened_N4[best, None], widened_N4[remaining])[0]
        overlap = overlap.nan_to_num(0.0)  # two boxes of no area
        if method == 2:
            weight = torch.exp(-(overlap**2) / sigma)
        else:
            reduced = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            weight = torch.where(overlap >= iou_threshold, reduced, 1.0)
        scores_N[remaining] *= weight
        remaining = remaining[scores_N[remaining] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def _widened(boxes_N4: Tensor, offset: int) -> Tensor:
    """Boxes whose sides are x2 − x1 and y2 − y1: mmcv's are x2 − x1 + offset."""
    return boxes_N4 if offset == 0 else boxes_N4 + boxes_N4.new_tensor([0, 0, offset, offset])


def _focal_loss_forward(
    logits_NK: Tensor,
    target_N: Tensor,
    weight_K: Tensor,
    output_NK: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Sigmoid focal loss of class indices, K for background, into `output_NK`.

    mmdet's focal loss calls this on CUDA alone; on a CPU it has its own.
    """
    output_NK.copy_(_focal_loss(logits_NK, target_N, weight_K, gamma, alpha))


def _focal_loss_backward(
    logits_NK: Tensor,
    target_N: Tensor,
    weight_K: Tensor,
    grad_NK: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient of `_focal_loss_forward` with respect to the logits, into `grad_NK`."""
    with torch.enable_grad():
        leaf_NK = logits_NK.detach().requires_grad_()
        loss_NK = _focal_loss(leaf_NK, target_N, weight_K, gamma, alpha)
        grad_NK.copy_(torch.autograd.grad(loss_NK.sum(), leaf_NK)[0])


def _focal_loss(
    logits_NK: Tensor, target_N: Tensor, weight_K: Tensor, gamma: float, alpha: float
) -> Tensor:
    from torchvision.ops import sigmoid_focal_loss

    if weight_K.numel() > 0:
        raise MissingOperatorError(
            "sigmoid_focal_loss with a weight per class needs mmcv's compiled extension, and this "
            "mmcv has none: weight the loss afterwards."
        )
    num_classes = logits_NK.shape[1]
    one_hot_NK = torch.nn.functional.one_hot(target_N, num_classes + 1)[:, :num_classes]
    return sigmoid_focal_loss(logits_NK, one_hot_NK.to(logits_NK), alpha=alpha, gamma=gamma)
