"""The graph of stages of an experiment, whatever its kind: a dry run.

`run` makes its tasks, `plan` prices its stages, `status` looks them up. Nothing here connects to a
cluster, and nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.config.experiment import AnyConfig, Experiment
from experiments.plan.cells import CellPlan, describe_images, plan_cell
from experiments.plan.detector import DetectorPlan, plan_detector
from experiments.plan.limits import budgets
from experiments.plan.tasks import Task, current_record
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
# Of stages, in the order in which they are made.
KINDS = ("supernet", "score", "search", "retrain", "detect")
_DRAW_STREAM = 2  # apart from the searchers and the random baseline, which the same seed starts


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment has to make.

    Attributes:
        experiment: what was asked for.
        tasks: in the order in which they start.
        cells: of a sweep or a run one each; of a study one for every seed.
        archs: those that a study retrains, cheap ones first.
        detector: of an experiment that is nothing else.
    """

    experiment: Experiment
    tasks: tuple[Task, ...]
    cells: tuple[CellPlan, ...] = ()
    archs: tuple[Architecture, ...] = ()
    detector: DetectorPlan | None = None

    @cached_property
    def known(self) -> tuple[Stage, ...]:
        """The stages that are known before any search, each once."""
        stages = [stage for task in self.tasks for stage in task.stages]
        return tuple({stage.fingerprint: stage for stage in stages}.values())

    @property
    def sharing(self) -> int:
        """How many tasks wait for one and the same supernet, at most."""
        supernets = [
            stage.fingerprint
            for task in self.tasks
            for stage in task.stages
            if stage.kind == "supernet"
        ]
        return max(Counter(supernets).values(), default=1)

    @property
    def group(self) -> str:
        """What the experiment's MLflow run is found by: its name and what decides its results."""
        kind, name = self.experiment.kind, self.experiment.name
        if kind == "run":
            return cell_group(self.cells[0], part_of="")
        stages: list[JSON] = [*sorted(stage.fingerprint for stage in self.known)]
        key: dict[str, JSON] = {"name": name, "stages": stages}
        if kind == "sweep":
            recipes = [cell.retrain.identity() for cell in self.experiment.cells]
            several = any(recipe != recipes[0] for recipe in recipes)
            key["retrain"] = recipes if several else recipes[0]
        return fingerprint(kind, key, code_version=1)

    def last_task(self, store: StageStore) -> Task | None:
        """A sweep's detector, on the network of its best cell.

        None where no detector is asked for, or as long as a cell is missing: it might be the best.
        """
        if self.experiment.kind != "sweep" or self.experiment.shared.detect is None:
            return None
        chains = [(task, task.records(store)) for task in self.tasks if task.is_cell]
        done = [(task, records) for task, records in chains if records is not None]
        if len(done) < len(chains):
            return None
        task, records = max(done, key=lambda each: validation_rank(each[1][-1]))
        assert task.cell is not None
        arch = parse_architecture(records[-1].result["arch"])
        return Task(
            name=task.name,
            label=DETECTION,
            member=DETECTION,
            config=task.config,
            stages=(task.cell.retrain(arch), task.cell.detect(arch)),
            cell=task.cell,
        )


@dataclass(frozen=True)
class PlannedStage:
    """One stage, and who needs it.

    Attributes:
        stage: what is to be made; for an architecture that is not found yet, that of some legal
            one, which takes about as long.
        is_known: False for the retraining, or the detector, of such an architecture.
        record: its result, where it is in the store.
        cells: the members that need it.
        config: of the experiment of the first of these.
        cell: its plan, where it has one.
    """

    stage: Stage
    is_known: bool
    record: StageRecord | None
    cells: tuple[str, ...]
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
    stages: tuple[PlannedStage, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every stage is in the store."""
        return all(one.record is not None for one in self.stages)

    def who_needs(self, one: PlannedStage) -> str:
        """The cells of a stage, a line each; of more than three, how many."""
        is_shared = len(one.cells) > 3
        return f"{len(one.cells)} of {len(self.cells)}" if is_shared else "\n".join(one.cells)


def plan_experiment(experiment: Experiment) -> ExperimentPlan:
    """Work out what an experiment has to make.

    Raises ValueError (a wrong request) where it cannot be made, or its data are not there.
    """
    if experiment.detector is not None:
        return _plan_detector(experiment)
    images: dict[str, ImageSpec] = {}  # of each data set once; a sweep may have several
    for config in experiment.cells:
        data = config.data.model_dump_json()
        images[data] = images.get(data) or describe_images(config.data)
    if experiment.kind == "correlate":
        return _plan_study(experiment, *images.values())
    cells = tuple(
        plan_cell(config, images[config.data.model_dump_json()]) for config in experiment.cells
    )
    first: dict[str, CellPlan] = {}
    for cell in cells:
        same = first.setdefault(cell.search.fingerprint, cell)
        if same is not cell and _retrains_alike(same, cell):
            raise ValueError(
                f"grid: the cells {same.config.name} and {cell.config.name} are the same, because "
                + (
                    "what they differ in decides no result: sweep another field."
                    if cell.supernet is not None
                    else f"the indicator {cell.config.search.indicator!r} reads no supernet: give "
                    "it a sweep of its own, with one value of trainable and of epochs."
                )
            )
    tasks = [_cell_task(cell, experiment) for cell in cells]
    with_baseline = {(cell.config.seed, recipe(cell.config)): cell for cell in cells}
    tasks += [
        _retrain_task(cell, arch, BASELINE, BASELINE)
        for cell in with_baseline.values()
        for arch in cell.baseline_archs
    ]
    return ExperimentPlan(experiment, tuple(tasks), cells)


def list_stages(plan: ExperimentPlan, store: StageStore) -> StageList:
    """The stages of a plan; what is in the store says which architectures are known."""
    listed = [one for task in plan.tasks for one in _look_up(task, store)]
    if plan.experiment.kind == "sweep" and plan.experiment.shared.detect is not None:
        last = plan.last_task(store)
        if last is None:
            cell = plan.cells[0]
            detect = cell.detect(cell.some_architecture())
            listed.append(PlannedStage(detect, False, None, (DETECTION,), cell.config, cell))
        else:
            listed += list(_look_up(last, store))[-1:]
    names = dict.fromkeys(one.cells[0] for one in listed)
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


def _retrains_alike(one: CellPlan, other: CellPlan) -> bool:
    """Of two cells with one search: whether they retrain what it finds in the same way."""
    arch = one.some_architecture()
    return one.retrain(arch).fingerprint == other.retrain(arch).fingerprint


def recipe(config: AnyConfig) -> str:
    """Where cells differ in it, each has a random baseline of its own: space, data, recipe."""
    return config.model_dump_json(include={"space", "data", "retrain"})


def _cell_task(cell: CellPlan, experiment: Experiment) -> Task:
    name = cell.config.name
    detects = experiment.kind == "run" and cell.config.detect is not None
    return Task(
        name=name,
        label=name,
        member=name,
        config=cell.config,
        stages=cell.until_search,
        cell=cell,
        follow=("retrain", "detect") if detects else ("retrain",),
        is_cell=True,
    )


def _retrain_task(cell: CellPlan, arch: Architecture, name: str, member: str) -> Task:
    return Task(
        name=name,
        label=f"{name} {format_architecture(arch)}",
        member=member,
        config=cell.config,
        stages=(cell.retrain(arch),),
        cell=cell,
    )


def _plan_detector(experiment: Experiment) -> ExperimentPlan:
    assert experiment.detector is not None
    plan = plan_detector(experiment.detector)
    name = plan.config.name
    task = Task(
        name=name,
        label=name,
        member=name,
        config=plan.config,
        stages=(plan.detect,) if plan.retrain is None else (plan.retrain, plan.detect),
        checkpoint=plan.checkpoint,
        weights=plan.weights,
    )
    return ExperimentPlan(experiment, (task,), detector=plan)


def _plan_study(experiment: Experiment, images: ImageSpec) -> ExperimentPlan:
    """Raises ValueError where the space or the budgets hold too few architectures."""
    first = experiment.cells[0]
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
        budgets(first.search.model_dump(), space),
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
    tasks = [
        Task(
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
    tasks = [task for task in tasks if task.stages]
    tasks += [
        _retrain_task(cell, arch, "correlate", members[cell.config.seed])
        for arch in archs
        for cell in cells
    ]
    return ExperimentPlan(experiment, tuple(tasks), tuple(cells), archs)


def _look_up(task: Task, store: StageStore) -> Iterator[PlannedStage]:
    """The stages of a task; after a search that is not there, placeholders."""
    earlier = list(task.given)
    records: list[StageRecord] = []
    for number in range(task.size):
        known = task.stage(number, records)
        stage = task.placeholder(number) if known is None else known
        record = None if known is None else current_record(known, earlier, store)
        yield PlannedStage(stage, known is not None, record, (task.member,), task.config, task.cell)
        if record is not None:
            records.append(record)
            earlier.append(record)


def _each_once(listed: Iterable[PlannedStage], members: list[str]) -> list[PlannedStage]:
    merged: dict[str, PlannedStage] = {}
    for one in listed:
        key = one.fingerprint or one.name
        same = merged.get(key)
        if same is not None:
            cells = tuple(dict.fromkeys((*same.cells, *one.cells)))
            one = dataclasses.replace(same, cells=cells)
        merged[key] = one
    return sorted(
        merged.values(),
        key=lambda one: (
            KINDS.index(one.stage.kind),
            not one.is_known,
            members.index(one.cells[0]),
        ),
    )
