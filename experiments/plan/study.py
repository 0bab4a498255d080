"""From a config to a correlation study: its architectures, and the stages that measure them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.config.cell import Config
from experiments.config.study import Correlation
from experiments.plan.budgets import budgets
from experiments.plan.cell import CellPlan, plan_cell
from nas.data import ImageSpec
from nas.indicators import INDICATORS
from nas.search import draw_stratified
from nas.space import Architecture
from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.store.stage import Stage

_DRAW_STREAM = 2  # apart from the searchers and the random baseline, which the same seed starts


@dataclass(frozen=True)
class CorrelationPlan:
    """What a study has to make.

    Attributes:
        config: of the first seed.
        cells: one for every seed, each with its supernet.
        archs: the same for all seeds, cheap ones first.
    """

    config: Config
    cells: tuple[CellPlan, ...]
    archs: tuple[Architecture, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of supernets and retrainings."""
        return tuple(cell.config.seed for cell in self.cells)

    def scores(self, cell: CellPlan) -> tuple[Stage, ...]:
        """The score stages of a seed: of the indicators that are no sum over layers."""
        names = self.config.correlate.indicators
        return tuple(
            cell.score(name, self.archs) for name in names if not INDICATORS[name].additive
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of them."""
        found = []
        for cell in self.cells:
            found += [] if cell.supernet is None else [cell.supernet]
            found += self.scores(cell)
            found += [cell.retrain(arch) for arch in self.archs]
        return tuple(found)

    @property
    def group(self) -> str:
        """What the study's MLflow run is found by."""
        stages: list[JSON] = [*sorted(stage.fingerprint for stage in self.stages)]
        key: dict[str, JSON] = {"name": self.config.name, "stages": stages}
        return fingerprint("correlate", key, code_version=1)


def plan_correlation(settings: Correlation, images: ImageSpec) -> CorrelationPlan:
    """Work out the architectures and the stages of a study.

    Raises ValueError where the space or the budgets cannot be, or hold too few architectures.
    """
    first = settings.shared
    needs_supernet = any(INDICATORS[name].needs_supernet for name in first.correlate.indicators)
    indicator = "bn" if needs_supernet else "flops"
    cells = []
    for config in settings.cells:
        search = config.search.model_copy(update={"indicator": indicator, "searcher": "exact"})
        baseline = config.random_baseline.model_copy(update={"num_architectures": 0})
        changes = {"search": search, "random_baseline": baseline, "detect": None}
        cells.append(plan_cell(config.model_copy(update=changes), images))
    space = cells[0].space
    correlate = first.correlate
    archs = draw_stratified(
        space,
        budgets(first.search.model_dump(mode="json"), space),
        np.random.default_rng((first.seed, _DRAW_STREAM)),
        correlate.num_architectures,
        num_strata=correlate.num_strata,
    )
    if len(archs) < correlate.num_architectures:
        raise ValueError(
            f"correlate.num_architectures is {correlate.num_architectures}, but only {len(archs)} "
            "could be found under the budgets of the search section: ask for fewer, or widen them."
        )
    return CorrelationPlan(first, tuple(cells), archs)
