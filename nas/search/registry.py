"""The searchers by the names that configs use, and what each of them can work with."""

from __future__ import annotations

from dataclasses import dataclass

from nas.search.evolution import Evolution
from nas.search.random import RandomSearch
from nas.search.suggest import Suggester


@dataclass(frozen=True)
class Searcher:
    """`suggester` is what samples and asks for scores; None for `exact`, which needs the table.

    `additive_only`: works only with an indicator whose score is a sum over layers.
    """

    name: str
    description: str
    additive_only: bool
    suggester: type[Suggester] | None


SEARCHERS: dict[str, Searcher] = {
    searcher.name: searcher
    for searcher in (
        Searcher("exact", "proven optimum by dynamic programming", True, None),
        Searcher("evolution", "the evolutionary algorithm of SPOS", False, Evolution),
        Searcher("random", "uniform over the legal architectures", False, RandomSearch),
    )
}


def get_searcher(name: str) -> Searcher:
    """The searcher of this name; ValueError listing the known ones if there is none."""
    if name not in SEARCHERS:
        raise ValueError(f"unknown searcher {name!r}: the known ones are {', '.join(SEARCHERS)}.")
    return SEARCHERS[name]


def check_indicator(searcher: str, indicator: str, *, additive: bool) -> None:
    """Raise ValueError if `searcher` needs an additive indicator and this one is not."""
    if get_searcher(searcher).additive_only and not additive:
        others = " or ".join(s.name for s in SEARCHERS.values() if not s.additive_only)
        raise ValueError(
            f"the searcher {searcher!r} needs a score that is a sum over layers, and the indicator "
            f"{indicator!r} is not one: use the searcher {others}, or the indicator 'bn'."
        )
