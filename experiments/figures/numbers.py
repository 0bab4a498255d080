"""Numbers as people read them."""

from __future__ import annotations

import math


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
