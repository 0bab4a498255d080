"""Tracked supernets as sections compare them: what they were, and which of them are comparable.

Everything but a stage's history is read off params and metrics, which cost no request.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from experiments.config.cell import Trainable
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.units import Show
from experiments.report.evidence.values import Derived, MeanStd, Number
from experiments.stages.supernet import recorded_scores
from nas.early_bird import FloatArray
from nas.space import SearchSpace, space_from_dict
from orchestration.tracking.reader import TrackedRun

_TRAINABLES: tuple[str, ...] = get_args(Trainable)
TRAINABLE, EPOCHS, SEED = "supernet.trainable", "supernet.epochs", "seed"
EARLY_BIRD = "supernet.early_bird"


@dataclass(frozen=True)
class Supernet:
    """A finished supernet.

    Attributes:
        run: its run.
        trainable: what it trains.
        epochs: as configured.
        seed: its seed.
    """

    run: TrackedRun
    trainable: str
    epochs: int
    seed: int

    @property
    def has_early_bird(self) -> bool:
        """Whether the early-bird stop might end it."""
        return f"{EARLY_BIRD}.window" in self.run.params

    @cached_property
    def fixed_length(self) -> Mapping[str, str]:
        """Its config as flat params, the early-bird stop left out."""
        return {
            key: value for key, value in self.run.params.items() if not key.startswith(EARLY_BIRD)
        }

    @property
    def order(self) -> tuple[int, str, int]:
        """Sort key: `all`, `bn`, `last_bn`, then the seed."""
        known = self.trainable in _TRAINABLES
        place = _TRAINABLES.index(self.trainable) if known else len(_TRAINABLES)
        return place, self.trainable, self.seed


@dataclass(frozen=True)
class Group:
    """Supernets that agree in all params but a few.

    Attributes:
        shared: the params that they agree in.
        supernets: sorted by trainable and seed.
    """

    shared: Mapping[str, str]
    supernets: tuple[Supernet, ...]


def finished_supernets(evidence: Evidence) -> tuple[Supernet, ...]:
    """Those that are finished, the oldest first; of two with one config the newer one."""
    found: dict[tuple[tuple[str, str], ...], Supernet] = {}
    for run in evidence.of("supernet"):
        if run.status != "FINISHED":
            continue
        try:
            supernet = Supernet(
                run, run.params[TRAINABLE], int(run.params[EPOCHS]), int(run.params[SEED])
            )
        except (KeyError, ValueError):  # no supernet of this program's config
            continue
        found[tuple(sorted(run.params.items()))] = supernet
    return tuple(found.values())


def unfinished_supernets(evidence: Evidence) -> tuple[str, ...]:
    """A sentence if there are any, none otherwise."""
    count = sum(run.status != "FINISHED" for run in evidence.of("supernet"))
    if count == 0:
        return ()
    return (
        f"{count} supernet{'s are' if count > 1 else ' is'} not finished and left out; a command "
        "that was interrupted, given again, goes on where it stopped.",
    )


def grouped(supernets: Iterable[Supernet], but: Collection[str]) -> tuple[Group, ...]:
    """Groups that agree in all params except `but`, in the order of their first members."""
    groups: dict[tuple[tuple[str, str], ...], list[Supernet]] = {}
    for supernet in supernets:
        shared = {key: text for key, text in supernet.run.params.items() if key not in but}
        groups.setdefault(tuple(sorted(shared.items())), []).append(supernet)
    return tuple(
        Group(dict(shared), tuple(sorted(members, key=lambda each: each.order)))
        for shared, members in groups.items()
    )


def titles(evidence: Evidence, groups: Sequence[Group]) -> list[str]:
    """Space and data of each group, and what else sets apart those that agree in these."""
    names = [f"{space_name(evidence, group.supernets[0])}, {_data(group)}" for group in groups]
    told = []
    for name, group in zip(names, groups, strict=True):
        same = [other.shared for other, of in zip(groups, names, strict=True) if of == name]
        fields = sorted({key for shared in same for key in shared})
        apart = [
            f"{key.removeprefix('supernet.')} {group.shared.get(key, 'not given')}"
            for key in fields
            if len({shared.get(key) for shared in same}) > 1 and key != "space.stages"
        ]
        told.append(", ".join([name, *apart]))
    return told


def _data(group: Group) -> str:
    return group.shared.get("data.name", "unknown data")


def space_name(evidence: Evidence, supernet: Supernet) -> str:
    """As the experiment calls it that the supernet was first part of; else its size."""
    parent = evidence.by_id.get(supernet.run.parent_run_id or "")
    if parent is not None and "space" in parent.params:
        return parent.params["space"]
    space = space_of(evidence, supernet)
    return "unknown space" if space is None else f"space of {len(space.layers)} layers"


def space_of(evidence: Evidence, supernet: Supernet) -> SearchSpace | None:
    """Read back from the params; from the record where a param was cut; None without either."""
    try:
        return space_from_dict(section_of(supernet.run, "space"))
    except ValueError:
        record = evidence.record(supernet.run)
    try:
        return None if record is None else space_from_dict(record["config"]["space"])
    except (KeyError, TypeError, ValueError):
        return None


def section_of(run: TrackedRun, section: str) -> dict[str, Any]:
    """A section of a stage's config, nested again from the flat params."""
    tree: dict[str, Any] = {}
    for key, text in run.params.items():
        first, *path = key.split(".")
        if first != section or not path:
            continue
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        try:
            branch[path[-1]] = json.loads(text)
        except ValueError:  # strings stand there as they are
            branch[path[-1]] = text
    return tree


def scores_of(row: Mapping[str, float], space: SearchSpace) -> FloatArray | None:
    """The scores [L, N] of a row of history or of final metrics; None if one is missing or NaN."""
    try:
        scores_LN = recorded_scores(row, space)
    except KeyError:
        return None
    for layer in space.searched_layers:
        if not np.isfinite(scores_LN[layer, : len(space.layers[layer].candidates)]).all():
            return None
    return scores_LN


def yes_or_no(holds: bool, rule: str, runs: Iterable[TrackedRun]) -> Number:
    """Yes (1) or no (0), with the rule that decided it."""
    source = Derived(rule, tuple(run.run_id for run in runs))
    return Number(float(holds), "yes" if holds else "no", source)


@dataclass(frozen=True)
class Found:
    """What one seed gave, and the runs that it was computed from."""

    value: float
    run_ids: tuple[str, ...]


def over_seeds(found: Iterable[Found], show: Show, rule: str) -> MeanStd | None:
    """Mean ± standard deviation of what each seed gave, NaN left out; None if nothing is left."""
    finite = [each for each in found if math.isfinite(each.value)]
    if not finite:
        return None
    values = [each.value for each in finite]
    run_ids = tuple(dict.fromkeys(run_id for each in finite for run_id in each.run_ids))
    mean = statistics.fmean(values)
    number = Number.of(mean, show, Derived(rule, run_ids))
    if len(finite) < 2:
        return MeanStd(number, None)
    std = statistics.stdev(values)
    spread = Derived(f"standard deviation of: {rule}", run_ids)
    text = show(std).removeprefix("+")  # of means that are shown with their sign
    return MeanStd(number, Number(std, text, spread, show.scale))
