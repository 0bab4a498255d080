"""The graph of stages of an experiment, whatever its kind: a dry run.

`run` makes its chains, `plan` prices its stages, `status` looks them up. Nothing here connects to a
cluster, and nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.config.experiment import AnyConfig, Experiment, Kind
from experiments.config.load import AXES, value_at
from experiments.plan.cell_plan import CellPlan, describe_images, plan_cell
from experiments.plan.chain import Chain
from experiments.plan.decides import CODE_VERSIONS
from experiments.plan.detector_plan import DetectorPlan, plan_detector
from nas.data import ImageSpec
from nas.indicators import INDICATORS
from nas.search import draw_stratified
from nas.space import Architecture, format_architecture, parse_architecture
from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

# Where members are named, these stand for the random architectures, and a sweep's detector.
BASELINE, DETECTION = "random", "detection"
_DRAW_STREAM = 2  # apart from the searchers and the random baseline, which the same seed starts


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment has to make.

    Attributes:
        experiment: what was asked for.
        chains: in the order in which they start.
        cells: of a sweep or a run one each; of a study one for every seed.
        archs: those that a study retrains, cheap ones first.
        detector: of an experiment that is nothing else.
        group: what its MLflow run is found by, made from its name and what decides its results;
            None for a detector, which has no run above those of its stages.
        detects_last: whether a detector follows, on the network of the best cell.
    """

    experiment: Experiment
    chains: tuple[Chain, ...]
    cells: tuple[CellPlan, ...] = ()
    archs: tuple[Architecture, ...] = ()
    detector: DetectorPlan | None = None
    group: str | None = None
    detects_last: bool = False

    @property
    def known(self) -> tuple[Stage, ...]:
        """The stages that are known before any search, each once."""
        return _known(self.chains)

    @property
    def sharing(self) -> int:
        """How many chains wait for one and the same supernet, at most."""
        cells = [(chain.cell, chain.stages) for chain in self.chains if chain.cell is not None]
        supernets = [cell.supernet for cell, stages in cells if cell.supernet in stages]
        shared = Counter(stage.fingerprint for stage in supernets if stage is not None)
        return max(shared.values(), default=1)

    def last_chain(self, store: StageStore) -> Chain | None:
        """A sweep's detector, on the network of its best cell.

        None where no detector is asked for, or as long as a cell is missing: it might be the best.
        """
        if not self.detects_last:
            return None
        cells = [(chain, chain.records(store)) for chain in self.chains if chain.is_cell]
        done = [(chain, records) for chain, records in cells if records is not None]
        if len(done) < len(cells):
            return None
        chain, records = max(done, key=lambda each: validation_rank(each[1][-1]))
        assert chain.cell is not None
        arch = parse_architecture(records[-1].result["arch"])
        return Chain(
            name=chain.name,
            label=DETECTION,
            member=DETECTION,
            config=chain.config,
            stages=(chain.cell.retrain(arch), chain.cell.detect(arch)),
            cell=chain.cell,
        )


@dataclass(frozen=True)
class PlannedStage:
    """One stage, and who needs it.

    Attributes:
        stage: what is to be made; for an architecture that is not found yet, that of some legal
            one, which takes about as long.
        is_known: False for the retraining, or the detector, of such an architecture.
        record: its result, where it is in the store.
        members: those that need it: cells, seeds, `BASELINE`, `DETECTION`.
        config: of the experiment of the first of these.
        cell: its plan, where it has one.
    """

    stage: Stage
    is_known: bool
    record: StageRecord | None
    members: tuple[str, ...]
    config: AnyConfig
    cell: CellPlan | None

    @property
    def fingerprint(self) -> str | None:
        """The stage's; None where it is not known yet."""
        return self.stage.fingerprint if self.is_known else None

    @property
    def name(self) -> str:
        """What people call it."""
        if self.is_known:
            return self.stage.name
        finder = "the best cell" if self.members == (DETECTION,) else self.members[0]
        return f"{self.stage.kind} what {finder} finds"


@dataclass(frozen=True)
class StageList:
    """All stages of an experiment.

    Attributes:
        name: the experiment's.
        members: the names of its cells in their order, and `BASELINE` where there is one; those of
            a correlation study are its seeds.
        stages: supernets, scores, searches, retrainings, the detector; where the architecture is
            not known yet, one for each cell, so that there are at most so many: equal ones are
            retrained once.
    """

    name: str
    members: tuple[str, ...]
    stages: tuple[PlannedStage, ...]

    def who_needs(self, one: PlannedStage) -> str:
        """The members that need a stage, a line each; of more than three, how many."""
        is_shared = len(one.members) > 3
        return f"{len(one.members)} of {len(self.members)}" if is_shared else "\n".join(one.members)


def plan_experiment(experiment: Experiment) -> ExperimentPlan:
    """Work out what an experiment has to make.

    Raises ValueError (a wrong request) where it cannot be made, or its data are not there.
    """
    return _PLANNERS[experiment.kind](experiment)


def list_stages(plan: ExperimentPlan, store: StageStore) -> StageList:
    """The stages of a plan; what is in the store says which architectures are known."""
    listed = [one for chain in plan.chains for one in _look_up(chain, store)]
    if plan.detects_last:
        last = plan.last_chain(store)
        if last is None:
            cell = plan.cells[0]
            detect = cell.detect(cell.some_architecture())
            listed.append(PlannedStage(detect, False, None, (DETECTION,), cell.config, cell))
        else:
            listed += list(_look_up(last, store))[-1:]
    names = dict.fromkeys(one.members[0] for one in listed)
    return StageList(plan.experiment.name, tuple(names), tuple(_each_once(listed, list(names))))


def cell_group(cell: CellPlan, *, part_of: str) -> str:
    """What a cell's MLflow run is found by; `part_of` keeps apart the sweeps that share one."""
    key: dict[str, JSON] = {
        "part_of": part_of,
        "name": cell.config.name,
        "stages": [stage.fingerprint for stage in cell.known],
        "retrain": cell.config.retrain.identity(),
    }
    return fingerprint("cell", key, code_version=1)


def validation_rank(retrained: StageRecord) -> tuple[float, float, float]:
    """What the best of several retrained networks is chosen by; the largest is the best.

    Top-1 on the search-validation images, of equal ones the loss there, then the FLOPs.
    """
    last = retrained.history[-1]
    return last["val/top1"], -last["val/loss"], -retrained.metrics["flops"]


def recipe(config: AnyConfig) -> str:
    """Where cells differ in it, each has a random baseline of its own: space, data, recipe."""
    return config.model_dump_json(include={"space", "data", "retrain"})


def _plan_run(experiment: Experiment) -> ExperimentPlan:
    cells = _plan_cells(experiment)
    detects = cells[0].config.detect is not None
    chain = _cell_chain(cells[0], follow=("retrain", "detect") if detects else ("retrain",))
    return ExperimentPlan(
        experiment,
        (chain, *_baseline(cells)),
        cells,
        group=cell_group(cells[0], part_of=""),
    )


def _plan_sweep(experiment: Experiment) -> ExperimentPlan:
    cells = _plan_cells(experiment)
    _require_different(cells)
    baseline = _baseline(cells)
    recipes = [cell.config.retrain.identity() for cell in cells]
    several = any(each != recipes[0] for each in recipes)
    chains = [_cell_chain(cell) for cell in cells]
    group = _group(
        experiment, (*chains, *baseline), {"retrain": recipes if several else recipes[0]}
    )
    other_axes = [path for path in experiment.axes if path not in AXES.values()]
    chains = [
        dataclasses.replace(
            chain,
            group=cell_group(cell, part_of=group),
            axes={path: value_at(cell.config, path) for path in other_axes},
        )
        for chain, cell in zip(chains, cells, strict=True)
    ]
    detects = experiment.shared.detect is not None
    return ExperimentPlan(
        experiment, (*chains, *baseline), cells, group=group, detects_last=detects
    )


def _plan_cells(experiment: Experiment) -> tuple[CellPlan, ...]:
    images: dict[str, ImageSpec] = {}  # of each data set once; a sweep may have several
    for config in experiment.cells:
        data = config.data.model_dump_json()
        images[data] = images.get(data) or describe_images(config.data)
    return tuple(
        plan_cell(config, images[config.data.model_dump_json()]) for config in experiment.cells
    )


def _require_different(cells: Iterable[CellPlan]) -> None:
    """Raise ValueError where two cells would make the same."""
    first: dict[str, CellPlan] = {}
    for cell in cells:
        same = first.setdefault(cell.search.fingerprint, cell)
        if same is cell:
            continue
        arch = same.some_architecture()
        if same.retrain(arch).fingerprint == cell.retrain(arch).fingerprint:
            raise ValueError(
                f"grid: the cells {same.config.name} and {cell.config.name} are the same, because "
                + (
                    "what they differ in decides no result: sweep another field."
                    if cell.supernet is not None
                    else f"the indicator {cell.config.search.indicator!r} reads no supernet: give "
                    "it a sweep of its own, with one value of trainable and of epochs."
                )
            )


def _cell_chain(
    cell: CellPlan, follow: tuple[Literal["retrain", "detect"], ...] = ("retrain",)
) -> Chain:
    name = cell.config.name
    return Chain(
        name=name,
        label=name,
        member=name,
        config=cell.config,
        stages=cell.until_search,
        cell=cell,
        follow=follow,
        is_cell=True,
    )


def _baseline(cells: Iterable[CellPlan]) -> tuple[Chain, ...]:
    """The random architectures: the same ones for all cells of one seed and recipe."""
    by_draw = {(cell.config.seed, recipe(cell.config)): cell for cell in cells}
    return tuple(
        _retrain_chain(cell, arch, BASELINE, BASELINE)
        for cell in by_draw.values()
        for arch in cell.baseline_archs
    )


def _retrain_chain(cell: CellPlan, arch: Architecture, name: str, member: str) -> Chain:
    return Chain(
        name=name,
        label=f"{name} {format_architecture(arch)}",
        member=member,
        config=cell.config,
        stages=(cell.retrain(arch),),
        cell=cell,
    )


def _known(chains: Iterable[Chain]) -> tuple[Stage, ...]:
    stages = [stage for chain in chains for stage in chain.stages]
    return tuple({stage.fingerprint: stage for stage in stages}.values())


def _group(experiment: Experiment, chains: Iterable[Chain], more: Mapping[str, JSON]) -> str:
    stages: list[JSON] = [*sorted(stage.fingerprint for stage in _known(chains))]
    key: dict[str, JSON] = {"name": experiment.name, "stages": stages, **more}
    return fingerprint(experiment.kind, key, code_version=1)


def _plan_detector(experiment: Experiment) -> ExperimentPlan:
    assert experiment.detector is not None
    plan = plan_detector(experiment.detector)
    name = plan.config.name
    chain = Chain(
        name=name,
        label=name,
        member=name,
        config=plan.config,
        stages=(plan.detect,) if plan.retrain is None else (plan.retrain, plan.detect),
        checkpoint=plan.checkpoint,
        weights=plan.weights,
    )
    return ExperimentPlan(experiment, (chain,), detector=plan)


def _plan_study(experiment: Experiment) -> ExperimentPlan:
    """Raises ValueError where the space or the budgets hold too few architectures."""
    first = experiment.cells[0]
    images = describe_images(first.data)
    correlate = first.correlate
    needs_supernet = any(INDICATORS[name].needs_supernet for name in correlate.indicators)
    indicator = "bn" if needs_supernet else "flops"
    cells = []
    for config in experiment.cells:
        search = config.search.model_copy(update={"indicator": indicator, "searcher": "exact"})
        baseline = config.random_baseline.model_copy(update={"num_architectures": 0})
        changes = {"search": search, "random_baseline": baseline, "detect": None}
        cells.append(plan_cell(config.model_copy(update=changes), images))
    space = cells[0].space
    archs = draw_stratified(
        space,
        first.search.budgets(space),
        np.random.default_rng((first.seed, _DRAW_STREAM)),
        correlate.num_architectures,
        num_strata=correlate.num_strata,
    )
    if len(archs) < correlate.num_architectures:
        raise ValueError(
            f"correlate.num_architectures is {correlate.num_architectures}, but only {len(archs)} "
            "could be found under the budgets of the search section: ask for fewer, or widen them."
        )
    scored = [name for name in correlate.indicators if not INDICATORS[name].additive]
    members = {cell.config.seed: f"seed {cell.config.seed}" for cell in cells}
    chains = [
        Chain(
            name="scores",
            label=f"scores of {members[cell.config.seed]}",
            member=members[cell.config.seed],
            config=cell.config,
            stages=(
                *([] if cell.supernet is None else [cell.supernet]),
                *(cell.score(name, archs) for name in scored),
            ),
            cell=cell,
        )
        for cell in cells
    ]
    chains = [chain for chain in chains if chain.stages]
    chains += [
        _retrain_chain(cell, arch, "correlate", members[cell.config.seed])
        for arch in archs
        for cell in cells
    ]
    group = _group(experiment, chains, {})
    return ExperimentPlan(experiment, tuple(chains), tuple(cells), archs, group=group)


_PLANNERS: Mapping[Kind, Callable[[Experiment], ExperimentPlan]] = {
    "run": _plan_run,
    "sweep": _plan_sweep,
    "correlate": _plan_study,
    "detect": _plan_detector,
}


def _look_up(chain: Chain, store: StageStore) -> Iterator[PlannedStage]:
    """The stages of a chain; after a search that is not there, placeholders."""
    for number, (known, record) in enumerate(chain.look_up(store)):
        yield PlannedStage(
            stage=chain.placeholder(number) if known is None else known,
            is_known=known is not None,
            record=record,
            members=(chain.member,),
            config=chain.config,
            cell=chain.cell,
        )


def _each_once(listed: Iterable[PlannedStage], members: list[str]) -> list[PlannedStage]:
    merged: dict[str, PlannedStage] = {}
    kinds = list(CODE_VERSIONS)
    for one in listed:
        key = one.fingerprint or one.name
        same = merged.get(key)
        if same is not None:
            needed_by = tuple(dict.fromkeys((*same.members, *one.members)))
            one = dataclasses.replace(same, members=needed_by)
        merged[key] = one
    return sorted(
        merged.values(),
        key=lambda one: (
            kinds.index(one.stage.kind),
            not one.is_known,
            members.index(one.members[0]),
        ),
    )
