"""An experiment of made-up runs, built by hand, and what a section shows of it.

For the sections of the report: their means and spreads can be computed by hand. That the pipeline
tracks such runs is asserted with a recorded experiment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.report.run_table import Runs
from experiments.report.tables import Entry, Number, Section, Table
from experiments.run.about import about
from orchestration.tracking.params import flatten_params
from orchestration.tracking.reader import TrackedRun

SPACE = {"space.input.resolution": "28", "space.input.num_classes": "10"}


class MadeUpRuns:
    """Runs of an experiment, one after the other, and their artifacts."""

    def __init__(self) -> None:
        self.tracked: list[TrackedRun] = []
        self.records: dict[str, Mapping[str, Any] | None] = {}
        self.documents: dict[tuple[str, str], str] = {}
        self.asked: Counter[str] = Counter()  # for their records

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
            started_at=float(len(self.tracked)),
        )
        self.tracked.append(run)
        return run_id

    def change(self, index: int, field: str, **values: Any) -> None:
        """Set some params, metrics or tags of a run that was added."""
        run = self.tracked[index]
        changes: dict[str, Any] = {field: {**getattr(run, field), **values}}
        self.tracked[index] = replace(run, **changes)

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

    def scored_supernet(
        self,
        run_id: str,
        space: Mapping[str, Any],
        history: Sequence[Sequence[Sequence[float]]],
        *,
        trainable: str = "bn",
        seed: int = 0,
        epochs: int | None = None,
        status: str = "FINISHED",
        **recipe: Any,
    ) -> str:
        """With the scores of every layer's candidates after every epoch, and its record."""
        section = {"trainable": trainable, "epochs": len(history) if epochs is None else epochs}
        config: dict[str, Any] = {
            "space": space,
            "seed": seed,
            "data": {"name": "digits"},
            "supernet": {**section, "early_bird": None, **recipe},
        }
        scores = [
            {
                f"score/{layer:02d}.{choice}": score
                for layer, of_layer in enumerate(of_epoch)
                for choice, score in enumerate(of_layer)
            }
            for of_epoch in history
        ]
        rows = [{"epoch": epoch, **each} for epoch, each in enumerate(scores, start=1)]
        self.records[run_id] = {"config": config, "history": rows}
        metrics = {"epochs": float(len(history)), "device_hours": 0.5 + seed}
        params = flatten_params({**config, **about("supernet", config).params})
        return self.add(run_id, "supernet", params, metrics, status=status)

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
    def runs(self) -> Runs:
        """As a section of the report takes them."""
        return Runs("test", tuple(self.tracked), 0, self)

    # The artifacts of the runs.

    def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        self.asked[run.run_id] += 1
        return self.records.get(run.run_id)

    def document(self, run: TrackedRun, path: str) -> str | None:
        return self.documents.get((run.run_id, path))

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        return []


def space_of(num_layers: int, candidates: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A search space whose layers choose among the same (kernel, expansion)."""
    stage = {"channels": 4, "layers": num_layers, "stride": 1}
    return {
        "input": {"channels": 1, "resolution": 8, "num_classes": 10},
        "stem": {"channels": 4, "stride": 1},
        "first_block": {"channels": 4, "kernel": 3, "stride": 1},
        "stages": [{**stage, "candidates": [list(each) for each in candidates]}],
        "head": {"channels": 8},
        "fixed_identity": [],
        "se": False,
    }


def two_seeds() -> MadeUpRuns:
    """A sweep of one setting with two seeds."""
    runs = MadeUpRuns()
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


def names(section: Section) -> list[str]:
    """Of its tables."""
    return [each.name for each in section.tables]


def value(cell: Entry) -> float:
    """With all digits, in the unit of the metric."""
    assert isinstance(cell, Number), cell
    return cell.value


def row(found: Table, place: int = 0) -> dict[str, Entry]:
    """Heading → cell of a row."""
    return dict(zip(found.columns, found.rows[place], strict=True))
