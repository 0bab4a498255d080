"""Convolutions are shared and batch norms are not; the loss against one that is written out."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from detection.head import EfficientDetHead

STRIDES = (8, 16, 32, 64, 128)
TRAIN_CFG = ConfigDict(
    assigner={
        "type": "mmdet.MaxIoUAssigner",
        "pos_iou_thr": 0.5,
        "neg_iou_thr": 0.5,
        "min_pos_iou": 0,
        "ignore_iof_thr": -1,
    },
    sampler={"type": "mmdet.PseudoSampler"},
    allowed_border=-1,
    pos_weight=-1,
)
NUM_CLASSES = 3


def make_head(**changes: Any) -> EfficientDetHead:
    head = EfficientDetHead(NUM_CLASSES, in_channels=8, feat_channels=8, **changes)
    head.init_weights()
    return head


def pyramid(side: int = 64, batch: int = 1, channels: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = [-(-side // stride) for stride in STRIDES]
    return [torch.randn(batch, channels, s, s, generator=generator) for s in sides]


def objects(boxes: list[list[float]], labels: list[int]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels).long())


def image_meta(side: int = 64) -> dict[str, Any]:
    return {"img_shape": (side, side), "pad_shape": (side, side), "batch_input_shape": (side, side)}


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


def test_statistics_of_a_level_are_its_own() -> None:
    head = make_head().train()
    levels = [torch.full((2, 8, 4, 4), float(i)) + torch.rand(2, 8, 4, 4) for i in range(5)]
    head(levels)
    means = torch.stack([level[0].running_mean for level in head.regress.norms])
    assert len({tuple(row) for row in means.tolist()}) == 5


def test_predictions_have_nine_anchors_a_cell_and_start_at_the_prior() -> None:
    head = make_head().train()
    with torch.no_grad():
        scores, deltas = head(pyramid(256, batch=4))
    assert [tuple(s.shape[1:]) for s in scores] == [
        (9 * NUM_CLASSES, side, side) for side in (32, 16, 8, 4, 2)
    ]
    assert [tuple(d.shape[1:]) for d in deltas] == [(36, side, side) for side in (32, 16, 8, 4, 2)]
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
    head = make_head()
    sides = [(-(-256 // stride),) * 2 for stride in STRIDES]
    anchors = torch.cat(head.prior_generator.grid_priors(sides, device="cpu"))
    torch.testing.assert_close(anchors, torch.tensor(reference_anchors(256)))
    assert anchors[0].tolist() == [-12, -12, 20, 20]


def reference_loss(
    scores: list[Tensor], deltas: list[Tensor], images: list[InstanceData], side: int
) -> tuple[float, float]:
    """Focal loss, and 50 · Huber(0.1) as a mean over four numbers, by the paper's equations."""
    logits = torch.cat(
        [s.permute(0, 2, 3, 1).reshape(len(images), -1, NUM_CLASSES) for s in scores], dim=1
    )
    boxes = torch.cat([d.permute(0, 2, 3, 1).reshape(len(images), -1, 4) for d in deltas], dim=1)
    anchors = reference_anchors(side)
    focal = huber = 0.0
    num_positive = 0
    for image, (truth, logit_AK, box_A4) in enumerate(zip(images, logits, boxes, strict=True)):
        assigned: dict[int, int] = {}
        overlaps = [[iou(a, t) for a in anchors] for t in truth.bboxes.tolist()]
        for index in range(len(anchors)):
            best = max(range(len(overlaps)), key=lambda t: overlaps[t][index])
            if overlaps[best][index] >= 0.5:
                assigned[index] = best
        for t, row in enumerate(overlaps):  # an object's best anchors are its own in any case
            assigned |= {i: t for i, overlap in enumerate(row) if abs(overlap - max(row)) < 1e-7}
        num_positive += len(assigned)
        assert assigned, f"image {image} tests nothing"
        target_AK = torch.zeros(len(anchors), NUM_CLASSES)
        for index, t in assigned.items():
            target_AK[index, truth.labels[t]] = 1
            x1, y1, x2, y2 = anchors[index]
            u1, v1, u2, v2 = truth.bboxes[t].tolist()
            w, h = x2 - x1, y2 - y1
            target = torch.tensor(
                [
                    ((u1 + u2) - (x1 + x2)) / 2 / w,
                    ((v1 + v2) - (y1 + y2)) / 2 / h,
                    math.log((u2 - u1) / w),
                    math.log((v2 - v1) / h),
                ]
            )
            huber += float(F.huber_loss(box_A4[index], target, delta=0.1))
        p = logit_AK.sigmoid()
        p_true = torch.where(target_AK == 1, p, 1 - p)
        alpha = torch.where(target_AK == 1, 0.25, 0.75)
        focal += float((-alpha * (1 - p_true) ** 1.5 * p_true.log()).sum())
    return focal / num_positive, 50 * huber / num_positive


def iou(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return w * h / (sum(areas) - w * h)


SCENES = [
    objects([[13.0, 5, 44, 36], [2, 30, 62, 61]], [1, 2]),
    objects([[20.0, 10, 29, 55]], [0]),  # so narrow that no anchor reaches an IoU of 0.5
]


def test_the_loss_agrees_with_the_papers_equations() -> None:
    head = make_head(train_cfg=TRAIN_CFG).eval()
    with torch.no_grad():
        scores, deltas = head([3 * level for level in pyramid(64, batch=2)])
        deltas = [10 * delta for delta in deltas]  # on both sides of Huber's δ
        losses = head.loss_by_feat(scores, deltas, SCENES, [image_meta()] * 2)
    focal, huber = reference_loss(scores, deltas, SCENES, 64)
    assert float(sum(losses["loss_cls"])) == pytest.approx(focal, rel=1e-4)
    assert float(sum(losses["loss_bbox"])) == pytest.approx(huber, rel=1e-4)


def test_images_without_objects_have_a_finite_loss_and_gradient() -> None:
    head = make_head(train_cfg=TRAIN_CFG)
    scores, deltas = head(pyramid(64, batch=2))
    losses = head.loss_by_feat(scores, deltas, [objects([], [])] * 2, [image_meta()] * 2)
    total = torch.stack([part for parts in losses.values() for part in parts]).sum()
    total.backward()
    assert math.isfinite(total.item())
    gradients = [p.grad for p in head.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def total_loss(images: slice) -> float:
    """Loss of some of the scenes, with the same weights in every process."""
    torch.manual_seed(0)
    head = make_head(train_cfg=TRAIN_CFG).eval()
    levels = [level[images] for level in pyramid(64, batch=2)]
    scenes = SCENES[images]
    with torch.no_grad():
        losses = head.loss_by_feat(*head(levels), scenes, [image_meta()] * len(scenes))
    return float(sum(sum(parts) for parts in losses.values()))


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    loss = total_loss(slice(rank, rank + 1))
    Path(folder, f"rank{rank}.txt").write_text(repr(loss), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_mean_loss_of_two_ranks_is_the_loss_of_all_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spawn(run_rank, (str(tmp_path),), nprocs=2)
    losses = [float((tmp_path / f"rank{rank}.txt").read_text("utf-8")) for rank in range(2)]
    assert losses[0] != pytest.approx(losses[1], rel=0.01)
    assert sum(losses) / 2 == pytest.approx(total_loss(slice(0, 2)), rel=1e-5)
