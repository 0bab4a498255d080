"""Many tasks, each by a driver process of its own, or from the store.

What is there is shown in MLflow from this process, without a driver; what a driver could not tell a
tracking server that was away is told when all are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.config.cell import Config
from experiments.config.places import scaling
from experiments.run.driver import drive
from experiments.run.table_display import SweepDisplay
from experiments.run.tasks import Task
from experiments.run.workbench import source_tags
from orchestration.cluster import capacity
from orchestration.jobs.trials import DRIVER_BYTES, Ended, max_concurrent, run_tasks
from orchestration.store.stage_store import StageStore
from orchestration.tracking.tracker import CELL, Tracker


@dataclass(frozen=True)
class DriversResult:
    """How the tasks have ended.

    Attributes:
        ended: for each of them.
        executed: fingerprints of the stages that were made.
        cached: of those that were there before.
    """

    ended: tuple[Ended, ...]
    executed: tuple[str, ...]
    cached: tuple[str, ...]


def run_drivers(
    tasks: Sequence[Task],
    tracker: Tracker,
    display: SweepDisplay,
    *,
    title: str,
    parent_run_id: str,
    code: Mapping[str, Any],
    num_at_once: int,
) -> DriversResult:
    """Have or make all tasks; a task that fails leaves the others running.

    Args:
        tasks: of one experiment or sweep; they start in this order.
        tracker: where their runs are.
        display: shows a line for each.
        title: of the display.
        parent_run_id: the run that theirs are nested under.
        code: where results come from.
        num_at_once: how many drivers work at once; those beyond what is missing have no effect.
    """
    arguments = [
        {
            "task": task.at_home(),
            "uri": tracker.uri,
            "experiment": tracker.experiment,
            "parent_run_id": parent_run_id,
            "code": code,
            "tags": {CELL: task.name, **source_tags(code)},
        }
        for task in tasks
    ]
    ended: dict[int, Ended] = {}
    made: dict[str, bool] = {}

    def heard(index: int, event: Mapping[str, Any]) -> None:
        if event["what"] == "done":
            is_new = not event["cached"]
            made[event["fingerprint"]] = made.get(event["fingerprint"], False) or is_new
        display.event(index, event)

    with display.live(title, [task.label for task in tasks]):
        wanted = []
        for index, task in enumerate(tasks):
            if task.is_there(StageStore(task.config.storage.path)):
                ended[index] = Ended(drive(arguments[index], partial(heard, index)), None)
                display.finished(index, ended[index])
            else:
                wanted.append(index)
        if wanted:
            found = run_tasks(
                drive,
                [arguments[index] for index in wanted],
                num_at_once=num_at_once,
                max_failures=tasks[0].config.cluster.max_failures,
                on_event=lambda number, event: heard(wanted[number], event),
                on_end=lambda number, end: display.finished(wanted[number], end),
            )
            ended |= dict(zip(wanted, found, strict=True))
        for index, end in ended.items():
            if end.value is not None and _is_unseen(end.value):
                # A driver that found the tracking server away has stored its results all the same.
                end.value.update(drive(arguments[index], lambda event: None))
    return DriversResult(
        ended=tuple(ended[index] for index in range(len(tasks))),
        executed=tuple(fingerprint for fingerprint, is_new in made.items() if is_new),
        cached=tuple(fingerprint for fingerprint, is_new in made.items() if not is_new),
    )


def num_drivers(config: Config, *, sharing: int, num_missing: int) -> int:
    """How many drivers the connected cluster has work for.

    Args:
        config: says what a job takes.
        sharing: how many tasks wait for one and the same stage, at most.
        num_missing: tasks that are not in the store.
    """
    return max_concurrent(
        capacity.num_jobs_at_once(scaling(config)),
        sharing,
        capacity.driver_room(DRIVER_BYTES),
        num_missing,
    )


def why_failed(end: Ended, *, is_there: bool) -> str | None:
    """Why a task failed; None if it did not."""
    if end.error is None and not is_there:
        return "its result has been deleted meanwhile: run the same command again."
    return end.error


def _is_unseen(told: Mapping[str, Any]) -> bool:
    """Whether MLflow was away when a driver told what it has made."""
    run_ids = [stage["mlflow_run_id"] for stage in told["stages"]]
    return None in run_ids or (told["has_run"] and told["run_id"] is None)
