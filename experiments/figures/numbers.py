"""Numbers as people read them."""

from __future__ import annotations

import math

from orchestration.store.stage_store import StageRecord


def count(number: float) -> str:
    """FLOPs or parameters, with the suffix that configs take."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} G"
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else f"{number:.0f}"


def standard_error(top1: float, num_images: float) -> float:
    """Of an accuracy as a share of so many images (binomial)."""
    return math.sqrt(top1 * (1 - top1) / num_images)


def network_row(record: StageRecord) -> tuple[str, str, str, str]:
    """A retrained network in a table: architecture, FLOPs, params, test top-1."""
    metrics = record.metrics
    return (
        record.result["arch"],
        count(metrics["flops"]),
        count(metrics["params"]),
        f"{metrics['top1']:.2%}",
    )
