"""What a driver makes: a cell, the retraining of a given architecture, or scores of given ones.

A task is a value that pickles; it goes to a driver process, or is shown from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

from experiments.config.cell import Config
from experiments.config.places import resolve_paths
from experiments.plan.cell import CellPlan, finished_chain
from experiments.run.cell import CellResult, CellRun, keep_figures, make_chain
from experiments.stages.retrain import make_retrain
from experiments.stages.score import make_score
from experiments.stages.setting import Setting
from experiments.stages.supernet import make_supernet
from nas.space import Architecture, format_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import Tracker


@dataclass(frozen=True)
class Made:
    """What a task leaves.

    Attributes:
        stages: in their order.
        has_run: whether it has an MLflow run of its own above theirs.
        run_id: that run; None where the server could not be told.
    """

    stages: tuple[Done, ...]
    has_run: bool = False
    run_id: str | None = None


@dataclass(frozen=True)
class Context:
    """Who asks for a task: the MLflow run above it, and tags of every run."""

    tracker: Tracker
    tags: Mapping[str, str]
    parent_run_id: str | None


class Task(Protocol):
    """One driver's work."""

    @property
    def name(self) -> str:
        """The cell that its MLflow runs are tagged with."""
        ...

    @property
    def label(self) -> str:
        """What people see."""
        ...

    @property
    def config(self) -> Config:
        """Its experiment."""
        ...

    def at_home(self) -> Self:
        """The same for a process that stands in another folder."""
        ...

    def is_there(self, store: StageStore) -> bool:
        """Whether all of it is in the store."""
        ...

    def make(self, setting: Setting, context: Context) -> Made:
        """Have it or make it."""
        ...


@dataclass(frozen=True)
class _OfCell:
    """A task of one cell's plan."""

    plan: CellPlan

    @property
    def config(self) -> Config:
        return self.plan.config

    def at_home(self) -> Self:
        return replace(self, plan=replace(self.plan, config=resolve_paths(self.plan.config)))


@dataclass(frozen=True)
class CellTask(_OfCell):
    """A whole cell; `group` keeps apart the sweeps that share one."""

    group: str

    @property
    def name(self) -> str:
        return self.plan.config.name

    @property
    def label(self) -> str:
        return self.name

    def is_there(self, store: StageStore) -> bool:
        return finished_chain(self.plan, store) is not None

    def make(self, setting: Setting, context: Context) -> Made:
        run = CellRun.of(
            self.plan,
            context.tracker,
            tags=context.tags,
            part_of=self.group,
            parent_run_id=context.parent_run_id,
        )
        with run.marked():
            chain = make_chain(self.plan, setting)
            figures = keep_figures(self.plan.config, chain)
            run_id = run.show(CellResult(self.plan, chain, (), None, figures))
        return Made(chain, has_run=True, run_id=run_id)


@dataclass(frozen=True)
class RetrainTask(_OfCell):
    """The retraining of one architecture; `name` says why it is wanted."""

    arch: Architecture
    name: str = "random"

    @property
    def label(self) -> str:
        return f"{self.name} {format_architecture(self.arch)}"

    @property
    def stage(self) -> Stage:
        """The retraining."""
        return self.plan.retrain(self.arch)

    def is_there(self, store: StageStore) -> bool:
        return store.get(self.stage.fingerprint) is not None

    def make(self, setting: Setting, context: Context) -> Made:
        return Made((make_retrain(self.stage, setting),))


@dataclass(frozen=True)
class ScoreTask(_OfCell):
    """A supernet, where the plan has one, and what indicators say of given architectures."""

    stages: tuple[Stage, ...]
    name: str = "scores"

    @property
    def label(self) -> str:
        return f"{self.name} of seed {self.plan.config.seed}"

    @property
    def supernet(self) -> tuple[Stage, ...]:
        """The supernet's stage, if there is one."""
        return () if self.plan.supernet is None else (self.plan.supernet,)

    def is_there(self, store: StageStore) -> bool:
        read = {stage.kind: store.get(stage.fingerprint) for stage in self.supernet}
        inputs = {kind: record for kind, record in read.items() if record is not None}
        return len(inputs) == len(read) and all(
            store.current(stage.fingerprint, {kind: inputs[kind] for kind in stage.inputs})
            is not None
            for stage in self.stages
        )

    def make(self, setting: Setting, context: Context) -> Made:
        supernet = {stage.kind: make_supernet(stage, setting) for stage in self.supernet}
        scores = [
            make_score(stage, setting, {kind: supernet[kind] for kind in stage.inputs})
            for stage in self.stages
        ]
        return Made((*supernet.values(), *scores))
