"""mmcv's functions over the stand-in agree with brute force; a compiled mmcv is left alone."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import mmcv
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, roi_align, sigmoid_focal_loss, soft_nms
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from detection.mmcv_ops import MissingOperatorError, install_operators


def crowded(num_boxes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of which many overlap, with distinct scores."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (num_boxes, 2))
    sides = rng.uniform(5, 30, (num_boxes, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    scores = rng.permutation(np.linspace(0.05, 0.95, num_boxes))
    return torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32)


def iou(a: list[float], b: list[float], offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    return inter / (sum(areas) - inter)


def reference(
    boxes: list[list[float]], scores: list[float], method: str, offset: int, **how: float
) -> list[tuple[int, float]]:
    """Soft-NMS as its paper writes it down: (index, new score) of what is kept, best first."""
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=lambda index: left[index])
        kept.append((best, left.pop(best)))
        for index in list(left):
            overlap = iou(boxes[best], boxes[index], offset)
            if method == "gaussian":
                left[index] *= math.exp(-(overlap**2) / how["sigma"])
            elif overlap >= how["iou_threshold"]:
                left[index] *= 1 - overlap if method == "linear" else 0
            if left[index] < how["min_score"]:
                del left[index]
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_nms_agrees_with_brute_force(threshold: float, offset: int) -> None:
    boxes, scores = crowded(60, seed=1)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        near = (iou(boxes[index].tolist(), boxes[other].tolist(), offset) for other in kept)
        if all(overlap <= threshold for overlap in near):
            kept.append(index)
    dets, indices = nms(boxes, scores, threshold, offset)
    assert indices.tolist() == kept
    assert 1 < len(kept) < 60
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], dim=1))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_agrees_with_brute_force(method: str, offset: int) -> None:
    how = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.02}
    for seed in range(3):
        boxes, scores = crowded(40, seed)
        kept = reference(boxes.tolist(), scores.tolist(), method, offset, **how)
        before = boxes.clone(), scores.clone()
        dets, indices = soft_nms(boxes, scores, method=method, offset=offset, **how)
        assert indices.tolist() == [index for index, _ in kept]
        assert 1 < len(kept) < 40
        assert torch.equal(dets[:, :4], boxes[indices])
        assert dets[:, 4].tolist() == pytest.approx([score for _, score in kept], rel=1e-5)
        assert torch.equal(boxes, before[0])
        assert torch.equal(scores, before[1])


def test_soft_nms_of_no_box_of_boxes_of_no_area_and_of_arrays() -> None:
    dets, indices = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert len(indices) == 0
    points, scores = torch.tensor([[3.0, 1, 3, 1], [3, 1, 3, 1]]), torch.tensor([0.4, 0.9])
    dets, indices = soft_nms(points, scores, method="gaussian")
    assert indices.tolist() == [1, 0]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.4])
    array, kept = soft_nms(points.numpy(), scores.numpy())
    assert isinstance(array, np.ndarray)
    assert kept.tolist() == [1, 0]


def test_classes_do_not_suppress_each_other() -> None:
    boxes, scores = crowded(40, seed=4)
    classes = torch.arange(40) % 3
    how = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.02, "method": "gaussian"}
    dets, indices = batched_nms(boxes, scores, classes, {"type": "soft_nms", **how})
    expected: dict[int, float] = {}
    for which in range(3):
        members = (classes == which).nonzero()[:, 0]
        alone, kept = soft_nms(boxes[members], scores[members], **how)
        expected |= dict(zip(members[kept].tolist(), alone[:, 4].tolist(), strict=True))
    assert dict(zip(indices.tolist(), dets[:, 4].tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-4
    )


def test_focal_loss_and_its_gradient_agree_with_mmdet() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(50, 6, generator=generator)).requires_grad_()
    target = torch.randint(7, (50,), generator=generator)  # 6 is background
    factors = torch.rand(50, 6, generator=generator)
    loss = sigmoid_focal_loss(logits, target, 1.5, 0.25, None, "none")
    (gradient,) = torch.autograd.grad((loss * factors).sum(), logits)
    one_hot = torch.nn.functional.one_hot(target, 7)[:, :6]
    expected = py_sigmoid_focal_loss(logits, one_hot, gamma=1.5, alpha=0.25, reduction="none")
    (expected_gradient,) = torch.autograd.grad((expected * factors).sum(), logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_another_operator_names_itself_and_the_way_out() -> None:
    with pytest.raises(MissingOperatorError, match="roi_align_forward.*install an mmcv"):
        roi_align(torch.zeros(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
    with pytest.raises(MissingOperatorError, match="weight per class"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), 2.0, 0.25, torch.ones(2))


def test_a_compiled_extension_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    install_operators()
    assert sys.modules["mmcv._ext"] is compiled
    # Nor is one on disk that nobody has imported yet.
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    (tmp_path / "_ext.py").write_text("nms = 'from disk'", encoding="utf-8")
    install_operators()
    assert importlib.import_module("mmcv._ext").nms == "from disk"
