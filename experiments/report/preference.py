"""Which candidates the BN indicator scores high (Eq. 3).

Everything is read off final metrics.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import pandas as pd

from experiments.figures.preference import Preference, Spread, preference_figure
from experiments.report.runs import Runs
from experiments.report.supernets import (
    EPOCHS,
    SEED,
    TRAINABLE,
    comparable,
    finished_supernets,
    scores_of,
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
from nas.early_bird import FloatArray
from nas.space import SearchSpace

_MISSING = "`bnnas run experiments/configs/quickstart.yaml` trains a supernet with BN scores."
_NOTE = (
    "What the supernet trains heads the columns. A candidate's score is its mean |γ|. In percent "
    "it is the difference from the mean of its layer's candidates as a share of that mean, since "
    "layers differ in scale. Both are means over candidates, and over seeds ± standard deviation."
)
_gamma = decimals(4)
_signed = Format("{:+.2f}".format, 100)  # percent

# Kernel, expansion or layer → mean over seeds.
_Means: TypeAlias = Mapping[int, Number]


def preference_section(runs: Runs) -> Section:
    """Of each group of comparable supernets those that train longest."""
    supernets = finished_supernets(runs)
    groups = comparable(runs, supernets[~supernets["stops_early"]], {TRAINABLE, EPOCHS, SEED})
    starts = sorted((group["start_time"].max() for _, group in groups), reverse=True)
    blocks: list[Block] = []
    for title, group in groups:
        drawn = group["start_time"].max() in starts[:MOST_PICTURES]
        blocks += _blocks(runs, title, group, draw=drawn)
    return Section(
        "preference",
        "What the indicator prefers",
        "Eq. 3",
        tuple(blocks),
        "" if blocks else _MISSING,
    )


def _blocks(runs: Runs, title: str, group: pd.DataFrame, *, draw: bool) -> list[Block]:
    """The longest supernets of a group that have all their scores."""
    space = space_of(runs, runs.by_id[group.index[0]])
    if space is None:
        return []
    scores = {run_id: scores_of(runs.by_id[run_id].metrics, space) for run_id in group.index}
    scored = group[[scores[run_id] is not None for run_id in group.index]]
    # The longest that train BN, where some do: the indicator was made for these.
    epochs = (scored[scored["trainable"] == "bn"] if "bn" in set(scored["trainable"]) else scored)[
        "epochs"
    ].max()
    means = {
        str(trainable): _means([s for i in own.index if (s := scores[i]) is not None], space)
        for trainable, own in scored[scored["epochs"] == epochs].groupby("trainable", sort=False)
    }
    if not means:
        return []
    where = f"{title}, {epochs} epochs"
    picture = Picture(
        "preference",
        f"{where}: BN score by kernel, by expansion and by layer",
        _alt(means),
        lambda: preference_figure({name: _preference(each) for name, each in means.items()}),
    )
    operations = []
    for kind in ("kernel", "expansion"):
        for key in _keys(means, kind):
            row: dict[str, Cell] = {"candidates with": f"{kind} {key}"}
            for trainable, each in means.items():
                share = each[kind].get(key, NOTHING)
                row[f"{trainable}: from the layer's mean (%)"] = share
                row[f"{trainable}: mean |γ|"] = each[f"plain {kind}"].get(key, NOTHING)
            operations.append(row)
    layers = (
        {
            "layer": str(key),
            **{name: each["layer"].get(key, NOTHING) for name, each in means.items()},
        }
        for key in _keys(means, "layer")
    )
    return [
        *([picture] if draw else []),
        Table.of("preference", f"{where}: BN score by kernel and expansion", operations, _NOTE),
        Table.of(
            "preference-layers",
            f"{where}: mean |γ| of each layer's candidates",
            layers,
            "Layers differ in scale; only candidates of one layer compete.",
            folded=True,
        ),
    ]


def _keys(means: Mapping[str, Mapping[str, _Means]], kind: str) -> list[int]:
    return sorted({key for each in means.values() for key in each[kind]})


def _means(scores: Sequence[FloatArray], space: SearchSpace) -> Mapping[str, _Means]:
    """Of one trainable's seeds, by what the candidates are told apart by."""
    layers = [_layer_means(scores_LN, space) for scores_LN in scores]
    found = {"layer": _over_seeds(layers, _gamma)}
    for field in ("kernel", "expansion"):
        shares = [_by(scores_LN, space, field, as_share=True) for scores_LN in scores]
        plain = [_by(scores_LN, space, field, as_share=False) for scores_LN in scores]
        found[field] = _over_seeds(shares, _signed)
        found[f"plain {field}"] = _over_seeds(plain, _gamma)
    return found


def _over_seeds(by_seed: Sequence[Mapping[int, float]], form: Format) -> _Means:
    found = {
        key: mean_std([values[key] for values in by_seed if key in values], form)
        for key in sorted({key for values in by_seed for key in values})
    }
    return {key: cell for key, cell in found.items() if isinstance(cell, Number)}


def _layer_means(scores_LN: FloatArray, space: SearchSpace) -> dict[int, float]:
    return {
        layer: float(scores_LN[layer, : len(space.layers[layer].candidates)].mean())
        for layer in space.searched_layers
    }


def _by(
    scores_LN: FloatArray,
    space: SearchSpace,
    field: Literal["kernel", "expansion"],
    *,
    as_share: bool,
) -> dict[int, float]:
    """Kernel or expansion → the mean score of its candidates.

    As a share it is how far each is from its layer's mean.
    """
    found: dict[int, list[float]] = {}
    for layer, mean in _layer_means(scores_LN, space).items():
        if as_share and mean == 0:  # every γ of the layer has vanished
            continue
        for choice, candidate in enumerate(space.layers[layer].candidates):
            score = float(scores_LN[layer, choice])
            value = score / mean - 1 if as_share else score
            found.setdefault(getattr(candidate, field), []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


def _preference(means: Mapping[str, _Means]) -> Preference:
    return Preference(
        *(
            {key: Spread(cell.value, cell.spread) for key, cell in means[kind].items()}
            for kind in ("kernel", "expansion", "layer")
        )
    )


def _alt(means: Mapping[str, Mapping[str, _Means]]) -> str:
    """The highest of every panel in words."""
    said = []
    for trainable, by_kind in means.items():
        best = {
            kind: max(by_kind[kind].items(), key=lambda item: item[1].value)
            for kind in ("kernel", "expansion", "layer")
            if by_kind[kind]
        }
        highest = [f"{kind} {key} ({cell.form(cell.value)})" for kind, (key, cell) in best.items()]
        said.append(f"{trainable} scores highest {', '.join(highest)}")
    return (
        "Deviation from the layer's mean in percent by kernel and by expansion, and mean score by "
        f"layer: {'; '.join(said)}."
    )
