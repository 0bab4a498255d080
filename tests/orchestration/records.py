"""Stage records for the tests, and what MLflow shows."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.store.stage_store import StageRecord

if TYPE_CHECKING:
    from mlflow.entities import Run


def make_record(kind: str = "supernet", seed: int = 0, **changes: Any) -> StageRecord:
    """A record of three epochs, the second of which diverged."""
    config: dict[str, JSON] = {
        "seed": seed,
        "supernet": {"epochs": 3, "trainable": "bn", "betas": [0.9, 1]},
    }
    record = StageRecord(
        kind=kind,
        fingerprint=fingerprint(kind, config, code_version=1),
        config=config,
        inputs={"data": "ab" * 32},
        result={"arch": [3, -1, 0], "scores": [[0.5, math.inf]]},
        history=[
            {"epoch": 1, "train/loss": 2.5, "val/top1": 0.1},
            {"epoch": 2, "train/loss": math.nan, "val/top1": 0.2},
            {"epoch": 3, "train/loss": math.inf, "val/top1": 0.3, "score/00.1": 0.5},
        ],
        metrics={"top1": 0.3, "flops": 473.5e6, "params": math.nan},
        device_hours=0.25,
        wall_s=450.0,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_450.5,
        code={"commit": "0" * 40},
    )
    return dataclasses.replace(record, **changes)


def all_runs(uri: str, experiment: str = "e") -> list[Run]:
    """The runs of an experiment; none where there is no such experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def steps(uri: str, run_id: str, key: str) -> list[int]:
    """The steps at which a metric was logged."""
    from mlflow import MlflowClient

    return [metric.step for metric in MlflowClient(uri).get_metric_history(run_id, key)]
