"""A task: stages that one driver makes in their order, each from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.config.experiment import AnyConfig, CellConfig
from experiments.config.places import resolve_paths
from experiments.plan.cells import CellPlan
from experiments.plan.decides import CODE_VERSIONS
from nas.space import Architecture, parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

# Kind of stage → what led to it within its task.
_LINEAGE: dict[str, tuple[str, ...]] = {
    "supernet": (),
    "search": ("supernet",),
    "retrain": ("search",),
    "detect": ("retrain",),
}


@dataclass(frozen=True)
class Task:
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
        is_cell: whether it has an MLflow run of its own above those of its stages.
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

    @property
    def size(self) -> int:
        """How many stages it consists of."""
        return len(self.stages) + len(self.follow)

    def stage(self, number: int, records: Sequence[StageRecord]) -> Stage | None:
        """The stage at a place, given the records of earlier ones.

        None where it follows from a search whose record is not among them.
        """
        if number < len(self.stages):
            return self.stages[number]
        search = next((record for record in records if record.kind == "search"), None)
        return (
            None if search is None else self._of(number, parse_architecture(search.result["arch"]))
        )

    def placeholder(self, number: int) -> Stage:
        """A stage of about the same cost, for one that follows from what is not found yet."""
        assert self.cell is not None
        return self._of(number, self.cell.some_architecture())

    def _of(self, number: int, arch: Architecture) -> Stage:
        assert self.cell is not None
        is_retrain = self.follow[number - len(self.stages)] == "retrain"
        return self.cell.retrain(arch) if is_retrain else self.cell.detect(arch)

    def records(self, store: StageStore) -> tuple[StageRecord, ...] | None:
        """Those of all its stages, in their order; None where one is not in the store."""
        records: list[StageRecord] = []
        while len(records) < self.size:
            stage = self.stage(len(records), records)
            assert stage is not None  # its search is among them
            record = current_record(stage, [*self.given, *records], store)
            if record is None:
                return None
            records.append(record)
        return tuple(records)

    @property
    def given(self) -> tuple[StageRecord, ...]:
        """The record that was given, if one was."""
        return () if self.checkpoint is None else (self.checkpoint,)

    def resolve_paths(self) -> Task:
        """The same for a process that stands in another folder."""
        config = resolve_paths(self.config)
        if self.cell is None or not isinstance(config, CellConfig):
            return replace(self, config=config)
        return replace(self, config=config, cell=replace(self.cell, config=config))


def inputs_of(stage: Stage | StageRecord) -> tuple[str, ...]:
    """The kinds of earlier stages that led to a stage: its MLflow run names them as inputs."""
    if stage.kind == "score":  # some indicators look at no supernet
        return tuple(stage.inputs)
    return _LINEAGE[stage.kind]


def current_record(
    stage: Stage, earlier: Sequence[StageRecord], store: StageStore
) -> StageRecord | None:
    """A stage's record, made from these very records; without its inputs it is made anew."""
    read = {record.kind: record for record in earlier if record.kind in stage.inputs}
    return store.current(stage.fingerprint, read) if read.keys() == stage.inputs.keys() else None


def stage_of(record: StageRecord) -> Stage:
    """The retrain stage of a record that is in the store."""
    return Stage(
        record.kind,
        record.config,
        CODE_VERSIONS["retrain"],
        record.inputs,
        name=f"retrain {record.result['arch']}",
    )
