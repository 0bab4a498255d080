"""Score against FLOPs: what a search could have found at any cost, and what it has found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figures.numbers import count
from experiments.figures.stages import front_figure
from experiments.figures.style import MARKERS
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import MOST_PICTURES, again, undrawn
from experiments.report.evidence.searches import SearchGroup
from experiments.report.evidence.values import Picture
from orchestration.tracking.reader import TrackedRun


def fronts(evidence: Evidence, groups: Sequence[SearchGroup]) -> tuple[list[Picture], list[str]]:
    """The score–FLOPs front of one search of each group, and what has none."""
    pictures, missing = [], undrawn("older groups of searches", len(groups))
    newest = sorted(groups, key=lambda group: -max(run.started_at for run in group.runs))
    for group in groups:
        if group not in newest[:MOST_PICTURES]:
            continue
        run = max(group.runs, key=lambda each: _drawn_first(evidence, each))
        picture = _front(evidence, group, run)
        if picture is None:
            missing.append(
                f"The front of {run.name} ({group.space} on {group.data}) cannot be drawn, because "
                "its record cannot be read or holds none: with MLflow's artifact store in reach, "
                f"{again(run)} writes it."
            )
        else:
            pictures.append(picture)
    return pictures, missing


def _drawn_first(evidence: Evidence, run: TrackedRun) -> tuple[float, float, float]:
    """The longest supernet, of these the lowest seed, of these the newest."""
    supernet = evidence.input(run, "supernet")
    epochs = 0.0 if supernet is None else supernet.metrics.get("epochs", 0.0)
    seed = run.params.get("seed", "")
    return epochs, -float(seed) if seed.isdecimal() else -math.inf, run.started_at


def _front(evidence: Evidence, group: SearchGroup, run: TrackedRun) -> Picture | None:
    record = evidence.record(run)
    if record is None:
        return None
    try:
        front = [_point(point) for point in record["result"]["front"]]
        found = {
            searcher: {**best, **_point(best)}
            for searcher, best in record["result"]["found"].items()
            if searcher in MARKERS
        }
        max_flops = record["config"]["search"]["max_flops"]
        max_flops = None if max_flops is None else float(max_flops)
        label = f"{group.indicator} score of the architecture"
        figure = front_figure(front, found, max_flops=max_flops, label=label)
        alt = _alt(front, found, max_flops)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    supernet = evidence.input(run, "supernet")
    of = ""
    if supernet is not None:
        trainable, epochs = (
            supernet.params.get(f"supernet.{param}", "?") for param in ("trainable", "epochs")
        )
        of = f", supernet {trainable} of {epochs} epochs"
    title = (
        f"Score and FLOPs of {group.space} on {group.data}, ranked by {group.indicator}{of}, seed "
        f"{run.params.get('seed', '?')}"
    )
    name = f"front-{group.space}-{group.data}-{group.indicator}"
    return Picture(name, title, alt, figure)


def _point(point: Mapping[str, Any]) -> dict[str, float]:
    """Raises ValueError for what cannot be drawn."""
    numbers = {name: float(point[name]) for name in ("flops", "score")}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"not a point: {numbers}")
    return numbers


def _alt(
    front: Sequence[Mapping[str, float]],
    found: Mapping[str, Mapping[str, Any]],
    max_flops: float | None,
) -> str:
    """The front in words."""
    first, last = front[0], front[-1]
    limit = "without a budget" if max_flops is None else f"under {count(max_flops)} FLOPs"
    bests = ", ".join(
        f"{searcher} {best['score']:.4g} at {count(best['flops'])}"
        for searcher, best in found.items()
    )
    return (
        f"The best score rises over {len(front)} architectures from {first['score']:.4g} at "
        f"{count(first['flops'])} FLOPs to {last['score']:.4g} at {count(last['flops'])}. "
        f"Best found {limit}: {bests}."
    )
