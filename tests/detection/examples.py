"""A detector small enough to train within seconds, as plain values: MMDetection is not imported."""

from __future__ import annotations

from typing import Any

# Options of MMDetection's config.
SMALL_DETECTOR: dict[str, Any] = {
    "model.neck.out_channels": 16,
    "model.neck.num_stages": 1,
    "model.bbox_head.in_channels": 16,
    "model.bbox_head.feat_channels": 16,
    "model.bbox_head.stacked_convs": 1,
    "model.test_cfg.score_thr": 0.0,  # an untrained detector finds something, too
    "model.test_cfg.nms_pre": 20,
}


def small_space(
    channels: int, resolution: int, candidates: tuple[tuple[int, int], ...] = ((3, 2),)
) -> dict[str, Any]:
    """A space of three layers with features at strides 8, 16 and 32."""
    return {
        "name": "small",
        "input": {"channels": channels, "resolution": resolution, "num_classes": 10},
        "stem": {"channels": 8, "stride": 2},
        "first_block": {"channels": 8, "kernel": 3, "stride": 2},
        "candidates": [list(candidate) for candidate in candidates],
        "stages": [{"channels": width, "layers": 1, "stride": 2} for width in (12, 16, 24)],
        "head": {"channels": 16},
    }
