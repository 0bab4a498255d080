"""What the stages of one cell are made with: the store, the tracker, and who is told.

A cell is made in the process of `bnnas run`, or in a driver process of a sweep; this is what the
two have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experiments.config.cell import Config
from experiments.config.detection import DetectionConfig
from experiments.config.places import absolute, scaling
from experiments.stages.setting import Setting, Watcher
from orchestration.cluster import capacity
from orchestration.cluster import connect as cluster
from orchestration.jobs.runner import StageRunner
from orchestration.store import json_text
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import StageRuns
from orchestration.tracking.tracker import CODE, Tracker

AnyConfig = Config | DetectionConfig


@contextmanager
def connected(config: AnyConfig, say: Callable[[str], None]) -> Iterator[None]:
    """The Ray cluster of an experiment, which has room for a job and shares the storage.

    Raises ValueError where it will not do, before anything is started on it.
    """
    say("[dim]Connecting to Ray …[/]")
    with cluster.cluster(config.cluster.address):
        capacity.require(scaling(config))
        capacity.check_storage_is_shared(absolute(config.storage.path))
        yield


@contextmanager
def open_setting(
    config: AnyConfig,
    tracker: Tracker,
    watcher: Watcher,
    *,
    code: Mapping[str, Any],
    parent_run_id: str | None,
    tags: Mapping[str, str],
) -> Iterator[Setting]:
    """The setting of a cell's stages; at its end MLflow shows them all.

    `code` is where results come from, `parent_run_id` and `tags` belong to the stages' MLflow runs.
    """
    storage = absolute(config.storage.path)
    claims = Claims(storage)
    runs = StageRuns(tracker, claims, parent_run_id, tags)
    runner = StageRunner(
        store=StageStore(storage),
        claims=claims,
        failures=FailureLog(storage),
        runs=runs,
        scaling=scaling(config),
        max_failures=config.cluster.max_failures,
        code=code,
    )
    place: dict[str, Any] = {"storage_path": storage}
    if config.data is not None:
        root = config.data.root
        place["data_root"] = None if root is None else absolute(root)
        place["num_loaders"] = config.data.num_workers
    with runs:
        yield Setting(runner, place, watcher)


def check_places(config: AnyConfig, tracker: Tracker) -> None:
    """Find out whether results can be stored and tracked.

    Raises ValueError (StorageError, TrackingError) where they cannot.
    """
    store = StageStore(config.storage.path)
    # A server is asked before anything is written; a database lies in the storage, mostly.
    database = tracker.uri.startswith("sqlite:")
    for check in (store.check, tracker.check) if database else (tracker.check, store.check):
        check()


def source_tags(code: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's own tags for where a run comes from, and all of it in one."""
    tags = {
        CODE: json_text.dumps(code),
        "mlflow.source.name": str(code["command"]),
        "mlflow.source.type": "LOCAL",
    }
    if code["commit"] is not None:
        tags["mlflow.source.git.commit"] = str(code["commit"])
    return tags
