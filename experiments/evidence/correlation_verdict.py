"""What follows from the τ of a correlation study, in words that its numbers choose.

The paper's claim is that `bn` is as good as `accuracy`. The question that it leaves open is whether
either says more than size does: `flops` and `params` cost nothing, and larger networks are better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from nas.ranking import Interval

Taus: TypeAlias = Mapping[str, Interval]

_SIZES = ("flops", "params")


def verdict(metrics: Mapping[str, float], taus: Taus) -> list[str]:
    """A sentence each; fewer where a study has not judged the indicators that they are about.

    Args:
        metrics: of the study's run.
        taus: indicator → τ and its interval, all finite.
    """
    if not taus:
        return []
    return [_chance(taus), *_accuracy(taus), *_size(taus), *_within(metrics, taus)]


def _chance(taus: Taus) -> str:
    """Which indicators may have no say at all."""
    chance = [name for name, tau in taus.items() if tau.low <= 0 <= tau.high]
    if not chance:
        return "No indicator's 95 % interval holds 0."
    return (
        f"The 95 % interval of {_and(chance)} holds 0: whether "
        f"{'it orders' if len(chance) == 1 else 'they order'} architectures at all is not shown."
    )


def _accuracy(taus: Taus) -> list[str]:
    """The comparison of Fig. 6."""
    if not {"bn", "accuracy"} <= taus.keys():
        return []
    bn, accuracy = (taus[name].value for name in ("bn", "accuracy"))
    return [
        f"Fig. 6's comparison: bn reaches τ {bn:z.2f} and accuracy {accuracy:z.2f}; "
        f"{_told_apart('accuracy', taus)}."
    ]


def _size(taus: Taus) -> list[str]:
    """Whether size alone does as well as bn."""
    if "bn" not in taus:
        return []
    return [
        f"Size alone: {name} reaches τ {taus[name].value:z.2f}, beside bn's "
        f"{taus['bn'].value:z.2f}; {_told_apart(name, taus)}."
        for name in _SIZES
        if name in taus
    ]


def _within(metrics: Mapping[str, float], taus: Taus) -> list[str]:
    """What is left among architectures of about one size."""
    within = {name: metrics.get(f"tau_within/{name}", math.nan) for name in taus}
    kept = {name: tau for name, tau in within.items() if math.isfinite(tau)}
    if "bn" not in kept:
        return []
    others = [f"{name} {kept[name]:z.2f}" for name in kept if name != "bn"]
    beside = f", beside {_and(others)}" if others else ""
    return [f"Within bins of FLOPs bn has {kept['bn']:z.2f}{beside}."]


def _told_apart(name: str, taus: Taus) -> str:
    """Whether the intervals leave a difference between an indicator and bn, and which."""
    found, bn = taus[name], taus["bn"]
    if found.low > bn.high:
        return f"the interval of {name} lies above bn's"
    if found.high < bn.low:
        return f"the interval of {name} lies below bn's"
    return "the intervals overlap, so the two cannot be told apart"


def _and(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
