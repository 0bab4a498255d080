"""What a sweep found, as values: the rows that the table, the figure and `--json` are made of."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Any

from experiments.plan.cell import CellPlan, validation_top1
from experiments.plan.sweep import RandomPlan, SweepPlan
from experiments.stages.detect import coco_of, detection_json, said
from nas.space import format_architecture
from orchestration.store.stage_store import StageRecord


@dataclass(frozen=True)
class CellRow:
    """One cell.

    Attributes:
        plan: what was asked for.
        chain: the records that led to the result, the retraining last; empty where it failed.
        error: why it failed.
        run_id: its MLflow run, where there is one.
        retrain_run_id: that of its retraining.
    """

    plan: CellPlan
    chain: tuple[StageRecord, ...]
    error: str | None
    run_id: str | None
    retrain_run_id: str | None

    @property
    def retrained(self) -> StageRecord | None:
        """The retraining of the architecture that was found."""
        return self.chain[-1] if self.chain else None

    @property
    def device_hours(self) -> float:
        """What the cell costs on its own, stages that it shares included."""
        return sum(record.device_hours for record in self.chain)

    def to_json(self) -> dict[str, Any]:
        """An entry of `cells` in `bnnas sweep --json`."""
        config, found = self.plan.config, self.retrained
        metrics = {} if found is None else found.metrics
        return {
            "name": config.name,
            "trainable": config.supernet.trainable,
            "indicator": config.search.indicator,
            "epochs": config.supernet.epochs,
            "seed": config.seed,
            "status": "done" if found is not None else "failed",
            "error": self.error,
            "arch": None if found is None else found.result["arch"],
            "flops": metrics.get("flops"),
            "params": metrics.get("params"),
            "top1": metrics.get("top1"),
            "device_hours": self.device_hours if self.chain else None,
            "mlflow_run_id": self.run_id,
        }


@dataclass(frozen=True)
class RandomRow:
    """One random architecture; `retrained` is None where that failed, and `error` says why."""

    plan: RandomPlan
    retrained: StageRecord | None
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """An entry of `random_architectures` in `bnnas sweep --json`."""
        metrics = {} if self.retrained is None else self.retrained.metrics
        return {
            "seed": self.plan.cell.config.seed,
            "status": "done" if self.retrained is not None else "failed",
            "error": self.error,
            "arch": format_architecture(self.plan.arch),
            "flops": metrics.get("flops"),
            "params": metrics.get("params"),
            "top1": metrics.get("top1"),
        }


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has come to its end.

    Attributes:
        plan: what was asked for.
        cells: in the order of the plan.
        baseline: likewise.
        executed: fingerprints of the stages that were made.
        cached: fingerprints of those that were there before.
        run_id: the sweep's MLflow run.
        detected: the detector on the winner's network, where one was asked for.
        detection_error: why it failed.
    """

    plan: SweepPlan
    cells: tuple[CellRow, ...]
    baseline: tuple[RandomRow, ...]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    run_id: str
    detected: StageRecord | None = None
    detection_error: str | None = None

    @property
    def failures(self) -> dict[str, str]:
        """What failed, by name, and why."""
        failed = {row.plan.config.name: row.error for row in self.cells if row.error}
        for row in self.baseline:
            if row.error:
                failed[f"random {format_architecture(row.plan.arch)}"] = row.error
        if self.detection_error is not None:
            failed["detection"] = self.detection_error
        return failed

    @property
    def random_baseline(self) -> float | None:
        """Test top-1 of the best random architecture (section 4.5.1); the mean over seeds."""
        return self.random_metrics.get("random_baseline")

    @property
    def random_metrics(self) -> dict[str, float]:
        """Test top-1 of random architectures: of the best of each seed, and of any of them.

        Means, and with `_std` the standard deviation where there are several.
        """
        by_seed: dict[int, list[float]] = {}
        for row in self.baseline:
            if row.retrained is not None:
                top1 = row.retrained.metrics["top1"]
                by_seed.setdefault(row.plan.cell.config.seed, []).append(top1)
        metrics = {}
        for name, found in (
            ("random_baseline", [max(top1) for top1 in by_seed.values()]),
            ("random_top1", list(itertools.chain(*by_seed.values()))),
        ):
            if found:
                metrics[name] = statistics.fmean(found)
            if len(found) > 1:
                metrics[f"{name}_std"] = statistics.stdev(found)
        return metrics

    @property
    def winner(self) -> CellRow | None:
        """The cell whose network does best on the search-validation images.

        Not on the test set: who chooses by it can no longer report it.
        """
        done = [row for row in self.cells if row.chain]
        return max(done, key=lambda row: validation_top1(row.chain[-1]), default=None)

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """Every stage of the sweep once."""
        found = [record for row in self.cells for record in row.chain]
        found += [row.retrained for row in self.baseline if row.retrained is not None]
        found += [] if self.detected is None else [self.detected]
        return tuple({record.fingerprint: record for record in found}.values())

    @property
    def metrics(self) -> dict[str, float]:
        """The sweep's numbers, as its MLflow run shows them."""
        metrics = {
            "device_hours": sum(record.device_hours for record in self.records),
            "wall_s": sum(record.wall_s for record in self.records),
            "num_cells": float(len(self.cells)),
            "num_failed": float(len(self.failures)),
        }
        metrics |= self.random_metrics
        if self.winner is not None:
            found = self.winner.chain[-1].metrics
            metrics |= {name: found[name] for name in ("top1", "flops", "params")}
        if self.detected is not None:
            metrics |= coco_of(self.detected)
        return metrics

    def summary(self) -> str:
        """What was found, in Markdown: the description of the sweep's MLflow run."""
        lines = [
            "| cell | architecture | FLOPs | params | test top-1 | device hours |",
            "|---|---|--:|--:|--:|--:|",
        ]
        for row in self.cells:
            if row.retrained is None:
                lines.append(f"| {row.plan.config.name} | failed: {row.error} | | | | |")
            else:
                lines.append(_line(row.plan.config.name, row.retrained, row.device_hours))
        for random in self.baseline:
            if random.retrained is not None:
                lines.append(_line("random", random.retrained, random.retrained.device_hours))
        if self.detected is not None:
            lines += ["", f"Detector on the winner's network: {said(self.detected.metrics)}."]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What `bnnas sweep --json` prints; top-1 is a fraction, FLOPs are multiply-adds."""
        return {
            "status": "failed" if self.failures else "done",
            "name": self.plan.sweep.name,
            "cells": [row.to_json() for row in self.cells],
            "random_baseline": None,
            **self.random_metrics,
            "random_architectures": [row.to_json() for row in self.baseline],
            "winner": None if self.winner is None else self.winner.plan.config.name,
            "detection": None if self.detected is None else detection_json(self.detected),
            "executed": len(self.executed),
            "cached": len(self.cached),
            "failed": len(self.failures),
            "failures": self.failures,
            "mlflow_run_id": self.run_id,
        }


def _line(name: str, record: StageRecord, device_hours: float) -> str:
    metrics = record.metrics
    return (
        f"| {name} | `{record.result['arch']}` | {metrics['flops']:,.0f} | "
        f"{metrics['params']:,.0f} | {metrics['top1']:.2%} | {device_hours:.4f} |"
    )
