"""From a sweep to its cells, its random baseline, and the stages that they share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from experiments.config.sweep import Sweep
from experiments.plan.cell import CellPlan, plan_cell
from nas.data import ImageSpec
from nas.space import Architecture
from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.store.stage import Stage


@dataclass(frozen=True)
class RandomPlan:
    """One random architecture of the baseline, to be retrained.

    Attributes:
        cell: any cell of the same seed; all of them retrain in the same way.
        arch: the architecture.
    """

    cell: CellPlan
    arch: Architecture

    @property
    def stage(self) -> Stage:
        """Its retraining."""
        return self.cell.retrain(self.arch)


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep has to make.

    Attributes:
        sweep: what was asked for.
        cells: in the order in which they start.
        baseline: the random architectures, for every seed.
    """

    sweep: Sweep
    cells: tuple[CellPlan, ...]
    baseline: tuple[RandomPlan, ...]

    @property
    def known(self) -> tuple[Stage, ...]:
        """The stages that are known before any search, each once."""
        stages = [stage for cell in self.cells for stage in cell.until_search]
        stages += [random.stage for random in self.baseline]
        return tuple({stage.fingerprint: stage for stage in stages}.values())

    @property
    def sharing(self) -> int:
        """How many cells wait for one and the same supernet, at most."""
        shared = Counter(cell.supernet.fingerprint for cell in self.cells if cell.supernet)
        return max(shared.values(), default=1)

    @property
    def group(self) -> str:
        """What the sweep's MLflow run is found by: its name and what decides its results."""
        stages: list[JSON] = [*sorted(stage.fingerprint for stage in self.known)]
        retrain = self.sweep.shared.retrain.model_dump(mode="json")
        key: dict[str, JSON] = {"name": self.sweep.name, "stages": stages, "retrain": retrain}
        return fingerprint("sweep", key, code_version=1)


def plan_sweep(sweep: Sweep, images: ImageSpec) -> SweepPlan:
    """Work out the cells and the baseline of a sweep.

    Raises ValueError where a cell cannot be, or where two cells are the same.
    """
    cells = tuple(plan_cell(config, images) for config in sweep.cells)
    first: dict[str, CellPlan] = {}
    for cell in cells:
        same = first.setdefault(cell.search.fingerprint, cell)
        if same is not cell:
            raise ValueError(
                f"grid: the cells {same.config.name} and {cell.config.name} are the same, because "
                f"the indicator {cell.config.search.indicator!r} reads no supernet: give it a "
                "sweep of its own, with one value of trainable and of epochs."
            )
    of_seed = {cell.config.seed: cell for cell in cells}
    baseline = [RandomPlan(cell, arch) for cell in of_seed.values() for arch in cell.baseline_archs]
    return SweepPlan(sweep, cells, tuple(baseline))
