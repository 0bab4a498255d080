"""What an experiment found, as values: what `--json` prints, and what its MLflow run shows."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.experiment import CellConfig
from experiments.plan.graph import BASELINE, DETECTION, ExperimentPlan, recipe, validation_rank
from experiments.plan.tasks import Task
from experiments.run.groups import axes_of, cell_metrics, note, retrained_of
from experiments.run.study import Study
from experiments.stages.detect import coco_metrics, detection_json, format_metrics
from orchestration.store.stage_store import StageRecord


@dataclass(frozen=True)
class TaskResult:
    """How a task has ended.

    Attributes:
        task: what was to be made.
        records: of its stages, in their order; empty where it failed.
        error: why it failed.
        details: traceback of the worker in which it did.
        is_wrong_request: whether it failed because of what was asked for.
        run_id: the task's own MLflow run, where it has one.
        stages: its stages as `--json` shows them, less the device hours.
    """

    task: Task
    records: tuple[StageRecord, ...] = ()
    error: str | None = None
    details: str = ""
    is_wrong_request: bool = False
    run_id: str | None = None
    stages: tuple[Mapping[str, Any], ...] = ()

    @property
    def retrained(self) -> StageRecord | None:
        """The retraining of the task's architecture."""
        return retrained_of(self.records) if self.records else None

    @property
    def device_hours(self) -> float:
        """What it costs on its own, stages that it shares included."""
        return sum(record.device_hours for record in self.records)

    @property
    def network_json(self) -> dict[str, Any]:
        """Status, architecture and numbers of its retrained network."""
        metrics = {} if self.retrained is None else self.retrained.metrics
        return {
            "status": "failed" if self.retrained is None else "done",
            "error": self.error,
            "arch": None if self.retrained is None else self.retrained.result["arch"],
            "flops": metrics.get("flops"),
            "params": metrics.get("params"),
            "top1": metrics.get("top1"),
            "val_top1": None if self.retrained is None else self.retrained.history[-1]["val/top1"],
        }


@dataclass(frozen=True)
class Result:
    """An experiment that has come to its end.

    Attributes:
        plan: what was asked for.
        tasks: in the order of the plan; a sweep's detector last.
        executed: fingerprints of the stages that were made.
        cached: fingerprints of those that were there before.
        run_id: the experiment's MLflow run; None where it has none, or it could not be told.
        figures: folder of figures and configs, on this machine.
        study: the numbers of a correlation study; None of other kinds, and where too few
            architectures have all their measurements.
        detection_error: why a sweep's detector was not begun.
    """

    plan: ExperimentPlan
    tasks: tuple[TaskResult, ...]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    run_id: str | None
    figures: Path
    study: Study | None = None
    detection_error: str | None = None

    @property
    def kind(self) -> str:
        """The experiment's."""
        return self.plan.experiment.kind

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.plan.experiment.name

    @property
    def cells(self) -> tuple[TaskResult, ...]:
        """Those that are cells."""
        return tuple(each for each in self.tasks if each.task.is_cell)

    @property
    def baseline(self) -> tuple[TaskResult, ...]:
        """Those of the random baseline."""
        return tuple(each for each in self.tasks if each.task.member == BASELINE)

    @property
    def detected(self) -> StageRecord | None:
        """The detector, where one was asked for and made."""
        return next((each for each in self.records if each.kind == "detect"), None)

    @property
    def failures(self) -> dict[str, str]:
        """What failed, by name, and why."""
        failed = {}
        for each in self.tasks:
            if each.error:
                label, member = each.task.label, each.task.member
                is_told_apart = self.kind != "correlate" or member in label
                failed[label if is_told_apart else f"{label}, {member}"] = each.error
        if self.detection_error is not None:
            failed[DETECTION] = self.detection_error
        return failed

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """Every stage once."""
        records = [record for each in self.tasks for record in each.records]
        return tuple({record.fingerprint: record for record in records}.values())

    @property
    def winner(self) -> TaskResult | None:
        """The cell whose network does best on the search-validation images.

        Not on the test set: who chooses by it can no longer report it.
        """
        done = [each for each in self.cells if each.records]
        return max(done, key=lambda each: validation_rank(retrained_of(each.records)), default=None)

    @property
    def registered(self) -> str | None:
        """The cell whose network is registered in MLflow: of a sweep the winner."""
        winner = self.winner if self.kind == "sweep" else None
        is_tracked = winner is not None and winner.stages[-1]["mlflow_run_id"] is not None
        return winner.task.name if winner is not None and is_tracked else None

    @property
    def random_metrics(self) -> dict[str, float]:
        """Test top-1 of random architectures (section 4.5.1): the best of each draw, and any.

        Means, and with `_std` the standard deviation where there are several.
        """
        drawn_together: dict[tuple[int, str], list[float]] = {}
        for each in self.baseline:
            if each.retrained is not None:
                top1 = each.retrained.metrics["top1"]
                draw = (each.task.config.seed, recipe(each.task.config))
                drawn_together.setdefault(draw, []).append(top1)
        metrics = {}
        for name, top1s in (
            ("random_baseline", [max(top1) for top1 in drawn_together.values()]),
            ("random_top1", list(itertools.chain(*drawn_together.values()))),
        ):
            if top1s:
                metrics[name] = statistics.fmean(top1s)
            if len(top1s) > 1:
                metrics[f"{name}_std"] = statistics.stdev(top1s)
        return metrics

    @property
    def metrics(self) -> dict[str, float]:
        """The experiment's numbers, as its MLflow run shows them."""
        if self.kind == "correlate":
            return {} if self.study is None else self.study.metrics
        if self.kind == "run":
            chain = self.cells[0].records
            others = [each.retrained for each in self.baseline if each.retrained is not None]
            return cell_metrics(chain, others) if chain else {}
        metrics = {
            "device_hours": sum(record.device_hours for record in self.records),
            "wall_s": sum(record.wall_s for record in self.records),
            "num_cells": float(len(self.cells)),
            "num_failed": float(len(self.failures)),
            **self.random_metrics,
        }
        if self.winner is not None:
            best = retrained_of(self.winner.records).metrics
            metrics |= {name: best[name] for name in ("top1", "flops", "params")}
        return metrics if self.detected is None else metrics | coco_metrics(self.detected)

    def note(self) -> str:
        """What was found, in Markdown."""
        rows = [(each.task.label, each.retrained or str(each.error)) for each in self.cells]
        rows += [("random", each.retrained) for each in self.baseline if each.retrained is not None]
        text = note(rows)
        if self.detected is not None:
            text += f"\n\nDetector on this backbone: {format_metrics(self.detected.metrics)}."
        return text

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints; top-1 and APs are fractions, FLOPs are multiply-adds."""
        of_kind = {
            "run": self._run_json,
            "sweep": self._sweep_json,
            "correlate": self._study_json,
            "detect": self._detector_json,
        }
        status = "failed" if self.failures else "done"
        return {"status": status, "name": self.name, **of_kind[self.kind]()}

    def _run_json(self) -> dict[str, Any]:
        cell = self.cells[0]
        assert cell.retrained is not None  # a cell that failed is an error of the command
        return {
            "arch": cell.retrained.result["arch"],
            "random_baseline": None,
            **self.metrics,
            "num_test_images": int(cell.retrained.metrics["num_test_images"]),
            "num_skipped": int(cell.retrained.metrics["num_skipped"]),
            "random_architectures": [
                dict(each.retrained.result) for each in self.baseline if each.retrained is not None
            ],
            "detection": self._detection_json(),
            "stages": self._stages_json(),
            "failures": self.failures,
            "mlflow_run_id": self.run_id,
            "figures": str(self.figures),
        }

    def _sweep_json(self) -> dict[str, Any]:
        return {
            "cells": [self._cell_json(each) for each in self.cells],
            "random_baseline": None,
            **self.random_metrics,
            "random_architectures": [
                {"seed": each.task.config.seed, **each.network_json, "arch": _arch_of(each.task)}
                for each in self.baseline
            ],
            "winner": None if self.winner is None else self.winner.task.name,
            "detection": self._detection_json(),
            **self._counts_json(),
            "mlflow_run_id": self.run_id,
        }

    def _cell_json(self, cell: TaskResult) -> dict[str, Any]:
        config = cell.task.config
        assert isinstance(config, CellConfig)
        return {
            "name": cell.task.name,
            "trainable": config.supernet.trainable,
            "indicator": config.search.indicator,
            "epochs": config.supernet.epochs,
            "seed": config.seed,
            **axes_of(self.plan.experiment, config),
            **cell.network_json,
            "device_hours": cell.device_hours if cell.records else None,
            "mlflow_run_id": cell.run_id,
        }

    def _study_json(self) -> dict[str, Any]:
        study = self.study
        return {
            "seeds": [cell.config.seed for cell in self.plan.cells],
            "metrics": {} if study is None else study.metrics,
            "architectures": [] if study is None else study.table(),
            **self._counts_json(),
            "mlflow_run_id": self.run_id,
            "figures": str(self.figures),
        }

    def _detector_json(self) -> dict[str, Any]:
        assert self.detected is not None  # one that failed is an error of the command
        stages = self._stages_json()
        return {
            **detection_json(self.detected),
            "stages": stages,
            "mlflow_run_id": stages[-1]["mlflow_run_id"],
            "figures": str(self.figures),
        }

    def _detection_json(self) -> dict[str, Any] | None:
        return None if self.detected is None else detection_json(self.detected)

    def _stages_json(self) -> list[dict[str, Any]]:
        stages = [
            {**stage, "device_hours": record.device_hours}
            for each in self.tasks
            for stage, record in zip(each.stages, (*each.task.given, *each.records), strict=True)
        ]
        return sorted(stages, key=lambda stage: stage["kind"] == "detect")  # after the baseline

    def _counts_json(self) -> dict[str, Any]:
        return {
            "executed": len(self.executed),
            "cached": len(self.cached),
            "failed": len(self.failures),
            "failures": self.failures,
        }


def _arch_of(task: Task) -> str:
    """The architecture of a retraining that was asked for."""
    return str(task.stages[0].config["arch"])
