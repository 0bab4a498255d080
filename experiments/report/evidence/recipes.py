"""How γ's initial value, its decay and what trains change the BN indicator's ranking.

A recipe is what these fields say. Supernets are compared that agree in all others, the seed
included, so that whatever differs comes from the recipe.

Shape legend: L layers, N candidate operations.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.gaps import again, as_sweep
from experiments.report.evidence.supernets import (
    EPOCHS,
    SEED,
    TRAINABLE,
    Found,
    Supernet,
    grouped,
    over_seeds,
    scores_of,
    space_of,
    titles,
)
from experiments.report.evidence.units import decimals, percent
from experiments.report.evidence.values import NOTHING, Cell, Section, Table
from nas.cost import flops_table
from nas.early_bird import FloatArray
from nas.ranking import kendall_tau
from nas.space import SearchSpace
from orchestration.tracking.reader import TrackedRun

_GAMMA, _DECAYS = "supernet.gamma_init", "supernet.decay_bn_and_bias"
_WEIGHT_DECAY = "supernet.weight_decay"
_COLUMNS = (
    "supernet",
    "epochs",
    "supernet trains",
    "initial γ",
    "weight decay",
    "on BN and biases",
    "seeds",
    "τ with the reference",
    "same best candidate (% of layers)",
    "τ of score and FLOPs",
)
_ALL_TRAINABLES = ("grid.trainable=[all,bn,last_bn]", "name=trainables")
_NOTE = (
    "τ is Kendall's, of the scores within a layer, as the mean over layers; mean ± standard "
    "deviation over seeds. Against the reference each supernet is compared with that of the same "
    "seed; the reference's own row compares its seeds with each other: what lies below that is a "
    "change that seeds do not explain. With FLOPs: 1 where the dearer candidate always scores "
    "higher, 0 where size decides nothing."
)


class Recipe(NamedTuple):
    """Params of a supernet, as they stand in its run."""

    trainable: str
    gamma_init: str
    weight_decay: str
    decays: str


@dataclass(frozen=True)
class Scored:
    """A supernet with its final scores."""

    supernet: Supernet
    scores_LN: FloatArray

    @property
    def run_id(self) -> str:
        return self.supernet.run.run_id


@dataclass(frozen=True)
class Family:
    """Supernets that agree in all but recipe and seed.

    Attributes:
        title: space, data and whatever else sets it apart.
        epochs: of training.
        space: of them all.
        recipes: sorted by trainable; of each recipe one supernet a seed.
    """

    title: str
    epochs: int
    space: SearchSpace
    recipes: Mapping[Recipe, Mapping[int, Scored]]

    @cached_property
    def reference(self) -> Recipe | None:
        """What `bn` is trained with most often; of equals, what came first."""
        return self._most_common([each for each in self.recipes if each.trainable == "bn"])

    @cached_property
    def base(self) -> Recipe:
        """The reference; without one the most common recipe."""
        found = self.reference or self._most_common(list(self.recipes))
        assert found is not None, "a family has a recipe"
        return found

    @property
    def base_run(self) -> TrackedRun:
        """Of the supernets of that recipe the newest."""
        runs = [each.supernet.run for each in self.recipes[self.base].values()]
        return max(runs, key=lambda run: run.started_at)

    def _most_common(self, recipes: Sequence[Recipe]) -> Recipe | None:
        def order(recipe: Recipe) -> tuple[int, float]:
            scored = self.recipes[recipe].values()
            return -len(scored), min(each.supernet.run.started_at for each in scored)

        return min(recipes, key=order, default=None)


def families(
    evidence: Evidence, supernets: Sequence[Supernet]
) -> tuple[tuple[Family, ...], tuple[str, ...]]:
    """The families of fixed-length supernets, and what could not be read.

    Those of one title follow each other by epochs.
    """
    found, gaps = [], []
    fixed = [supernet for supernet in supernets if not supernet.has_early_bird]
    groups = grouped(fixed, but={TRAINABLE, _GAMMA, _DECAYS, _WEIGHT_DECAY, EPOCHS, SEED})
    for group, title in zip(groups, titles(evidence, groups), strict=True):
        space = space_of(evidence, group.supernets[0])
        by_epochs: dict[int, dict[Recipe, dict[int, Scored]]] = {}
        unread = []
        for each in group.supernets:
            scores_LN = None if space is None else scores_of(each.run.metrics, space)
            if scores_LN is None:
                unread.append(each.run)
                continue
            recipes = by_epochs.setdefault(each.epochs, {})
            recipes.setdefault(_recipe(each), {})[each.seed] = Scored(each, scores_LN)
        if unread:
            names = ", ".join(dict.fromkeys(run.name for run in unread))
            gaps.append(
                f"{title}: {names} tracked no whole table of finite scores; "
                f"{again(unread[0], 'name=lower_lr')} with a lower supernet.lr does."
            )
        if space is not None:
            found += [
                Family(title, epochs, space, by_epochs[epochs]) for epochs in sorted(by_epochs)
            ]
    return tuple(found), tuple(gaps)


def recipes_section(found: Sequence[Family]) -> Section:
    """As if it were a section of its own: a row for every recipe of a family with a reference."""
    rows: list[tuple[Cell, ...]] = []
    gaps = []
    for family in found:
        reference = family.reference
        where = f"{family.title}, {family.epochs} epochs"
        if reference is None:
            command = as_sweep(family.base_run, *_ALL_TRAINABLES)
            gaps.append(
                f"{where}: no supernet trains bn, hence no reference for recipes; {command} trains "
                "it."
            )
            continue
        for recipe in sorted(family.recipes, key=lambda recipe: recipe != reference):
            rows.append(_row(family, recipe))
            if not set(family.recipes[recipe]) & set(family.recipes[reference]):
                gaps.append(
                    f"{where}: a supernet that trains {recipe.trainable} shares no seed with the "
                    "reference; the command that made it, with the reference's seeds, compares "
                    "them."
                )
    for title in dict.fromkeys(family.title for family in found):
        gaps += _unvaried([each for each in found if each.title == title and each.reference])
    if not rows:
        return Section("", "", "", (), tuple(gaps))
    title = "What initial γ, decay and trained parameters change in the ranking"
    return Section(
        "", "", "", (Table("recipes", title, _COLUMNS, tuple(rows), _NOTE),), tuple(gaps)
    )


def _recipe(supernet: Supernet) -> Recipe:
    params = supernet.run.params
    told = (params.get(key, "not given") for key in (_GAMMA, _WEIGHT_DECAY, _DECAYS))
    return Recipe(supernet.trainable, *told)


def _differences(recipe: Recipe, reference: Recipe) -> set[str]:
    """What one recipe differs in: a field, and of trainables which one."""
    fields = {
        field
        for field, ours, theirs in zip(Recipe._fields, recipe, reference, strict=True)
        if ours != theirs
    }
    return fields | ({recipe.trainable} if "trainable" in fields else set())


def _unvaried(families: Sequence[Family]) -> list[str]:
    """What no supernet beside a reference varies, and how to have it.

    Args:
        families: of one title, with a reference each.
    """
    if not families:
        return []
    longest = families[-1]  # epochs ascend
    title, reference = longest.title, longest.base
    varied = {
        difference
        for family in families
        for recipe in family.recipes
        for difference in _differences(recipe, family.base)
    }
    gaps = []
    if "gamma_init" not in varied:
        other = "0.2" if reference.gamma_init == "1.0" else "1"
        settings = f"{_GAMMA}={other}", f"name=gamma_init_{other}"
        gaps.append(
            f"{title}: no supernet beside the reference has another initial γ than "
            f"{reference.gamma_init}; {again(longest.base_run, *settings)} trains some."
        )
    if "decays" not in varied:
        if reference.decays == "true":
            what, settings = "spares", (f"{_DECAYS}=false", "name=spare_bn")
        else:
            what, settings = "decays", (f"{_DECAYS}=true", "name=decay_bn")
        gaps.append(
            f"{title}: no supernet beside the reference {what} BN and biases; "
            f"{again(longest.base_run, *settings)} trains some."
        )
    untrained = [trainable for trainable in ("all", "last_bn") if trainable not in varied]
    if untrained:
        gaps.append(
            f"{title}: no supernet beside the reference trains {' or '.join(untrained)}; "
            f"{as_sweep(longest.base_run, *_ALL_TRAINABLES)} trains them."
        )
    return gaps


def _row(family: Family, recipe: Recipe) -> tuple[Cell, ...]:
    mine = family.recipes[recipe]
    if recipe == family.reference:
        pairs = list(itertools.combinations(mine.values(), 2))
        trainable, against = f"{recipe.trainable} (reference)", "each two of its seeds"
    else:
        theirs = family.recipes[family.base]
        pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
        trainable, against = recipe.trainable, "with the reference of the same seed"
    flops_LN = flops_table(family.space).table_LN
    taus, shares = (
        [
            Found(compare(one.scores_LN, other.scores_LN, family.space), (one.run_id, other.run_id))
            for one, other in pairs
        ]
        for compare in (_tau, _same_best)
    )
    sizes = [
        Found(_tau(each.scores_LN, flops_LN, family.space), (each.run_id,))
        for each in mine.values()
    ]
    within = "Kendall's τ-b of the scores within a layer, mean over layers"
    return (
        family.title,
        str(family.epochs),
        trainable,
        recipe.gamma_init,
        recipe.weight_decay,
        {"true": "yes", "false": "no"}.get(recipe.decays, recipe.decays),
        ", ".join(map(str, mine)),
        over_seeds(taus, decimals(2), f"{within}: {against}") or NOTHING,
        over_seeds(shares, percent, f"layers whose best candidate is the same: {against}")
        or NOTHING,
        over_seeds(sizes, decimals(2), f"{within}, with the candidates' FLOPs") or NOTHING,
    )


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
    pairs = zip(_layers(a_LN, space), _layers(b_LN, space), strict=True)
    same = [float(np.argmax(a_N) == np.argmax(b_N)) for a_N, b_N in pairs]
    return statistics.fmean(same or [math.nan])
