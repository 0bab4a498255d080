"""Which candidates the BN indicator scores high (Eq. 3), of the last epoch of supernets.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import pandas as pd

from experiments.figures.numbers import Mean
from experiments.figures.preference import Means, preference_figure
from experiments.report.formats import Format, decimals
from experiments.report.run_table import Runs
from experiments.report.supernet_groups import (
    comparable,
    drawn_since,
    finished_supernets,
    last_scores,
    space_of,
)
from experiments.report.tables import (
    NOTHING,
    Block,
    Entry,
    Number,
    Picture,
    Section,
    Table,
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


def preference_section(runs: Runs) -> Section:
    """Of each group of comparable supernets those that train longest."""
    supernets = finished_supernets(runs)
    groups = comparable(runs, supernets[~supernets["stops_early"]])
    blocks: list[Block] = []
    for title, group in groups:
        draw = group["start_time"].max() >= drawn_since([each for _, each in groups])
        blocks += _blocks(title, _candidates(runs, group), draw=draw)
    missing = "" if blocks else _MISSING
    return Section("preference", "What the indicator prefers", "Eq. 3", tuple(blocks), missing)


def _blocks(title: str, candidates: pd.DataFrame, *, draw: bool) -> list[Block]:
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
    layers = _over_seeds(longest, "layer", "layer_mean", _gamma)
    where = f"{title}, {epochs} epochs"
    panels = {kind: _means(found) for kind, found in {**shares, "layer": layers}.items()}
    picture = Picture(
        "preference",
        f"{where}: BN score by kernel, by expansion and by layer",
        _alt(panels),
        lambda: preference_figure(**panels),
    )
    operations = []
    for kind, found in scores.items():
        for key, of_each in found.iterrows():
            row: dict[str, Entry] = {"candidates with": f"{kind} {key}"}
            for trainable, score in of_each.items():
                share = shares[kind][trainable].get(key, NOTHING)
                row[f"{trainable}: from the layer's mean (%)"] = share
                row[f"{trainable}: mean |γ|"] = score
            operations.append(row)
    rows = [{"layer": str(key), **of_each} for key, of_each in layers.iterrows()]
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
    for run_id, supernet in group.iterrows():
        scores_LN = None if space is None else last_scores(runs, run_id, space)
        if space is None or scores_LN is None:
            continue
        for layer in space.searched_layers:
            candidates = space.layers[layer].candidates
            scores_N = scores_LN[layer, : len(candidates)]
            mean = float(scores_N.mean())
            of_all = {"run_id": run_id, "layer": layer, "layer_mean": mean}
            of_all |= supernet[["trainable", "epochs"]]
            rows += [
                {
                    **of_all,
                    "kernel": candidate.kernel,
                    "expansion": candidate.expansion,
                    "score": score,
                    "share": score / mean - 1 if mean else None,
                }
                for candidate, score in zip(candidates, scores_N.tolist(), strict=True)
            ]
    return pd.DataFrame(rows)


def _over_seeds(candidates: pd.DataFrame, kind: str, column: str, form: Format) -> pd.DataFrame:
    """Of each seed the mean over candidates, and of these mean and standard deviation.

    A row for each value of `kind`, a column for each trainable.
    """
    known = candidates.dropna(subset=column)
    by_seed = known.groupby([kind, "trainable", "run_id"])[column].agg(statistics.fmean)
    entries = by_seed.groupby(level=[0, 1]).agg(lambda values: mean_std(values, form)).unstack()
    entries = entries.reindex(columns=candidates["trainable"].unique())
    return entries.where(entries.notna(), NOTHING)


def _means(entries: pd.DataFrame) -> dict[str, dict[int, Mean]]:
    """What there is of a panel."""
    return {
        trainable: {key: each.mean for key, each in of.items() if isinstance(each, Number)}
        for trainable, of in entries.items()
    }


def _alt(panels: Mapping[str, Means]) -> str:
    """The highest of every panel in words."""
    readings = []
    for trainable in panels["layer"]:
        highest = []
        for kind, means in panels.items():
            if found := means[trainable]:
                key = max(found, key=lambda key: found[key].value)
                form = _gamma if kind == "layer" else _signed
                highest.append(f"{kind} {key} ({form(found[key].value)})")
        readings.append(f"{trainable} scores highest {', '.join(highest)}")
    return (
        "Deviation from the layer's mean in percent by kernel and by expansion, and mean score by "
        f"layer: {'; '.join(readings)}."
    )
