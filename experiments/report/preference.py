"""Which candidates the BN indicator scores high (Eq. 3), read off the final metrics of supernets.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TypeAlias

import pandas as pd

from experiments.figures.preference import Preference, Spread, preference_figure
from experiments.report.run_table import Runs
from experiments.report.supernet_groups import (
    EPOCHS,
    SEED,
    TRAINABLE,
    comparable,
    finished_supernets,
    last_scores,
    space_of,
)
from experiments.report.tables import (
    MOST_PICTURES,
    NOTHING,
    Block,
    Cell,
    Format,
    Number,
    Picture,
    Section,
    Table,
    decimals,
    mean_std,
)

_MISSING = "`bnnas run experiments/configs/quickstart.yaml` trains a supernet with BN scores."
_NOTE = (
    "What the supernet trains heads the columns. A candidate's score is its mean |γ|. In percent "
    "it is the difference from the mean of its layer's candidates as a share of that mean, since "
    "layers differ in scale. Both are means over candidates, and over seeds ± standard deviation."
)
_gamma = decimals(4)
_signed = Format("{:+.2f}".format, 100)  # percent

# Trainable → kernel, expansion or layer → mean over seeds.
_Means: TypeAlias = Mapping[str, Mapping[int, Number]]


def preference_section(runs: Runs) -> Section:
    """Of each group of comparable supernets those that train longest."""
    supernets = finished_supernets(runs)
    groups = comparable(runs, supernets[~supernets["stops_early"]], {TRAINABLE, EPOCHS, SEED})
    starts = sorted((group["start_time"].max() for _, group in groups), reverse=True)
    blocks: list[Block] = []
    for title, group in groups:
        drawn = group["start_time"].max() in starts[:MOST_PICTURES]
        blocks += _blocks(runs, title, group, draw=drawn)
    missing = "" if blocks else _MISSING
    return Section("preference", "What the indicator prefers", "Eq. 3", tuple(blocks), missing)


def _blocks(runs: Runs, title: str, group: pd.DataFrame, *, draw: bool) -> list[Block]:
    candidates = _candidates(runs, group)
    if not len(candidates):
        return []
    # The longest that train BN, where some do: the indicator was made for these.
    trains_bn = candidates["trainable"] == "bn"
    epochs = (candidates[trains_bn] if trains_bn.any() else candidates)["epochs"].max()
    longest = candidates[candidates["epochs"] == epochs]
    shares, scores = (
        {kind: _over_seeds(longest, kind, column, form) for kind in ("kernel", "expansion")}
        for column, form in (("share", _signed), ("score", _gamma))
    )
    layers = _over_seeds(longest.assign(score=longest["layer_mean"]), "layer", "score", _gamma)
    where = f"{title}, {epochs} epochs"
    picture = Picture(
        "preference",
        f"{where}: BN score by kernel, by expansion and by layer",
        _alt({**shares, "layer": layers}),
        lambda: preference_figure(
            {
                trainable: Preference(
                    *(
                        {key: Spread(cell.value, cell.spread) for key, cell in found.items()}
                        for found in (*(means[trainable] for means in shares.values()), layer)
                    )
                )
                for trainable, layer in layers.items()
            }
        ),
    )
    operations = []
    for kind, means in scores.items():
        for key in _keys(means):
            row: dict[str, Cell] = {"candidates with": f"{kind} {key}"}
            for trainable, found in means.items():
                share = shares[kind][trainable].get(key, NOTHING)
                row[f"{trainable}: from the layer's mean (%)"] = share
                row[f"{trainable}: mean |γ|"] = found.get(key, NOTHING)
            operations.append(row)
    rows: list[dict[str, Cell]] = [
        {"layer": str(key), **{name: found.get(key, NOTHING) for name, found in layers.items()}}
        for key in _keys(layers)
    ]
    note = "Layers differ in scale; only candidates of one layer compete."
    name = f"{where}: mean |γ| of each layer's candidates"
    return [
        *([picture] if draw else []),
        Table.of("preference", f"{where}: BN score by kernel and expansion", operations, _NOTE),
        Table.of("preference-layers", name, rows, note, folded=True),
    ]


def _candidates(runs: Runs, group: pd.DataFrame) -> pd.DataFrame:
    """A row a candidate of a supernet, of those that have tracked all their scores.

    `layer_mean` is the mean score of its layer, `share` how far it is from that as a share of it;
    NaN where every γ of the layer has vanished.
    """
    space = space_of(runs, runs.by_id[group.index[0]])
    rows = []
    for run_id, trainable, epochs in zip(
        group.index, group["trainable"], group["epochs"], strict=True
    ):
        scores_LN = None if space is None else last_scores(runs, run_id, space)
        if space is None or scores_LN is None:
            continue
        for layer in space.searched_layers:
            candidates = space.layers[layer].candidates
            mean = float(scores_LN[layer, : len(candidates)].mean())
            for choice, candidate in enumerate(candidates):
                score = float(scores_LN[layer, choice])
                rows.append(
                    {
                        "run_id": run_id,
                        "trainable": trainable,
                        "epochs": epochs,
                        "layer": layer,
                        "kernel": candidate.kernel,
                        "expansion": candidate.expansion,
                        "layer_mean": mean,
                        "score": score,
                        "share": score / mean - 1 if mean else None,
                    }
                )
    return pd.DataFrame(rows)


def _over_seeds(candidates: pd.DataFrame, kind: str, column: str, form: Format) -> _Means:
    """Of each seed the mean over candidates, and of these mean and standard deviation."""
    known = candidates.dropna(subset=column)
    by_seed = known.groupby(["trainable", kind, "run_id"], sort=False)[column].agg(statistics.fmean)
    means: dict[str, dict[int, Number]] = {name: {} for name in candidates["trainable"].unique()}
    for (trainable, key), values in by_seed.groupby(level=[0, 1]):
        cell = mean_std(values, form)
        assert isinstance(cell, Number)
        means[trainable][key] = cell
    return means


def _keys(means: _Means) -> list[int]:
    return sorted({key for by_layer in means.values() for key in by_layer})


def _alt(by_kind: Mapping[str, _Means]) -> str:
    """The highest of every panel in words."""
    readings = []
    for trainable in by_kind["layer"]:
        best = {
            kind: max(means[trainable].items(), key=lambda item: item[1].value)
            for kind, means in by_kind.items()
            if means[trainable]
        }
        highest = [f"{kind} {key} ({cell.form(cell.value)})" for kind, (key, cell) in best.items()]
        readings.append(f"{trainable} scores highest {', '.join(highest)}")
    return (
        "Deviation from the layer's mean in percent by kernel and by expansion, and mean score by "
        f"layer: {'; '.join(readings)}."
    )
