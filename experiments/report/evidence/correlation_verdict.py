"""What follows from the τ of a correlation study, in words that its numbers choose.

The paper's claim is that `bn` is as good as `accuracy`. The question that it leaves open is whether
either says more than size does: `flops` and `params` cost nothing, and larger networks are better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from nas.ranking import Interval

Taus: TypeAlias = Mapping[str, Interval]

_SIZES = ("flops", "params")


def verdict(taus: Taus, over_bn: Taus, within: Taus) -> list[str]:
    """A sentence each; fewer where a study has not judged the indicators that they are about.

    Args:
        taus: indicator → τ and its interval, all finite.
        over_bn: the same of the difference to bn's; empty if it is not known.
        within: the same within bins of FLOPs.
    """
    if not taus:
        return []
    return [_chance(taus), *_accuracy(taus, over_bn), *_size(taus, over_bn), *_within(within)]


def _chance(taus: Taus) -> str:
    """Which indicators may have no say at all."""
    chance = [name for name, tau in taus.items() if tau.low <= 0 <= tau.high]
    if not chance:
        return "No indicator's 95 % interval holds 0."
    return (
        f"The 95 % interval of {_and(chance)} holds 0: whether "
        f"{'it orders' if len(chance) == 1 else 'they order'} architectures at all is not shown."
    )


def _accuracy(taus: Taus, over_bn: Taus) -> list[str]:
    """The comparison of Fig. 6."""
    if not {"bn", "accuracy"} <= taus.keys():
        return []
    bn, accuracy = (taus[name].value for name in ("bn", "accuracy"))
    return [
        f"Fig. 6's comparison: bn reaches τ {bn:z.2f} and accuracy {accuracy:z.2f}; "
        f"{_told_apart('accuracy', over_bn)}."
    ]


def _size(taus: Taus, over_bn: Taus) -> list[str]:
    """Whether size alone does as well as bn."""
    if "bn" not in taus:
        return []
    return [
        f"Size alone: {name} reaches τ {taus[name].value:z.2f}, beside bn's "
        f"{taus['bn'].value:z.2f}; {_told_apart(name, over_bn)}."
        for name in _SIZES
        if name in taus
    ]


def _within(within: Taus) -> list[str]:
    """What is left among architectures of about one size."""
    if "bn" not in within:
        return []
    others = [f"{name} {tau.value:z.2f}" for name, tau in within.items() if name != "bn"]
    beside = f", beside {_and(others)}" if others else ""
    chance = [name for name, tau in within.items() if tau.low <= 0 <= tau.high]
    left = f"; the 95 % interval of {_and(chance)} holds 0" if chance else ""
    return [f"Within bins of FLOPs bn has {within['bn'].value:z.2f}{beside}{left}."]


def _told_apart(name: str, over_bn: Taus) -> str:
    """Whether an indicator differs from bn over the same architectures, and how."""
    found = over_bn.get(name)
    if found is None:
        return "whether that is more than chance, the study does not say"
    low, high = f"{found.low:z.2f}", f"{found.high:z.2f}"
    ends = f"the difference of {found.value:z.2f} has the 95 % interval {low} to {high}"
    if found.low > 0:
        return f"{name} orders them better: {ends}"
    if found.high < 0:
        return f"{name} orders them worse: {ends}"
    return f"which of the two orders them better is not shown: {ends}"


def _and(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
