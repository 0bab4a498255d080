"""Stages without a cluster: their work in this process, or a record of what a test says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.plan.cell_plan import CellPlan
from experiments.stages.worker_place import WorkerPlace
from orchestration.jobs.train_job import Work
from orchestration.jobs.worker import LocalWorkerContext
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from tests.interrupted import in_pieces

EPOCH_S = 30.0


def supernet_of(cell: CellPlan) -> Stage:
    assert cell.supernet is not None
    return cell.supernet


def put(
    store: StageStore, stage: Stage, context: LocalWorkerContext | None = None, **changes: Any
) -> StageRecord:
    """Have the store hold a stage: with what its work has left, or as changed.

    By default it took two epochs of half a minute, and an hour.
    """
    section = stage.config.get(stage.kind, {})
    epochs = [{"epoch": float(n), "train/epoch_s": EPOCH_S} for n in range(1, 3)]
    values: dict[str, Any] = {
        "kind": stage.kind,
        "fingerprint": stage.fingerprint,
        "config": stage.config,
        "inputs": stage.inputs,
        "result": {"arch": stage.config.get("arch")},
        "history": [] if section.get("searcher") == "exact" else epochs,
        "metrics": {},
        "device_hours": 1.0,
        "wall_s": 3600.0,
        "started_at": 0.0,
        "finished_at": 3600.0,
    }
    if context is None:
        return store.put(StageRecord(**{**values, **changes}))
    assert context.checkpoint is not None
    values["history"] = context.history
    return store.put(StageRecord(**{**values, **changes}), context.checkpoint)


def payload(stage: Stage, folder: Path, *, supernet: str | None = None) -> dict[str, Any]:
    """What a worker of a stage gets, whose storage is `runs` in a folder."""
    where = WorkerPlace(str(folder / "runs"), supernet=supernet)
    return {"stage": dict(stage.config), "place": asdict(where)}


def run(work: Work, config: dict[str, Any], folder: Path) -> LocalWorkerContext:
    """Do a stage's work in this process, or go on with it."""
    context = LocalWorkerContext(folder)
    work(config, context)
    return context


def run_in_pieces(work: Work, config: dict[str, Any], folder: Path) -> LocalWorkerContext:
    """One epoch a process."""
    return in_pieces(lambda context: work(config, context), folder)


def saved(context: LocalWorkerContext, file: str = "network.pt") -> Any:
    """A file of tensors in the last checkpoint."""
    import torch

    assert context.checkpoint is not None
    return torch.load(context.checkpoint / file, weights_only=True)
