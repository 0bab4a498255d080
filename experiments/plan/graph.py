"""The stages of an experiment, each once, with the cells that need it: a dry run.

What `bnnas plan` prices and what `bnnas status` looks up. Nothing here connects to a cluster, and
nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.plan.budgets import budgets
from experiments.plan.cell import CellPlan, finished_chain, validation_top1
from experiments.plan.detection import DetectionPlan
from experiments.plan.study import CorrelationPlan
from experiments.plan.sweep import RandomPlan, SweepPlan
from nas.search import draw_legal
from nas.space import Architecture, parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

# Where cells are named, these stand for the random architectures, and a sweep's detector.
BASELINE, DETECTION = "random", "detection"


@dataclass(frozen=True)
class ListedStage:
    """One stage, and who needs it.

    Attributes:
        stage: what is to be made; for an architecture that is not found yet, that of some legal
            one, which takes about as long.
        is_known: False for the retraining, or the detector, of such an architecture.
        record: its result, where it is in the store.
        cells: the names of the cells that need it; `BASELINE` for the random architectures.
        plan: the first of these cells.
    """

    stage: Stage
    is_known: bool
    record: StageRecord | None
    cells: tuple[str, ...]
    plan: CellPlan | DetectionPlan

    @property
    def fingerprint(self) -> str | None:
        """The stage's; None where it is not known yet."""
        return self.stage.fingerprint if self.is_known else None

    @property
    def name(self) -> str:
        """What people call it."""
        if self.is_known:
            return self.stage.name
        finder = "the best cell" if self.cells == (DETECTION,) else self.cells[0]
        return f"{self.stage.kind} what {finder} finds"


@dataclass(frozen=True)
class StageList:
    """All stages of an experiment.

    Attributes:
        name: the experiment's.
        cells: the names of its cells in their order, and `BASELINE` where there is one; those of a
            correlation study are its seeds.
        stages: supernets, scores, searches, retrainings, the detector; where the architecture is
            not known yet, one for each cell, so that there are at most so many: equal ones are
            retrained once.
    """

    name: str
    cells: tuple[str, ...]
    stages: tuple[ListedStage, ...]

    def who_needs(self, one: ListedStage) -> str:
        """The cells of a stage, a line each; of more than three, how many."""
        is_shared = len(one.cells) > 3
        return f"{len(one.cells)} of {len(self.cells)}" if is_shared else "\n".join(one.cells)


AnyPlan = CellPlan | SweepPlan | CorrelationPlan | DetectionPlan


def list_stages(plan: AnyPlan, store: StageStore) -> StageList:
    """The stages of a plan; what is in the store says which architectures are known."""
    if isinstance(plan, DetectionPlan):
        return StageList(plan.config.name, (plan.config.name,), tuple(_detector(plan, store)))
    if isinstance(plan, CorrelationPlan):
        return _study(plan, store)
    if isinstance(plan, SweepPlan):
        name, cells, baseline = plan.sweep.name, plan.cells, plan.baseline
    else:
        name, cells = plan.config.name, (plan,)
        baseline = tuple(RandomPlan(plan, arch) for arch in plan.baseline_archs)
    listed = [stage for cell in cells for stage in _chain(cell, store)]
    for random in baseline:
        record = store.get(random.stage.fingerprint)
        listed.append(ListedStage(random.stage, True, record, (BASELINE,), random.cell))
    listed += _detection(plan, store)
    names = [cell.config.name for cell in cells]
    names += [BASELINE] if baseline else []
    names += [DETECTION] if any(one.cells == (DETECTION,) for one in listed) else []
    return StageList(name, tuple(names), tuple(_each_once(listed)))


def some_architecture(plan: CellPlan) -> Architecture:
    """A legal architecture, to stand for those that are not found yet."""
    search = plan.config.search.model_dump(mode="json")
    rng = np.random.default_rng(plan.config.seed)
    return draw_legal(plan.space, budgets(search, plan.space), rng, 1)[0]


def _detector(plan: DetectionPlan, store: StageStore) -> Iterator[ListedStage]:
    """The stages of a detector: pretraining, where it is asked for, and training."""
    names = (plan.config.name,)
    pretraining = plan.checkpoint
    if plan.retrain is not None:
        pretraining = store.get(plan.retrain.fingerprint)
        yield ListedStage(plan.retrain, True, pretraining, names, plan)
    inputs = [] if pretraining is None else [pretraining]
    yield ListedStage(plan.stage, True, _stored(plan.stage, inputs, store), names, plan)


def _study(plan: CorrelationPlan, store: StageStore) -> StageList:
    """The supernets and scores of a correlation study, and all its retrainings."""
    listed = []
    for cell in plan.cells:
        names = (f"seed {cell.config.seed}",)
        read: list[StageRecord] = []
        if cell.supernet is not None:
            record = _stored(cell.supernet, [], store)
            listed.append(ListedStage(cell.supernet, True, record, names, cell))
            read += [] if record is None else [record]
        for stage in plan.scores(cell):
            listed.append(ListedStage(stage, True, _stored(stage, read, store), names, cell))
        for arch in plan.archs:
            stage = cell.retrain(arch)
            listed.append(ListedStage(stage, True, store.get(stage.fingerprint), names, cell))
    seeds = tuple(f"seed {seed}" for seed in plan.seeds)
    return StageList(plan.config.name, seeds, tuple(_each_once(listed)))


def _chain(cell: CellPlan, store: StageStore) -> list[ListedStage]:
    """Supernet, search and retraining of one cell."""
    cells = (cell.config.name,)
    listed = []
    read: dict[str, StageRecord] = {}
    for stage in cell.until_search:
        # Without its inputs it is made anew, whatever the store has.
        is_readable = read.keys() == stage.inputs.keys()
        record = store.current(stage.fingerprint, read) if is_readable else None
        listed.append(ListedStage(stage, True, record, cells, cell))
        if record is not None:
            read[stage.kind] = record
    if "search" not in read:
        somewhat = cell.retrain(some_architecture(cell))
        return [*listed, ListedStage(somewhat, False, None, cells, cell)]
    retrain = cell.retrain(parse_architecture(read["search"].result["arch"]))
    return [*listed, ListedStage(retrain, True, store.get(retrain.fingerprint), cells, cell)]


def _detection(plan: CellPlan | SweepPlan, store: StageStore) -> list[ListedStage]:
    """The detector on the network that is found, or on some legal one until that is known."""
    cells = plan.cells if isinstance(plan, SweepPlan) else (plan,)
    if cells[0].config.detect is None:
        return []
    names = (DETECTION,) if isinstance(plan, SweepPlan) else (plan.config.name,)
    best = _best_cell(cells, store)
    if best is None:
        stage = cells[0].detect(some_architecture(cells[0]))
        assert stage is not None  # the config has a detect section
        return [ListedStage(stage, False, None, names, cells[0])]
    cell, retrained = best
    stage = cell.detect(parse_architecture(retrained.result["arch"]))
    assert stage is not None
    return [ListedStage(stage, True, _stored(stage, [retrained], store), names, cell)]


def _best_cell(cells: Sequence[CellPlan], store: StageStore) -> tuple[CellPlan, StageRecord] | None:
    """The cell whose network a detector is built on, and its retraining.

    None until all cells are done: another one might be the best.
    """
    chains = [finished_chain(cell, store) for cell in cells]
    done = [
        (cell, chain[-1]) for cell, chain in zip(cells, chains, strict=True) if chain is not None
    ]
    if len(done) < len(cells):
        return None
    return max(done, key=lambda each: validation_top1(each[1]))


def _stored(stage: Stage, inputs: Sequence[StageRecord], store: StageStore) -> StageRecord | None:
    """A stage's record, made from these very records; without its inputs it is made anew."""
    read = {record.kind: record for record in inputs if record.kind in stage.inputs}
    return store.current(stage.fingerprint, read) if read.keys() == stage.inputs.keys() else None


def _each_once(listed: Iterable[ListedStage]) -> list[ListedStage]:
    merged: dict[str, ListedStage] = {}
    for one in listed:
        key = one.fingerprint or one.name
        same = merged.get(key)
        if same is not None:
            cells = tuple(dict.fromkeys((*same.cells, *one.cells)))
            one = dataclasses.replace(same, cells=cells)
        merged[key] = one
    kinds = ("supernet", "score", "search", "retrain", "detect")
    return sorted(merged.values(), key=lambda one: (kinds.index(one.stage.kind), not one.is_known))
