"""The preference section: which candidates the BN indicator scores high (Eq. 3).

Everything is read off final metrics. How initial γ, decay and what trains change the ranking is
the business of `experiments.report.evidence.recipes`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from experiments.figures.preference import Preference, Spread, preference_figure
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import MOST_PICTURES, SWEEP, undrawn
from experiments.report.evidence.recipes import Family, Scored, families, recipes_section
from experiments.report.evidence.supernets import Found, finished_supernets, over_seeds
from experiments.report.evidence.units import Show, decimals
from experiments.report.evidence.values import (
    NOTHING,
    Block,
    Cell,
    MeanStd,
    Picture,
    Section,
    Table,
)
from nas.space import SearchSpace

# Kernel, expansion or layer → mean ± standard deviation over seeds.
_Means = Mapping[int, MeanStd]
_KINDS = ("kernel", "expansion", "layer")
_PLAIN = {"kernel": "plain kernel", "expansion": "plain expansion"}


def preference_section(evidence: Evidence) -> Section:
    """A picture for the longest supernets of every family, and a table of all recipes."""
    found, gaps = families(evidence, finished_supernets(evidence))
    missing = list(gaps)
    if not found:
        missing.append(f"No supernet has tracked its scores: `{SWEEP}` trains some.")
    longest: dict[str, Family] = {}
    for family in found:  # epochs ascend
        if family.reference or family.title not in longest:
            longest[family.title] = family
    newest = sorted(longest, key=lambda title: -longest[title].base_run.started_at)
    missing += undrawn("older groups of supernets", len(newest))
    blocks: list[Block] = []
    for title, family in longest.items():
        blocks += _blocks(family, draw=title in newest[:MOST_PICTURES])
    recipes = recipes_section(found)
    blocks += recipes.blocks
    missing += recipes.missing
    title = "What the indicator prefers"
    return Section("preference", title, "Eq. 3", tuple(blocks), tuple(missing))


def _blocks(family: Family, *, draw: bool) -> list[Block]:
    means = {
        recipe.trainable: _means(list(scored.values()), family.space)
        for recipe, scored in family.recipes.items()
        if recipe[1:] == family.base[1:]
    }
    where = f"{family.title}, {family.epochs} epochs"
    operations = Table(
        "preference",
        f"{where}: BN score by kernel and expansion",
        (
            "candidates with",
            *(
                f"{trainable}: {what}"
                for trainable in means
                for what in ("from the layer's mean (%)", "mean |γ|")
            ),
        ),
        tuple(row for kind in _PLAIN for row in _rows(means, (kind, _PLAIN[kind]), f"{kind} {{}}")),
        "What the supernet trains heads the columns. A candidate's score is its mean |γ|. In "
        "percent it is the difference from the mean of its layer's candidates as a share of that "
        "mean, since layers differ in scale. Both are means over candidates, and over seeds ± "
        "standard deviation.",
    )
    layers = Table(
        "preference-layers",
        f"{where}: mean |γ| of each layer's candidates",
        ("layer", *means),
        tuple(_rows(means, ("layer",), "{}")),
        "Layers differ in scale; only candidates of one layer compete.",
    )
    if not draw:
        return [operations, layers]
    picture = Picture(
        "preference",
        f"{where}: BN score by kernel, by expansion and by layer",
        _alt(means),
        preference_figure({trainable: _preference(each) for trainable, each in means.items()}),
    )
    return [picture, operations, layers]


def _means(scored: Sequence[Scored], space: SearchSpace) -> Mapping[str, _Means]:
    """Of one recipe's seeds, by what the candidates are told apart by."""
    kinds: dict[str, tuple[list[dict[int, float]], Show, str]] = {
        "layer": (
            [_layer_means(each, space) for each in scored],
            _gamma,
            "mean of the metrics score/LAYER.CANDIDATE of the layer",
        )
    }
    for field in ("kernel", "expansion"):
        with_it = f"mean over candidates with that {field}"
        shares = [_by(each, space, field, as_share=True) for each in scored]
        kinds[field] = shares, _signed, f"share of the layer's mean score, {with_it}"
        scores = [_by(each, space, field, as_share=False) for each in scored]
        kinds[_PLAIN[field]] = scores, _gamma, f"score/LAYER.CANDIDATE, {with_it}"
    return {
        kind: {
            key: mean
            for key in sorted({key for values in by_seed for key in values})
            if (mean := over_seeds(_of_key(key, by_seed, scored), show, rule))
        }
        for kind, (by_seed, show, rule) in kinds.items()
    }


def _of_key(
    key: int, by_seed: Sequence[Mapping[int, float]], scored: Sequence[Scored]
) -> list[Found]:
    return [
        Found(values[key], (each.run_id,))
        for values, each in zip(by_seed, scored, strict=True)
        if key in values
    ]


def _layer_means(scored: Scored, space: SearchSpace) -> dict[int, float]:
    return {
        layer: float(scored.scores_LN[layer, : len(space.layers[layer].candidates)].mean())
        for layer in space.searched_layers
    }


def _by(
    scored: Scored, space: SearchSpace, field: Literal["kernel", "expansion"], *, as_share: bool
) -> dict[int, float]:
    """Kernel or expansion → the mean score of its candidates.

    As a share it is how far each is from its layer's mean.
    """
    found: dict[int, list[float]] = {}
    for layer, mean in _layer_means(scored, space).items():
        if as_share and mean == 0:  # every γ of the layer has vanished
            continue
        for choice, candidate in enumerate(space.layers[layer].candidates):
            score = float(scored.scores_LN[layer, choice])
            value = score / mean - 1 if as_share else score
            found.setdefault(getattr(candidate, field), []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


_gamma = decimals(4)


_signed = Show("{:+.2f}".format, 100)  # percent


def _rows(
    means: Mapping[str, Mapping[str, _Means]], kinds: Sequence[str], name: str
) -> list[tuple[Cell, ...]]:
    """A row for each key, and in it for each trainable a cell of every kind."""
    keys = sorted({key for each in means.values() for kind in kinds for key in each[kind]})
    return [
        (
            name.format(key),
            *(each[kind].get(key, NOTHING) for each in means.values() for kind in kinds),
        )
        for key in keys
    ]


def _preference(means: Mapping[str, _Means]) -> Preference:
    return Preference(
        *(
            {
                key: Spread(each.mean.value, 0.0 if each.std is None else each.std.value)
                for key, each in means[kind].items()
            }
            for kind in _KINDS
        )
    )


def _alt(means: Mapping[str, Mapping[str, _Means]]) -> str:
    """The highest of every panel in words."""
    said = []
    for trainable, by_kind in means.items():
        best = {
            kind: max(by_kind[kind].items(), key=lambda item: item[1].mean.value, default=None)
            for kind in _KINDS
        }
        told = [
            f"{kind} {item[0]} ({item[1].mean.text}{'' if kind == 'layer' else ' %'})"
            for kind, item in best.items()
            if item is not None
        ]
        said.append(f"{trainable} scores highest {', '.join(told)}")
    return (
        "Deviation from the layer's mean by kernel and by expansion, and mean score by layer: "
        f"{'; '.join(said)}."
    )
