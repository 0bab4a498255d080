"""Finished supernets as sections compare them: what they were, and which of them are comparable."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from experiments.config.training import Trainable
from experiments.report.run_table import Runs, grouped, texts
from experiments.report.tables import MOST_PICTURES
from experiments.stages.supernet import recorded_scores
from nas.early_bird import FloatArray
from nas.space import SearchSpace, space_from_dict
from orchestration.tracking.reader import TrackedRun

TRAINABLE, EPOCHS, SEED = "supernet.trainable", "supernet.epochs", "seed"
EARLY_BIRD = "supernet.early_bird"
# In which supernets that are compared may differ.
FREE = (TRAINABLE, EPOCHS, SEED, f"{EARLY_BIRD}.window", f"{EARLY_BIRD}.threshold")


class Group(NamedTuple):
    """Supernets that agree in all params but a few.

    Attributes:
        title: space and data, and what else sets it apart from groups that agree in these.
        supernets: sorted by trainable and seed; columns as :func:`finished_supernets` has them.
    """

    title: str
    supernets: pd.DataFrame


def finished_supernets(runs: Runs) -> pd.DataFrame:
    """The oldest first; of two with one config the newer one.

    Beside the columns of `Runs.frame`: `trainable`, `epochs`, `seed`, and `stops_early`, whether
    the early-bird stop might have ended it.
    """
    rows = runs.of_kind("supernet", finished=True)
    columns = {name: texts(rows, f"params.{name}") for name in (TRAINABLE, EPOCHS, SEED)}
    known = (columns[TRAINABLE] != "") & columns[EPOCHS].str.isdecimal()
    rows = rows[known & columns[SEED].str.isdecimal()]
    rows = rows.assign(
        trainable=columns[TRAINABLE][rows.index],
        epochs=columns[EPOCHS][rows.index].astype(int),
        seed=columns[SEED][rows.index].astype(int),
        stops_early=texts(rows, f"params.{EARLY_BIRD}.window") != "",
    )
    return rows.loc[[each.index[-1] for each in grouped(rows, runs.params)]]


def comparable(runs: Runs, supernets: pd.DataFrame, but: Collection[str] = FREE) -> list[Group]:
    """Groups that agree in all params except `but`, in the order of their first members."""
    groups = grouped(supernets, lambda run_id: runs.params(run_id, but))
    members = [(dict(runs.params(each.index[0], but)), in_order(each, "seed")) for each in groups]
    names = [
        f"{_space_name(runs, runs.by_id[group.index[0]])}, {shared.get('data.name', 'no data')}"
        for shared, group in members
    ]
    supernet_groups = []
    for name, (shared, group) in zip(names, members, strict=True):
        same = [other for (other, _), of in zip(members, names, strict=True) if of == name]
        apart = [
            f"{field.removeprefix('supernet.')} {shared.get(field, 'not given')}"
            for field in sorted({field for each in same for field in each})
            if len({each.get(field) for each in same}) > 1 and field != "space.stages"
        ]
        supernet_groups.append(Group(", ".join([name, *apart]), group))
    return supernet_groups


def drawn_since(groups: Sequence[pd.DataFrame]) -> float:
    """The start of the newest run of the oldest group that has a picture."""
    starts = sorted(float(group["start_time"].max()) for group in groups)
    return starts[-MOST_PICTURES:][0]


def in_order(supernets: pd.DataFrame, *then_by: str) -> pd.DataFrame:
    """By trainable, `all`, `bn` and `last_bn` before others, and then by other columns."""
    known = list(get_args(Trainable))
    places = supernets["trainable"].map(lambda name: ([*known, name].index(name), name))
    ordered = supernets.assign(place=places).sort_values(["place", *then_by], kind="stable")
    return ordered.drop(columns="place")


def _space_name(runs: Runs, supernet: TrackedRun) -> str:
    """As the experiment calls it that the supernet was first part of; else its size."""
    parent = runs.by_id.get(supernet.parent_run_id or "")
    if parent is not None and "space" in parent.params:
        return parent.params["space"]
    space = space_of(runs, supernet)
    return "unknown space" if space is None else f"space of {len(space.layers)} layers"


def space_of(runs: Runs, supernet: TrackedRun) -> SearchSpace | None:
    """Read back from the params; from the record where a param was cut; None without either."""
    try:
        return space_from_dict(section_of(supernet, "space"))
    except ValueError:
        record = runs.record(supernet.run_id)
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
