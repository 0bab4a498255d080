"""What a search leaves: the best architectures, what each searcher found, and the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.cost import COST_TABLES
from nas.indicators import ScoreTable
from nas.search import Ranked
from nas.space import SearchSpace, format_architecture
from orchestration.jobs.runner import Outcome


def search_outcome(
    stage: Mapping[str, Any],
    space: SearchSpace,
    *,
    best: Sequence[Ranked],
    found: Mapping[str, Mapping[str, Any]],
    front: Sequence[Ranked],
    scores_LN: ScoreTable | None,
    metrics: Mapping[str, float],
) -> Outcome:
    """The outcome of a search stage; `best` comes best first, `found` by searcher."""
    top = [describe(ranked, space) for ranked in best]
    numbers = {name: top[0][name] for name in ("score", *COST_TABLES)}
    return Outcome(
        result={
            "indicator": stage["search"]["indicator"],
            "arch": top[0]["arch"],
            **numbers,
            "top": top,
            "found": {name: dict(value) for name, value in found.items()},
            "front": [describe(ranked, space) for ranked in front],
            "scores_LN": None if scores_LN is None else scores_LN.tolist(),
        },
        metrics={**numbers, **metrics},
    )


def describe(ranked: Ranked, space: SearchSpace) -> dict[str, Any]:
    """An architecture with its score and its costs."""
    return {
        "arch": format_architecture(ranked.arch),
        "score": ranked.score,
        **{name: table(space).of(ranked.arch) for name, table in COST_TABLES.items()},
    }
