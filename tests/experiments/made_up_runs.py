"""An experiment of made-up runs, built by hand, and what a section shows of it.

For the sections of the report: their means and spreads can be computed by hand. That the pipeline
tracks such runs is asserted with a recorded experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.values import (
    REDUCTIONS,
    Cell,
    MeanStd,
    Number,
    Section,
    Table,
    Tracked,
)
from orchestration.tracking.reader import TrackedExperiment, TrackedRun

SPACE = {"space.input.resolution": "28", "space.input.num_classes": "10"}


class Runs:
    """Runs of an experiment, one after the other."""

    def __init__(self) -> None:
        self.runs: list[TrackedRun] = []
        self.records: dict[str, Mapping[str, Any] | None] = {}

    def add(
        self,
        run_id: str,
        kind: str,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        *,
        inputs: Mapping[str, str] | None = None,
        parent: str | None = None,
        status: str = "FINISHED",
        name: str | None = None,
    ) -> str:
        tags = {"bnnas.stage": kind, "bnnas.published": "yes"}
        tags |= {f"bnnas.input.{key}": value for key, value in (inputs or {}).items()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = TrackedRun(
            run_id=run_id,
            name=name or run_id,
            status=status,
            params={key: str(value) for key, value in (params or {}).items()},
            metrics=dict(metrics or {}),
            tags=tags,
            started_at=float(len(self.runs)),
        )
        self.runs.append(run)
        self.records.setdefault(run_id, None)
        return run_id

    def change(self, index: int, field: str, **values: Any) -> None:
        """Set some params, metrics or tags of a run that was added."""
        run = self.runs[index]
        changes: dict[str, Any] = {field: {**getattr(run, field), **values}}
        self.runs[index] = replace(run, **changes)

    def supernet(self, run_id: str, seed: int, *, trainable: str = "bn", epochs: int = 10) -> str:
        params = SPACE | {
            "data.name": "digits",
            "seed": seed,
            "supernet.trainable": trainable,
            "supernet.epochs": epochs,
        }
        metrics = {
            "epochs": epochs - seed,
            "trained_params": 50.0,
            "supernet_params": 500.0,
            "device_hours": 0.1 * (seed + 1),
            "wall_s": 9.0,
        }
        return self.add(run_id, "supernet", params, metrics)

    def search(self, run_id: str, seed: int, supernet: str, *, evolution_s: float = 0.2) -> str:
        params = SPACE | {
            "seed": seed,
            "search.indicator": "bn",
            "search.searcher": "exact",
            "search.max_flops": 400000,
        }
        metrics = {
            "wall_s": 0.5 + seed,
            "device_hours": 0.001,
            "exact/wall_s": 0.002,
            "evolution/wall_s": evolution_s,
            "evolution/optimality_gap": 0.01 * seed,
            "evolution/num_evaluated": 1000.0,
            "random/wall_s": 0.1,
            "random/optimality_gap": 0.2,
            "random/num_evaluated": 1000.0,
        }
        return self.add(run_id, "search", params, metrics, inputs={"supernet": supernet})

    def accuracy_search(
        self, run_id: str, seed: int, supernet: str, max_flops: int = 400000
    ) -> str:
        params = SPACE | {
            "seed": seed,
            "data.name": "digits",
            "search.indicator": "accuracy",
            "search.searcher": "evolution",
            "search.max_flops": max_flops,
        }
        metrics = {"wall_s": 60.0, "num_evaluated": 300.0, "device_hours": 0.02}
        return self.add(run_id, "search", params, metrics, inputs={"supernet": supernet})

    def retrain(self, run_id: str, seed: int, **more: object) -> str:
        params = SPACE | {"data.name": "digits", "seed": seed, "arch": run_id, **more}
        metrics = {"top1": 0.9, "device_hours": 0.3, "num_test_images": 359.0, "val/top1": 0.8}
        return self.add(run_id, "retrain", params, metrics)

    def cell(
        self,
        run_id: str,
        seed: int,
        inputs: Mapping[str, str],
        *,
        indicator: str = "bn",
        trainable: str = "bn",
        epochs: int = 10,
        parent: str | None = None,
        top1: float = 0.9,
    ) -> str:
        params = {
            "trainable": trainable,
            "indicator": indicator,
            "epochs": epochs,
            "seed": seed,
            "space": "micro",
            "data": "digits",
            "max_flops": 400000,
            "retrain_epochs": 8,
            "winner": "0 1 2",
        }
        metrics = {"top1": top1, "flops": 3e5, "params": 2e4, "device_hours": 0.5, "wall_s": 40.0}
        return self.add(run_id, "cell", params, metrics, inputs=inputs, parent=parent)

    @property
    def evidence(self) -> Evidence:
        return Evidence(TrackedExperiment("", "test", tuple(self.runs), 0, dict(self.records)))


def two_seeds(runs: Runs) -> Runs:
    """A sweep of one setting with two seeds."""
    runs.add("sweep", "sweep", {"space": "micro", "data": "digits", "winner": "cell1"})
    for seed in (0, 1):
        supernet = runs.supernet(f"supernet{seed}", seed)
        inputs = {
            "supernet": supernet,
            "search": runs.search(f"search{seed}", seed, supernet),
            "retrain": runs.retrain(f"retrain{seed}", seed),
        }
        runs.cell(f"cell{seed}", seed, inputs, parent="sweep", top1=0.9 + 0.02 * seed)
    return runs


def table(section: Section, name: str) -> Table:
    """One of a section's tables."""
    return next(each for each in section.tables if each.name == name)


def column(found: Table, name: str) -> list[Cell]:
    """The cells below a heading."""
    return [row[found.columns.index(name)] for row in found.rows]


def numbers(section: Section) -> Iterator[Number]:
    """All numbers of all tables."""
    for each in section.tables:
        for row in each.rows:
            assert len(row) == len(each.columns), each.name
            for cell in row:
                if isinstance(cell, MeanStd):
                    yield cell.mean
                    if cell.std is not None:
                        yield cell.std
                elif isinstance(cell, Number):
                    yield cell


def check_found_again(section: Section, evidence: Evidence) -> int:
    """Every tracked number is what MLflow gives; returns how many there are."""
    found = [number for number in numbers(section) if isinstance(number.source, Tracked)]
    for number in found:
        assert isinstance(number.source, Tracked)
        values = [
            evidence.by_id[run_id].metrics[number.source.metric] for run_id in number.source.run_ids
        ]
        assert number.value == REDUCTIONS[number.source.how](values)
    return len(found)


def number_of(cell: Cell) -> Number:
    """The number of a cell, or its mean."""
    assert not isinstance(cell, str), cell
    return cell.mean if isinstance(cell, MeanStd) else cell
