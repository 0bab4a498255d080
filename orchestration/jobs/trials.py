"""Many tasks at once as Ray Tune trials, each driven by a process of its own.

A task's process holds no GPU and no core, only some memory: it starts jobs and waits for them. It
runs on the node that this process runs on, so that the loss of another node costs jobs and no
driver, and a tracking database on this machine's disk is within its reach. What a task raises ends
that task alone; a process that dies is started again, and finds what its task has stored by then.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestration.cluster.threads import start_thread
from orchestration.jobs import failure

if TYPE_CHECKING:
    from ray.tune import Callback, PlacementGroupFactory

Argument = TypeVar("Argument")
Event = TypeVar("Event")
Value = TypeVar("Value")
Task = Callable[[Argument, Callable[[Event], None]], Value]

# What a driver and the processes that Ray starts for its job were seen to take, rounded up.
DRIVER_BYTES = 800 * 1024**2
# Keys of a trial's config and of its reports, beside its axes and its numbers.
_NAME, _EVENT, _VALUE, _ERROR = "name", "event", "value", "error"
# Settings that Tune reads from the environment; what the user has set stays.
_TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the results are what a sweep goes on from, not Tune
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
}


@dataclass(frozen=True)
class Trial(Generic[Argument]):
    """One task as Tune shows it.

    Attributes:
        name: unique among those that run together.
        argument: of the task; pickles.
        axes: what it is a point of: name → plain value.
    """

    name: str
    argument: Argument
    axes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult(Generic[Value]):
    """A task's value, or the reason why it has none."""

    value: Value | None
    error: str | None


def max_concurrent(jobs_at_once: int, sharing: int, driver_room: int, num_tasks: int) -> int:
    """How many drivers run at once.

    As many tasks as may wait for the same result, times the jobs that find room: if all but one of
    each such group wait, there still is a job for every place. Drivers take no cores, so that they
    cannot starve the workers, whatever their number.

    Args:
        jobs_at_once: how many jobs the cluster has room for.
        sharing: how many tasks wait for one and the same result, at most.
        driver_room: how many drivers this node's memory holds.
        num_tasks: how many tasks there are.
    """
    return max(1, min(jobs_at_once * sharing, driver_room, num_tasks))


def run_tasks(
    task: Task[Argument, Event, Value],
    trials: Sequence[Trial[Argument]],
    *,
    num_at_once: int,
    max_failures: int,
    on_event: Callable[[int, Event], None],
    on_end: Callable[[int, TrialResult[Value]], None],
    metrics_of: Callable[[Value], Mapping[str, float]] = lambda value: {},
    callbacks: Sequence[Callback] = (),
) -> list[TrialResult[Value]]:
    """Run ``task(argument, report)`` for every trial on the connected cluster.

    Args:
        task: a function of an importable module; what it returns and reports pickles.
        trials: start in this order.
        num_at_once: see :func:`max_concurrent`.
        max_failures: how often the process of one task may die and be started again.
        on_event: called, in Tune's thread, with a trial's position and what it reports.
        on_end: called likewise when a trial has come to its end, good or bad.
        metrics_of: the numbers in a task's value that Tune shows.
        callbacks: further ones of Tune's.

    Returns:
        Their results, in the order of the trials.
    """
    os.environ.update({k: v for k, v in _TUNE_ENVIRONMENT.items() if k not in os.environ})
    for name in ("ray.tune", "ray.air"):  # errors come back as results
        logging.getLogger(name).setLevel(logging.CRITICAL)
    results: dict[int, TrialResult[Value]] = {}
    interrupted = threading.Event()
    positions = {trial.name: index for index, trial in enumerate(trials)}
    assert len(positions) == len(trials), "two trials of one name"

    def end(index: int, result: TrialResult[Value]) -> None:
        results[index] = result
        on_end(index, result)

    def fit() -> None:
        from orchestration.jobs.trial_listener import TrialListener

        listener = TrialListener(
            lambda name, event: on_event(positions[name], event),
            lambda name, report: end(
                positions[name], TrialResult(report.get(_VALUE), report.get(_ERROR))
            ),
            lambda name, error: end(positions[name], _failed(error)),
            interrupted,
            name=_NAME,
            event=_EVENT,
        )
        _fit(task, trials, num_at_once, max_failures, metrics_of, [listener, *callbacks])

    # In the main thread Tune would answer Ctrl-C itself, by waiting for every task.
    try:
        start_thread("tune", fit).result()
    except BaseException:
        interrupted.set()
        raise
    for index in set(range(len(trials))) - results.keys():
        end(index, TrialResult(None, "Ray Tune ended without a result of it"))
    return [results[index] for index in range(len(trials))]


def _fit(
    task: Task[Argument, Event, Value],
    trials: Sequence[Trial[Argument]],
    num_at_once: int,
    max_failures: int,
    metrics_of: Callable[[Value], Mapping[str, float]],
    callbacks: list[Callback],
) -> None:
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    def drive(config: dict[str, Any], arguments: Mapping[str, Argument]) -> dict[str, Any]:
        return _drive(task, arguments[config[_NAME]], metrics_of)

    carrying = tune.with_parameters(drive, arguments={each.name: each.argument for each in trials})
    points = [{_NAME: each.name, **each.axes} for each in trials]
    axes = {name for point in points for name in point}
    space = {axis: tune.choice([point.get(axis) for point in points]) for axis in axes}
    # The grid may have holes, where the store has a cell: its points are listed, and none drawn.
    listed = [{axis: point.get(axis) for axis in axes} for point in points]
    # Tune's own files serve nobody: what a task has made lies in the stage store.
    with tempfile.TemporaryDirectory(prefix="tune-") as folder:
        tune.Tuner(
            tune.with_resources(carrying, _on_this_node()),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=len(trials),
                search_alg=BasicVariantGenerator(
                    points_to_evaluate=listed, max_concurrent=num_at_once
                ),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                callbacks=callbacks,
            ),
        ).fit()


def _trial_name(trial: Any) -> str:
    return re.sub(r"[^\w.-]+", "-", trial.config[_NAME])


def _on_this_node() -> PlacementGroupFactory:
    import ray
    from ray import tune

    node_id = ray.get_runtime_context().get_node_id()
    return tune.PlacementGroupFactory(
        [{"memory": DRIVER_BYTES}], bundle_label_selector=[{"ray.io/node-id": node_id}]
    )


def _drive(
    task: Task[Argument, Event, Value],
    argument: Argument,
    metrics_of: Callable[[Value], Mapping[str, float]],
) -> dict[str, Any]:
    """Runs in the task's process."""
    from ray import tune

    def report(event: Event) -> None:
        tune.report({_EVENT: event})

    try:
        value = task(argument, report)
        return {**metrics_of(value), _VALUE: value, _EVENT: None}
    except Exception as error:  # noqa: BLE001  # the other tasks go on
        return {_ERROR: f"{error}" or type(error).__name__, _EVENT: None}


def _failed(error: Exception) -> TrialResult[Any]:
    return TrialResult(None, failure.describe({-1: error}).replace("the job", "its driver"))
