"""How γ's initial value, its decay and what trains change the BN indicator's ranking: recipes.csv.

    python experiments/results/fashion_mnist/recipes.py --uri sqlite:///mlflow.db > recipes.csv

A recipe is what these fields say. Of the fixed-length supernets in an MLflow experiment those are
compared that agree in all other fields, the seed included, so that whatever differs comes from the
recipe. The reference is the recipe that supernets with `trainable: bn` have most often.

τ is Kendall's, of the scores within a layer, as the mean over layers; mean ± standard deviation
over seeds. Against the reference each supernet is compared with that of the same seed; the
reference's own row compares its seeds with each other: what lies below that is a change that seeds
do not explain. With FLOPs, τ is 1 where the dearer candidate always scores higher, 0 where size
decides nothing.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from experiments.report.formats import decimals, percent
from experiments.report.run_table import Runs, texts
from experiments.report.supernet_groups import (
    EPOCHS,
    SEED,
    TRAINABLE,
    comparable,
    finished_supernets,
    in_order,
    last_scores,
    space_of,
)
from experiments.report.tables import Entry, Table, mean_std
from nas.cost import flops_table
from nas.early_bird import FloatArray
from nas.ranking import kendall_tau
from nas.space import SearchSpace

# Column of `Runs.frame` → heading.
_RECIPE = {
    f"params.{TRAINABLE}": "supernet trains",
    "params.supernet.gamma_init": "initial γ",
    "params.supernet.weight_decay": "weight decay",
    "params.supernet.decay_bn_and_bias": "on BN and biases",
}


def recipes_table(runs: Runs) -> Table:
    """A row for every recipe of supernets that have a reference; none without supernets."""
    supernets = finished_supernets(runs)
    fixed = supernets[~supernets["stops_early"]]
    but = {EPOCHS, SEED, *(column.removeprefix("params.") for column in _RECIPE)}
    rows = [
        {"supernet": title, "epochs": str(epochs), **row}
        for title, group in comparable(runs, fixed, but)
        if (space := space_of(runs, runs.by_id[group.index[0]])) is not None
        for epochs, own in group.groupby("epochs")
        for row in _rows(runs, own, space)
    ]
    title = "What initial γ, decay and trained parameters change in the ranking"
    return Table.of("recipes", title, rows)


def _rows(runs: Runs, supernets: pd.DataFrame, space: SearchSpace) -> Iterator[dict[str, Entry]]:
    """Of supernets that agree in all but recipe and seed: the reference first."""
    scores = {
        run_id: scores_LN
        for run_id in in_order(supernets, "seed").index
        if (scores_LN := last_scores(runs, run_id, space)) is not None
    }
    scored = supernets.loc[list(scores)]
    recipe = [texts(scored, column).replace("", "not given") for column in _RECIPE]
    groups = dict(iter(scored.groupby(recipe, sort=False)))
    of_bn = [key for key, group in groups.items() if key[0] == "bn"]
    if not of_bn:
        return
    reference = min(of_bn, key=lambda key: (-len(groups[key]), groups[key]["start_time"].min()))
    flops_LN = flops_table(space).table_LN
    by_seed = {
        key: {int(seed): scores[run_id] for run_id, seed in group["seed"].items()}
        for key, group in groups.items()
    }
    for key in sorted(by_seed, key=lambda key: key != reference):
        pairs = _pairs(by_seed[key], None if key == reference else by_seed[reference])
        trainable, gamma_init, weight_decay, decays = key
        yield {
            "supernet trains": f"{trainable} (reference)" if key == reference else trainable,
            "initial γ": gamma_init,
            "weight decay": weight_decay,
            "on BN and biases": {"true": "yes", "false": "no"}.get(decays, decays),
            "seeds": ", ".join(map(str, by_seed[key])),
            "τ with the reference": mean_std((_tau(*pair, space) for pair in pairs), decimals(2)),
            "same best candidate (% of layers)": mean_std(
                (_same_best(*pair, space) for pair in pairs), percent
            ),
            "τ of score and FLOPs": mean_std(
                (_tau(scores_LN, flops_LN, space) for scores_LN in by_seed[key].values()),
                decimals(2),
            ),
        }


def _pairs(
    ours: Mapping[int, FloatArray], theirs: Mapping[int, FloatArray] | None
) -> list[tuple[FloatArray, FloatArray]]:
    """Scores to compare: with those of the same seed; without any, each two of one's own."""
    if theirs is None:
        return list(itertools.combinations(ours.values(), 2))
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _layers(scores_LN: FloatArray, space: SearchSpace) -> list[FloatArray]:
    """The scores of every layer that has a choice."""
    counts = {layer: len(space.layers[layer].candidates) for layer in space.searched_layers}
    return [scores_LN[layer, :count] for layer, count in counts.items() if count > 1]


def _tau(a_LN: FloatArray, b_LN: FloatArray, space: SearchSpace) -> float:
    """Mean over the layers that have a τ; NaN without any."""
    pairs = zip(_layers(a_LN, space), _layers(b_LN, space), strict=True)
    taus = [kendall_tau(a_N, b_N) for a_N, b_N in pairs]
    return statistics.fmean([tau for tau in taus if not math.isnan(tau)] or [math.nan])


def _same_best(a_LN: FloatArray, b_LN: FloatArray, space: SearchSpace) -> float:
    """The share of layers whose best candidate is the same; NaN without a layer with a choice."""
    pairs = zip(_layers(a_LN, space), _layers(b_LN, space), strict=True)
    same = [float(np.argmax(a_N) == np.argmax(b_N)) for a_N, b_N in pairs]
    return statistics.fmean(same or [math.nan])


def main() -> None:
    """Write the table to standard output, as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uri", required=True, help="of the MLflow server or database")
    parser.add_argument("--experiment", default="bnnas", help="name of the MLflow experiment")
    options = parser.parse_args()
    sys.stdout.write(recipes_table(Runs.read(options.uri, options.experiment)).csv())


if __name__ == "__main__":
    main()
