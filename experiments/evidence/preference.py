"""The preference section: which candidates the BN indicator scores high (Eq. 3).

Everything is read off final metrics. How initial γ, decay and what trains change the ranking is
the business of `experiments.evidence.recipes`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from experiments.evidence.evidence import Evidence
from experiments.evidence.recipes import Family, Scored, families, recipes_section
from experiments.evidence.supernets import finished_supernets, over_seeds, unfinished_supernets
from experiments.evidence.values import (
    Block,
    Cell,
    MeanStd,
    Picture,
    Section,
    Show,
    Table,
    decimals,
)
from experiments.report.preference import Preference, Spread, preference_figure
from nas.space import SearchSpace

# Kernel, expansion or layer → mean ± standard deviation over seeds.
_Means = Mapping[int, MeanStd]
_KINDS = ("kernel", "expansion", "layer")


def preference_section(evidence: Evidence) -> Section:
    """A picture for the longest supernets of every family, and a table of all recipes."""
    found, gaps = families(evidence, finished_supernets(evidence))
    missing = [*unfinished_supernets(evidence), *gaps]
    if not found:
        missing.append("No supernet has tracked its scores: `bnnas sweep CONFIG` trains some.")
    longest: dict[str, Family] = {}
    for family in found:  # epochs ascend
        if family.reference or family.title not in longest:
            longest[family.title] = family
    blocks: list[Block] = []
    for number, family in enumerate(longest.values(), start=1):
        blocks += _blocks(family, "" if number == 1 else f"-{number}")
    recipes = recipes_section(found)
    blocks += recipes.blocks
    missing += recipes.missing
    title = "What the indicator prefers"
    return Section("preference", title, "Eq. 3", tuple(blocks), tuple(missing))


def _blocks(family: Family, suffix: str) -> list[Block]:
    means = {
        recipe.trainable: _means(list(scored.values()), family.space)
        for recipe, scored in family.recipes.items()
        if recipe[1:] == family.base[1:]
    }
    where = f"{family.title}, {family.epochs} epochs"
    operations = Table(
        f"preference{suffix}",
        f"{where}: BN score by kernel and expansion, in percent from the layer's mean",
        ("candidates with", *means),
        tuple(
            row for kind in ("kernel", "expansion") for row in _rows(means, kind, f"{kind} {{}}")
        ),
        "Of every candidate the difference from the mean of its layer's candidates as a share of "
        "that mean, then the mean over candidates; mean ± standard deviation over seeds.",
    )
    layers = Table(
        f"preference-layers{suffix}",
        f"{where}: mean BN score of each layer's candidates",
        ("layer", *means),
        tuple(_rows(means, "layer", "{}")),
        "Layers differ in scale; only candidates of one layer compete.",
    )
    picture = Picture(
        f"preference{suffix}",
        f"{where}: BN score by kernel, by expansion and by layer",
        _alt(means),
        preference_figure({trainable: _preference(each) for trainable, each in means.items()}),
    )
    return [picture, operations, layers]


def _means(scored: Sequence[Scored], space: SearchSpace) -> Mapping[str, _Means]:
    """Of one recipe's seeds, by what the candidates are told apart by."""
    runs = ", ".join(each.run_id for each in scored)
    kinds: dict[str, tuple[list[dict[int, float]], Show, str]] = {
        "kernel": (
            [_deviations(each, space, "kernel") for each in scored],
            _signed,
            f"share of the layer's mean score, mean over candidates with that kernel, of {runs}",
        ),
        "expansion": (
            [_deviations(each, space, "expansion") for each in scored],
            _signed,
            f"share of the layer's mean score, mean over candidates with that expansion, of {runs}",
        ),
        "layer": (
            [_layer_means(each, space) for each in scored],
            decimals(3),
            f"mean of the metrics score/LAYER.CANDIDATE of {runs}",
        ),
    }
    return {
        kind: {
            key: mean
            for key in sorted({key for values in by_seed for key in values})
            if (mean := over_seeds([each[key] for each in by_seed if key in each], show, rule))
        }
        for kind, (by_seed, show, rule) in kinds.items()
    }


def _layer_means(scored: Scored, space: SearchSpace) -> dict[int, float]:
    return {
        layer: float(scored.scores_LN[layer, : len(space.layers[layer].candidates)].mean())
        for layer in space.searched_layers
    }


def _deviations(
    scored: Scored, space: SearchSpace, field: Literal["kernel", "expansion"]
) -> dict[int, float]:
    """Kernel or expansion → mean share by which its candidates differ from their layers' means."""
    found: dict[int, list[float]] = {}
    for layer, mean in _layer_means(scored, space).items():
        if mean == 0:  # every γ of the layer has vanished
            continue
        for choice, candidate in enumerate(space.layers[layer].candidates):
            share = float(scored.scores_LN[layer, choice]) / mean - 1
            found.setdefault(getattr(candidate, field), []).append(share)
    return {key: statistics.fmean(shares) for key, shares in found.items()}


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def _rows(
    means: Mapping[str, Mapping[str, _Means]], kind: str, name: str
) -> list[tuple[Cell, ...]]:
    keys = sorted({key for each in means.values() for key in each[kind]})
    return [
        (name.format(key), *(each[kind].get(key, "–") for each in means.values())) for key in keys
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
            kind: max(found.items(), key=lambda item: item[1].mean.value, default=None)
            for kind, found in by_kind.items()
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
