"""Numbers as people read them."""

from __future__ import annotations

from typing import NamedTuple


class Mean(NamedTuple):
    """A mean over seeds and its standard deviation, 0 for one seed.

    Where a figure says so, the spread of one seed is the standard error that its test images leave.
    """

    value: float
    spread: float


def count(number: float) -> str:
    """FLOPs or parameters, with the suffix that configs take."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} G"
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else f"{number:.0f}"
