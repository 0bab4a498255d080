"""Sweeps that nobody has trained, tracked as if: plans, searches and MLflow runs are the real ones.

Only what training would measure is drawn at random: losses, scores, accuracies, times. That gives a
report as many runs and as long histories as a test or a measurement wants, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.config.experiment import Experiment
from experiments.plan.cell_plan import CellPlan
from experiments.plan.chain import Chain
from experiments.plan.decides import SearchContent
from experiments.plan.graph import plan_experiment
from experiments.run.groups import chain_run
from experiments.run.kinds import experiment_run
from experiments.run.provenance import provenance, source_tags
from experiments.stages.search import search_table
from experiments.stages.supernet import record_scores
from nas.cost import COST_TABLES
from nas.indicators import additive_scores
from nas.space import parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.tracker import INPUT, Tracker

_STARTED_S = 1_700_000_000.0
_NUM_TEST_IMAGES = 10_000.0


class TrackedSweep:
    """Tracks a sweep.

    Args:
        sweep: its indicators must be sums over layers.
        tracker: where to.
        seed: of what is drawn at random.
    """

    def __init__(self, sweep: Experiment, tracker: Tracker, seed: int = 0) -> None:
        self._plan = plan_experiment(sweep)
        self._tracker = tracker
        self._rng = np.random.default_rng(seed)
        self._code = provenance()
        self._shown: dict[str, tuple[str, StageRecord]] = {}

    def track(self) -> str:
        """Every cell with all its stages; returns the sweep's run id."""
        run = experiment_run(self._plan, self._tracker, source_tags(self._code))
        assert run is not None
        run_id = run.start()
        for chain in self._plan.chains:
            if chain.is_cell:
                self._track_cell(chain, run_id)
        run.finish(metrics={"random_baseline": float(self._rng.uniform(0.8, 0.85))})
        return run_id

    def _track_cell(self, chain: Chain, parent_run_id: str) -> None:
        plan, run = (
            chain.cell,
            chain_run(chain, self._tracker, source_tags(self._code), parent_run_id),
        )
        assert plan is not None
        assert run is not None  # as every cell of a sweep
        run_id = run.start()
        inputs: dict[str, str] = {}
        scores_LN = None
        if plan.supernet is not None:
            inputs["supernet"], supernet = self._supernet(plan, plan.supernet, run_id)
            scores_LN = supernet
        search = self._publish(plan.search, run_id, inputs, **self._search(plan, scores_LN))
        arch = search[1].result["arch"]
        retrained = self._retrain(plan, plan.retrain(parse_architecture(arch)), run_id, search[0])
        tags = {f"{INPUT}{kind}": shown for kind, shown in inputs.items()}
        run.finish(
            metrics={
                **{name: retrained[1].metrics[name] for name in ("top1", "flops", "params")},
                "device_hours": 0.5,
                "wall_s": 1800.0,
            },
            params={"winner": arch},
            tags={**tags, f"{INPUT}search": search[0], f"{INPUT}retrain": retrained[0]},
        )

    def _supernet(
        self, plan: CellPlan, stage: Stage, parent_run_id: str
    ) -> tuple[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Its run, and the scores after the last epoch: a walk that comes to rest."""
        space, num_epochs = plan.space, plan.config.supernet.epochs
        missing_LN = np.isnan(additive_scores("flops", space, bn_scores_LN=None, seed=0))
        scores_LN = np.where(missing_LN, np.nan, self._rng.uniform(0.1, 1, missing_LN.shape))
        history = []
        for epoch in range(1, num_epochs + 1):
            scores_LN = scores_LN + self._rng.normal(0, 0.1 / epoch, scores_LN.shape)
            row = {"epoch": float(epoch), "train/loss": 2.3 / epoch, "train/top1": 0.1}
            history.append(row | record_scores(scores_LN))
        sizes = {"trained_params": 1e4, "supernet_params": 1e5, "epochs": float(num_epochs)}
        run_id, _ = self._publish(
            stage, parent_run_id, {}, result={"epochs": num_epochs}, history=history, metrics=sizes
        )
        return run_id, scores_LN

    def _search(self, plan: CellPlan, bn_scores_LN: Any) -> dict[str, Any]:
        content = SearchContent.model_validate(plan.search.config)
        indicator = content.search.indicator
        table_LN = additive_scores(indicator, plan.space, bn_scores_LN=bn_scores_LN, seed=0)
        outcome = search_table(content, table_LN)
        return {"result": outcome.result, "metrics": outcome.metrics, "history": []}

    def _retrain(
        self, plan: CellPlan, stage: Stage, parent_run_id: str, search_run_id: str
    ) -> tuple[str, StageRecord]:
        arch = parse_architecture(str(stage.config["arch"]))
        costs = {name: table(plan.space).of(arch) for name, table in COST_TABLES.items()}
        top1 = float(self._rng.uniform(0.8, 0.9))
        history = [
            {"epoch": float(epoch), "train/loss": 2.3 / epoch, "val/top1": top1 - 0.1 / epoch}
            for epoch in range(1, plan.config.retrain.epochs + 1)
        ]
        measured = {"top1": top1, "test_loss": 0.5, "num_test_images": _NUM_TEST_IMAGES}
        return self._publish(
            stage,
            parent_run_id,
            {"search": search_run_id},
            result={"arch": stage.config["arch"], **measured, **costs},
            history=history,
            metrics={**measured, **costs},
        )

    def _publish(
        self, stage: Stage, parent_run_id: str, inputs: Mapping[str, str], **found: Any
    ) -> tuple[str, StageRecord]:
        if stage.fingerprint in self._shown:
            return self._shown[stage.fingerprint]
        wall_s = float(self._rng.uniform(10, 1000))
        record = StageRecord(
            kind=stage.kind,
            fingerprint=stage.fingerprint,
            config=stage.config,
            inputs=stage.inputs,
            device_hours=wall_s / 3600,
            wall_s=wall_s,
            started_at=_STARTED_S,
            finished_at=_STARTED_S + wall_s,
            code=self._code,
            **found,
        )
        run_id = self._tracker.publish(
            record,
            name=stage.name,
            tags={f"{INPUT}{kind}": shown for kind, shown in inputs.items()},
            parent_run_id=parent_run_id,
        )
        self._shown[stage.fingerprint] = run_id, record
        return self._shown[stage.fingerprint]
