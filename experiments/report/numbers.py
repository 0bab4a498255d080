"""Numbers as people read them."""

from __future__ import annotations


def count(number: float) -> str:
    """FLOPs or parameters, with the suffix that configs take."""
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else f"{number:.0f}"
