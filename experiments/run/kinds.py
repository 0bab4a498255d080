"""What each kind of experiment shows of itself: a class a kind."""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config.experiment import CellConfig, Kind
from experiments.config.load import AXES, dump_config
from experiments.plan.graph import ExperimentPlan, recipe
from experiments.run.groups import (
    Ending,
    cell_metrics,
    cell_run,
    chain_run,
    group_run,
    retrained_of,
    run_ids_by_kind,
    winner_param,
)
from experiments.run.result import ChainResult, Result
from experiments.stages.detect import coco_metrics, detection_json
from orchestration.store.json_text import JSON
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.links import compare
from orchestration.tracking.models import register_winner
from orchestration.tracking.tracker import Tracker, TrackingError

_log = logging.getLogger(__name__)


class CellResult(Result):
    """Of a single cell: the experiment's run is that of the cell."""

    is_single = True

    @classmethod
    def run_of(cls, plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]) -> GroupRun:
        """That of the cell."""
        assert plan.group is not None  # only a detector has none
        return cell_run(plan.cells[0], tracker, group=plan.group, tags=tags)

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the cell, and the best of the random baseline."""
        records = self.cells[0].records
        others = [each.retrained for each in self.baseline if each.retrained is not None]
        return cell_metrics(records, others) if records else {}

    @property
    def ending(self) -> Ending:
        """It names the architecture that was found, and the runs of the cell's stages."""
        if self.winner is None:
            return super().ending
        params, inputs = winner_param(self.winner.records), run_ids_by_kind(self.winner.stages)
        return replace(super().ending, params=params, inputs=inputs)

    def _json(self) -> dict[str, Any]:
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


class SweepResult(Result):
    """Of a grid of cells, each with a run below that of the sweep."""

    figure_section = "ablation"

    @classmethod
    def run_of(cls, plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]) -> GroupRun:
        """It says what its grid is made of."""
        experiment = plan.experiment
        first = experiment.cells[0]
        short = {path: name for name, path in AXES.items()}
        grid: dict[str, JSON] = {
            short.get(path, path): list(values) for path, values in experiment.axes.items()
        }
        params: dict[str, JSON] = {
            "grid": grid,
            "seeds": sorted({cell.seed for cell in experiment.cells}),
            "space": Path(first.space).stem,
            "data": first.data.name,
            "max_flops": first.search.max_flops,
            "retrain_epochs": first.retrain.epochs,
            "num_random": first.random_baseline.num_architectures,
        }
        return group_run(plan, tracker, tags, params)

    @property
    def random_metrics(self) -> dict[str, float]:
        """Test top-1 of random architectures (section 4.5.1): the best of each draw, and any.

        Means, and with `_std` the standard deviation where there are several.
        """
        drawn_together: dict[tuple[int, str], list[float]] = {}
        for each in self.baseline:
            if each.retrained is not None:
                top1 = each.retrained.metrics["top1"]
                draw = (each.chain.config.seed, recipe(each.chain.config))
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
        """The best cell's, the random architectures', and what all of it cost."""
        metrics = {
            "device_hours": sum(record.device_hours for record in self.records),
            "wall_s": _wall_s(self.records),
            "num_cells": float(len(self.cells)),
            "num_failed": float(len(self.failures)),
            **self.random_metrics,
        }
        if self.winner is not None:
            best = retrained_of(self.winner.records).metrics
            metrics |= {name: best[name] for name in ("top1", "flops", "params")}
        return metrics if self.detected is None else metrics | coco_metrics(self.detected)

    @property
    def ending(self) -> Ending:
        """It names the best cell."""
        if self.winner is None:
            return super().ending
        return replace(super().ending, params={"winner": self.winner.chain.name})

    @property
    def registered(self) -> ChainResult | None:
        """The best cell, where MLflow has its network."""
        winner = self.winner
        return winner if winner is not None and winner.stages[-1].mlflow_run_id else None

    def end(self, run: GroupRun, tracker: Tracker, tags: Mapping[str, str]) -> None:
        """The best network is registered, and its cell's run shows the detector on it, too."""
        if self.registered is not None:
            self._register(self.registered, tracker)
        if self.detected is not None and self.winner is not None:
            cell = chain_run(self.winner.chain, tracker, tags, self.run_id)
            assert cell is not None  # as every cell of a sweep
            detect = run_ids_by_kind(self.chains[-1].stages[-1:])
            Ending(metrics=coco_metrics(self.detected), inputs=detect).show(cell, None, None)
        super().end(run, tracker, tags)

    def _register(self, winner: ChainResult, tracker: Tracker) -> None:
        run_id, cell = winner.stages[-1].mlflow_run_id, winner.chain.name
        assert run_id is not None  # it is tracked
        description = f"Found by the cell {cell} of the sweep {self.name}."
        try:
            register_winner(tracker, name=self.name, run_id=run_id, description=description)
        except TrackingError as error:
            _log.warning("The winner of %s is not registered in MLflow: %s", self.name, error)

    def compare_page(self, tracker: Tracker) -> str | None:
        """MLflow's own, of the cells."""
        return compare(tracker, [cell.run_id for cell in self.cells if cell.run_id is not None])

    def note(self, tracker: Tracker) -> str:
        """What was found, below a link to MLflow's own page that compares the cells."""
        page = self.compare_page(tracker)
        if page is None:
            return self._description()
        return f"[Compare the cells]({page.removeprefix('/')})\n\n{self._description()}"

    def _files(self) -> dict[str, str]:
        return {f"{cell.name}.yaml": dump_config(cell) for cell in self.plan.experiment.cells}

    def _json(self) -> dict[str, Any]:
        return {
            "cells": [_cell_json(each) for each in self.cells],
            "random_baseline": None,
            **self.random_metrics,
            "random_architectures": [
                {
                    "seed": each.chain.config.seed,
                    **each.network_json,
                    "arch": str(each.chain.stages[0].config["arch"]),
                }
                for each in self.baseline
            ],
            "winner": None if self.winner is None else self.winner.chain.name,
            "detection": self._detection_json(),
            **self._counts_json(),
            "mlflow_run_id": self.run_id,
        }


def _wall_s(records: Iterable[StageRecord]) -> float:
    """Seconds in which at least one of some stages was being made."""
    total_s = until_s = 0.0
    for start_s, end_s in sorted((record.started_at, record.finished_at) for record in records):
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s


def _cell_json(cell: ChainResult) -> dict[str, Any]:
    config = cell.chain.config
    assert isinstance(config, CellConfig)
    return {
        "name": cell.chain.name,
        "trainable": config.supernet.trainable,
        "indicator": config.search.indicator,
        "epochs": config.supernet.epochs,
        "seed": config.seed,
        **cell.chain.axes,
        **cell.network_json,
        "device_hours": cell.device_hours if cell.records else None,
        "mlflow_run_id": cell.run_id,
    }


class StudyResult(Result):
    """Of a correlation study."""

    figure_section = "correlation"

    @classmethod
    def run_of(cls, plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]) -> GroupRun:
        """It says what was compared, and on what."""
        first = plan.experiment.cells[0]
        params: dict[str, JSON] = {
            "space": plan.cells[0].space.name,
            "data": first.data.name,
            "seeds": [cell.config.seed for cell in plan.cells],
            "num_architectures": len(plan.archs),
            "num_bins": first.correlate.num_bins,
            "indicators": list(first.correlate.indicators),
            "supernet_epochs": first.supernet.epochs,
            "trainable": first.supernet.trainable,
            "retrain_epochs": first.retrain.epochs,
        }
        return group_run(plan, tracker, tags, params)

    @property
    def metrics(self) -> dict[str, float]:
        """The study's own."""
        return {} if self.study is None else self.study.metrics

    def note(self, tracker: Tracker) -> None:
        """A study has no network to describe."""

    def _files(self) -> dict[str, str]:
        files = {"config.yaml": dump_config(self.plan.experiment.cells[0])}
        return files if self.study is None else {**files, "correlation.csv": self.study.csv()}

    def _json(self) -> dict[str, Any]:
        study = self.study
        return {
            "seeds": [cell.config.seed for cell in self.plan.cells],
            "metrics": {} if study is None else study.metrics,
            "architectures": [] if study is None else study.table(),
            **self._counts_json(),
            "mlflow_run_id": self.run_id,
            "figures": str(self.figures),
        }


class DetectorResult(Result):
    """Of a detector alone, which has no run above that of its stage."""

    is_single = True

    @classmethod
    def run_of(cls, plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]) -> None:
        """There is none."""

    @property
    def metrics(self) -> dict[str, float]:
        """None: no run shows them."""
        return {}

    def _json(self) -> dict[str, Any]:
        assert self.detected is not None  # one that failed is an error of the command
        stages = self._stages_json()
        return {
            **detection_json(self.detected),
            "stages": stages,
            "mlflow_run_id": stages[-1]["mlflow_run_id"],
            "figures": str(self.figures),
        }


RESULTS: Mapping[Kind, type[Result]] = {
    "run": CellResult,
    "sweep": SweepResult,
    "correlate": StudyResult,
    "detect": DetectorResult,
}


def experiment_run(
    plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]
) -> GroupRun | None:
    """The run of a whole experiment; a detector has none above that of its stage."""
    return RESULTS[plan.experiment.kind].run_of(plan, tracker, tags)
