"""A chain: stages that one driver makes in their order, each from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from experiments.config.experiment import AnyConfig, CellConfig
from experiments.config.load import AXES, value_at
from experiments.config.places import resolve_paths
from experiments.plan.cell_plan import CellPlan
from experiments.plan.decides import CODE_VERSIONS
from nas.space import Architecture, parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore


@dataclass(frozen=True)
class Chain:
    """One driver's work; a value that pickles.

    Attributes:
        name: the cell that its MLflow runs are tagged with.
        label: the line of the display.
        member: what `plan` and `status` say needs its stages: a cell, a seed, `random`.
        config: its experiment.
        stages: those that are known beforehand, in their order.
        cell: for what follows from the result of a search.
        follow: the stages after the search: of the architecture that it finds.
        checkpoint: a retrain stage that was given, and is an input of the first stage.
        weights: a file that was given instead.
        is_cell: whether it is a cell, from search to retraining.
        group: what its own MLflow run, above those of its stages, is found by; None without one.
        axes: of a cell of a sweep, config path → value where the grid has other axes than the
            usual three.
    """

    name: str
    label: str
    member: str
    config: AnyConfig
    stages: tuple[Stage, ...]
    cell: CellPlan | None = None
    follow: tuple[Literal["retrain", "detect"], ...] = ()
    checkpoint: StageRecord | None = None
    weights: Path | None = None
    is_cell: bool = False
    group: str | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def point(self) -> dict[str, Any]:
        """Where it lies in the grid: axis → value; of a random architecture, its seed."""
        if not isinstance(self.config, CellConfig):
            return {}
        if not self.is_cell:
            return {"seed": self.config.seed}
        usual = {name: value_at(self.config, path) for name, path in AXES.items()}
        return {**usual, "seed": self.config.seed, **self.axes}

    @property
    def size(self) -> int:
        """How many stages it consists of."""
        return len(self.stages) + len(self.follow)

    @property
    def keeps_figures(self) -> bool:
        """Whether its figures and its config are kept on this machine: of cells and detectors."""
        return self.is_cell or any(stage.kind == "detect" for stage in self.stages)

    def stage(self, number: int, records: Sequence[StageRecord]) -> Stage | None:
        """The stage at a place, given the records of earlier ones.

        None where it follows from a search whose record is not among them.
        """
        if number < len(self.stages):
            return self.stages[number]
        if len(records) < len(self.stages):
            return None
        search = records[len(self.stages) - 1]
        return self._of(number, parse_architecture(search.result["arch"]))

    def placeholder(self, number: int) -> Stage:
        """A stage of about the same cost, for one that follows from what is not found yet."""
        assert self.cell is not None
        return self._of(number, self.cell.some_architecture())

    def _of(self, number: int, arch: Architecture) -> Stage:
        assert self.cell is not None
        build = {"retrain": self.cell.retrain, "detect": self.cell.detect}
        return build[self.follow[number - len(self.stages)]](arch)

    def look_up(self, store: StageStore) -> Iterator[tuple[Stage | None, StageRecord | None]]:
        """Its stages with their records; None for what is not there, or not known yet.

        A record counts if it was made from the very records of the stages before it.
        """
        records: list[StageRecord] = []
        for number in range(self.size):
            stage, record = self.stage(number, records), None
            if stage is not None:
                earlier = (*self.given, *records)
                read = {each.kind: each for each in earlier if each.kind in stage.inputs}
                if read.keys() == stage.inputs.keys():
                    record = store.current(stage.fingerprint, read)
            yield stage, record
            if record is not None:
                records.append(record)

    def records(self, store: StageStore) -> tuple[StageRecord, ...] | None:
        """Those of all its stages, in their order; None where one is not in the store."""
        records = []
        for _, record in self.look_up(store):
            if record is None:
                return None
            records.append(record)
        return tuple(records)

    @property
    def given(self) -> tuple[StageRecord, ...]:
        """The record that was given, if one was."""
        return () if self.checkpoint is None else (self.checkpoint,)

    def resolve_paths(self) -> Chain:
        """The same for a process that stands in another folder."""
        config = resolve_paths(self.config)
        if self.cell is None or not isinstance(config, CellConfig):
            return replace(self, config=config)
        return replace(self, config=config, cell=replace(self.cell, config=config))


def inputs_of(stage: Stage | StageRecord) -> tuple[str, ...]:
    """The kinds of earlier stages that led to a stage: its MLflow run names them as inputs.

    They are those that it reads; a retraining reads none, and its architecture comes from a search.
    """
    return ("search",) if stage.kind == "retrain" else tuple(stage.inputs)


def stage_of(record: StageRecord) -> Stage:
    """The retrain stage of a record that is in the store."""
    return Stage(
        record.kind,
        record.config,
        CODE_VERSIONS["retrain"],
        record.inputs,
        name=f"retrain {record.result['arch']}",
    )
