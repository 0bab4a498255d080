"""Finished supernets as sections compare them: what they were, and which of them are comparable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from experiments.config.training import Trainable
from experiments.report.run_table import Runs, grouped, texts
from experiments.report.tables import MOST_PICTURES
from experiments.stages.supernet import recorded_scores
from nas.early_bird import FloatArray
from nas.space import SearchSpace, space_from_dict
from orchestration.tracking.params import nested_params
from orchestration.tracking.reader import TrackedRun

TRAINABLE, EPOCHS, SEED = "supernet.trainable", "supernet.epochs", "seed"
EARLY_BIRD = "supernet.early_bird"
# In which supernets that are compared may differ.
FREE = (TRAINABLE, EPOCHS, SEED, f"{EARLY_BIRD}.window", f"{EARLY_BIRD}.threshold")


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


def comparable(
    runs: Runs, supernets: pd.DataFrame, but: Collection[str] = FREE
) -> list[tuple[str, pd.DataFrame]]:
    """Groups that agree in all params except `but`, in the order of their first members.

    Each has a title, space and data and what else sets it apart from groups that agree in these,
    and its supernets, sorted by trainable and seed.
    """
    groups = [
        in_order(each, "seed") for each in grouped(supernets, lambda run: runs.params(run, but))
    ]
    params = [dict(runs.params(each.index[0], but)) for each in groups]
    names = [
        f"{_space_name(runs, runs.by_id[group.index[0]])}, {shared.get('data.name', 'no data')}"
        for shared, group in zip(params, groups, strict=True)
    ]
    titles = []
    for name, shared in zip(names, params, strict=True):
        same = [other for other, of in zip(params, names, strict=True) if of == name]
        apart = [
            f"{field.removeprefix('supernet.')} {shared.get(field, 'not given')}"
            for field in sorted({field for each in same for field in each})
            if len({each.get(field) for each in same}) > 1 and field != "space.stages"
        ]
        titles.append(", ".join([name, *apart]))
    return list(zip(titles, groups, strict=True))


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
        return space_from_dict(nested_params(supernet.params, "space"))
    except ValueError:
        record = runs.record(supernet.run_id)
    try:
        return None if record is None else space_from_dict(record["config"]["space"])
    except (KeyError, TypeError, ValueError):
        return None


def last_scores(runs: Runs, run_id: str, space: SearchSpace) -> FloatArray | None:
    """The scores [L, N] of a supernet's last epoch; None where they cannot be had."""
    record = runs.record(run_id)
    if record is None or not record["history"]:
        return None
    return scores_of(record["history"][-1], space)


def scores_of(row: Mapping[str, float], space: SearchSpace) -> FloatArray | None:
    """The scores [L, N] of an epoch's row; None if one is missing or NaN."""
    try:
        scores_LN = recorded_scores(row, space)
    except KeyError:
        return None
    for layer in space.searched_layers:
        if not np.isfinite(scores_LN[layer, : len(space.layers[layer].candidates)]).all():
            return None
    return scores_LN
