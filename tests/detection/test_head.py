"""Convolutions are shared and batch norms are not; the loss against one that is written out."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from tests.detection.heads import (
    META,
    NUM_CLASSES,
    SCENES,
    SIDE,
    STRIDES,
    make_head,
    objects,
    pyramid,
)


def test_convolutions_are_the_same_parameters_at_all_levels_and_batch_norms_are_not() -> None:
    head = make_head(stacked_convs=3).eval()
    for branch in (head.classify, head.regress):
        assert len(branch.convs) == 3
        norms = [norm for level in branch.norms for norm in level]
        assert len({id(norm.weight) for norm in norms}) == 5 * 3
        assert all((norm.momentum, norm.eps) == (0.01, 1e-3) for norm in norms)
    same = [torch.ones(1, 8, 4, 4)] * 5
    with torch.no_grad():
        before = head(same)
        assert all(torch.equal(scores, before[0][0]) for scores in before[0])
        head.classify.norms[2][1].bias.add_(1)
        other_norm = head(same)
        head.classify.convs[0].pointwise_conv.conv.weight.mul_(-2)
        other_conv = head(same)
    changed = [not torch.equal(a, b) for a, b in zip(before[0], other_norm[0], strict=True)]
    assert changed == [False, False, True, False, False]
    assert not any(torch.equal(a, b) for a, b in zip(other_norm[0], other_conv[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before[1], other_conv[1], strict=True))


def test_predictions_have_nine_anchors_a_cell_and_start_at_the_prior() -> None:
    head = make_head().train()
    with torch.no_grad():
        scores, deltas = head(pyramid(256, batch=4))
    sides = (32, 16, 8, 4, 2)
    assert [tuple(s.shape[1:]) for s in scores] == [(9 * NUM_CLASSES, s, s) for s in sides]
    assert [tuple(d.shape[1:]) for d in deltas] == [(36, s, s) for s in sides]
    probability = torch.cat([s.flatten() for s in scores]).sigmoid()
    assert float(probability.mean()) == pytest.approx(0.01, rel=0.1)
    assert float(torch.cat([d.flatten() for d in deltas]).abs().mean()) < 0.1


def reference_anchors(side: int) -> list[list[float]]:
    """x1, y1, x2, y2 of every anchor as the paper's authors lay them out, in the head's order."""
    anchors = []
    for stride in STRIDES:
        cells = -(-side // stride)
        for row, column in product(range(cells), repeat=2):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            for ratio, octave in product((1.0, 0.5, 2.0), range(3)):  # ratio: height / width
                size = 4 * stride * 2 ** (octave / 3)
                w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                anchors.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return anchors


def test_anchors_are_efficientdets() -> None:
    sides = [(-(-256 // stride),) * 2 for stride in STRIDES]
    anchors = torch.cat(make_head().prior_generator.grid_priors(sides, device="cpu"))
    torch.testing.assert_close(anchors, torch.tensor(reference_anchors(256)))
    assert anchors[0].tolist() == [-12, -12, 20, 20]


def reference_loss(
    scores: list[Tensor], deltas: list[Tensor], images: list[InstanceData]
) -> tuple[float, float]:
    """Focal loss, and 50 · Huber(0.1) as a mean over four numbers, by the paper's equations."""
    logits = torch.cat(
        [s.permute(0, 2, 3, 1).reshape(len(images), -1, NUM_CLASSES) for s in scores], dim=1
    )
    boxes = torch.cat([d.permute(0, 2, 3, 1).reshape(len(images), -1, 4) for d in deltas], dim=1)
    anchors = reference_anchors(SIDE)
    focal = huber = 0.0
    num_positive = 0
    for truth, logit_AK, box_A4 in zip(images, logits, boxes, strict=True):
        overlaps = box_iou(truth.bboxes, torch.tensor(anchors)).tolist()
        assigned: dict[int, int] = {}
        for index in range(len(anchors)):
            best = max(range(len(overlaps)), key=lambda t: overlaps[t][index])
            if overlaps[best][index] >= 0.5:
                assigned[index] = best
        for t, row in enumerate(overlaps):  # an object's best anchors are its own in any case
            assigned |= {i: t for i, overlap in enumerate(row) if abs(overlap - max(row)) < 1e-6}
        num_positive += len(assigned)
        target_AK = torch.zeros(len(anchors), NUM_CLASSES)
        for index, t in assigned.items():
            target_AK[index, truth.labels[t]] = 1
            x1, y1, x2, y2 = anchors[index]
            u1, v1, u2, v2 = truth.bboxes[t].tolist()
            w, h = x2 - x1, y2 - y1
            target = [
                ((u1 + u2) - (x1 + x2)) / 2 / w,
                ((v1 + v2) - (y1 + y2)) / 2 / h,
                math.log((u2 - u1) / w),
                math.log((v2 - v1) / h),
            ]
            huber += float(F.huber_loss(box_A4[index], torch.tensor(target), delta=0.1))
        p = logit_AK.sigmoid()
        p_true = torch.where(target_AK == 1, p, 1 - p)
        alpha = torch.where(target_AK == 1, 0.25, 0.75)
        focal += float((-alpha * (1 - p_true) ** 1.5 * p_true.log()).sum())
    return focal / num_positive, 50 * huber / num_positive


def test_the_loss_agrees_with_the_papers_equations() -> None:
    head = make_head().eval()
    with torch.no_grad():
        scores, deltas = head([3 * level for level in pyramid(batch=2)])
        deltas = [10 * delta for delta in deltas]  # on both sides of Huber's δ
        losses = head.loss_by_feat(scores, deltas, SCENES, [META] * 2)
    focal, huber = reference_loss(scores, deltas, SCENES)
    assert float(sum(losses["loss_cls"])) == pytest.approx(focal, rel=1e-4)
    assert float(sum(losses["loss_bbox"])) == pytest.approx(huber, rel=1e-4)


def test_images_without_objects_have_a_finite_loss_and_gradient() -> None:
    head = make_head()
    scores, deltas = head(pyramid(batch=2))
    losses = head.loss_by_feat(scores, deltas, [objects([], [])] * 2, [META] * 2)
    total = torch.stack([part for parts in losses.values() for part in parts]).sum()
    total.backward()
    assert math.isfinite(total.item())
    gradients = [p.grad for p in head.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
