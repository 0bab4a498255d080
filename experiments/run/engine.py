"""One engine for every kind of experiment: have or make its chains, each by a driver of its own.

A chain whose stages are all in the store is shown from there, without a driver; when that is true
of everything, Ray is not started at all, and what MLflow shows already is left alone. What failed
leaves the rest running. A sweep's detector is a chain like any other, begun when its best cell is
known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from detection.coco.data import DetectionImages
from experiments.config.experiment import AnyConfig
from experiments.config.places import absolute, local_folder, scaling
from experiments.plan.chain import Chain, stage_of
from experiments.plan.graph import DETECTION, ExperimentPlan
from experiments.run.display import Display
from experiments.run.driver import DriverArgument, drive
from experiments.run.events import Event, StageDone
from experiments.run.groups import ShownStage, run_key
from experiments.run.kinds import RESULTS, experiment_run
from experiments.run.provenance import provenance, source_tags
from experiments.run.result import ChainResult, Result
from experiments.run.study import collect_study
from experiments.stages.detect import check_backbone, detection_images
from orchestration.cluster import capacity
from orchestration.cluster.connect import cluster
from orchestration.jobs.trials import DRIVER_BYTES, Trial, TrialResult, max_concurrent, run_tasks
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.tracker import Tracker

_NOT_BEGUN = "not started, because a cell has failed, and another one might then be the best."
_DELETED = "its result has been deleted meanwhile: run the same command again."


def run_experiment(
    plan: ExperimentPlan,
    tracker: Tracker,
    display: Display,
    *,
    num_at_once: int | None = None,
) -> Result:
    """Have or make everything that the experiment consists of.

    `num_at_once` drivers work at once; as many as the cluster has work for if not given. Raises
    ValueError (a wrong request) before anything is started where that can be known. A chain that
    fails is part of the result.
    """
    config, store = plan.experiment.shared, StageStore(plan.experiment.storage.path)
    if (result := _shown(plan, tracker, store)) is not None:
        return result
    _check_places(config, tracker, store)
    callbacks = _tune_callbacks(config)
    images = None if config.detect is None else detection_images(config)
    missing = [chain for chain in plan.chains if chain.records(store) is None]
    last = plan.last_chain(store)
    is_complete = not missing and (not plan.detects_last or (last and last.records(store)))
    if plan.detector is not None:
        if missing:
            check_backbone(plan.detector)
        if not plan.detector.is_pretrained:
            display.warn("The backbone starts with random weights: no checkpoint is given.")
    with ExitStack() as stack:
        if not is_complete:
            # Now, so that a cluster that will not do is an error before any run is begun.
            stack.enter_context(_connected(config, display.say))
            num_at_once = num_at_once or max_concurrent(
                capacity.num_jobs_at_once(scaling(config)),
                plan.sharing,
                capacity.driver_room(DRIVER_BYTES, scaling(config)),
                max(1, len(missing)),
            )
        code = provenance()
        run = experiment_run(plan, tracker, source_tags(code))
        run_id = None if run is None else run.start()
        with nullcontext() if run is None else run.running():
            drivers = _Drivers(tracker, store, display, run_id, code, images, callbacks)
            labels = [chain.label for chain in plan.chains]
            with display.live(plan.experiment.name, labels + [DETECTION] * plan.detects_last):
                results = drivers.run(plan.chains, num_at_once or 1)
                error = None
                if plan.detects_last:
                    last = plan.last_chain(store)
                    if last is None or any(each.error for each in results):
                        error = _NOT_BEGUN
                    else:
                        results += drivers.run([last], 1, first=len(results))
            result = RESULTS[plan.experiment.kind](
                plan,
                tuple(results),
                executed=drivers.fingerprints(cached=False),
                cached=drivers.fingerprints(cached=True),
                run_id=run_id,
                figures=_figures(plan.experiment.name, config),
                study=collect_study(plan, store),
                detection_error=error,
            )
        result.keep()
        if run is not None:
            result.end(run, tracker, source_tags(code))
    return result


class _Drivers:
    """Chains by driver processes, or from the store, and what they report."""

    def __init__(
        self,
        tracker: Tracker,
        store: StageStore,
        display: Display,
        run_id: str | None,
        code: Mapping[str, Any],
        images: DetectionImages | None,
        callbacks: Sequence[Any],
    ) -> None:
        self._tracker, self._store, self._display = tracker, store, display
        self._run_id, self._code, self._images = run_id, code, images
        self._callbacks = callbacks
        self._cached: dict[str, bool] = {}

    def fingerprints(self, *, cached: bool) -> tuple[str, ...]:
        """The stages that were there before, or those that were made."""
        return tuple(key for key, was_there in self._cached.items() if was_there == cached)

    def run(self, chains: Sequence[Chain], num_at_once: int, first: int = 0) -> list[ChainResult]:
        """Have or make some chains, whose lines in the display begin with the number `first`."""
        ends: dict[int, ChainResult] = {}
        arguments = [self._argument(chain) for chain in chains]

        def on_event(index: int, event: Event) -> None:
            if isinstance(event, StageDone):
                was_there = self._cached.get(event.fingerprint, True)
                self._cached[event.fingerprint] = was_there and event.cached
            self._display.on_event(first + index, event)

        def on_end(index: int, end: ChainResult) -> None:
            ends[index] = end
            self._display.on_end(first + index, end.error)

        def on_trial_end(number: int, trial: TrialResult[ChainResult]) -> None:
            index = missing[number]
            on_end(index, trial.value or ChainResult(chains[index], error=trial.error))

        missing = []
        for index, chain in enumerate(chains):
            if chain.records(self._store) is None:
                missing.append(index)
            else:
                on_end(index, drive(arguments[index], partial(on_event, index)))
        if missing:
            run_tasks(
                drive,
                [
                    Trial(chains[index].label, arguments[index], chains[index].point)
                    for index in missing
                ],
                num_at_once=num_at_once,
                max_failures=chains[0].config.cluster.max_failures,
                on_event=lambda number, event: on_event(missing[number], event),
                on_end=on_trial_end,
                metrics_of=attrgetter("metrics"),
                callbacks=self._callbacks,
            )
        return [
            self._result(chain, arguments[index], ends[index]) for index, chain in enumerate(chains)
        ]

    def _argument(self, chain: Chain) -> DriverArgument:
        return DriverArgument(
            chain.resolve_paths(),
            self._tracker.uri,
            self._tracker.experiment,
            self._code,
            parent_run_id=self._run_id,
            figures=_figures(chain.name, chain.config) if chain.keeps_figures else None,
            images=self._images,
        )

    def _result(self, chain: Chain, argument: DriverArgument, end: ChainResult) -> ChainResult:
        """What a driver has answered, with the records and the chain as it was planned."""
        if end.error is None and end.is_unshown:
            # A driver that found the tracking server away has stored its results all the same.
            end = drive(argument, lambda event: None)
        if end.error is not None:
            return replace(end, chain=chain)
        records = chain.records(self._store)
        if records is None:
            return ChainResult(chain, error=_DELETED)
        return replace(end, chain=chain, records=records)


def _shown(plan: ExperimentPlan, tracker: Tracker, store: StageStore) -> Result | None:
    """The result, where the store has all of it and MLflow shows it; nothing is told then."""
    experiment = plan.experiment
    chains = list(plan.chains)
    if plan.detects_last:
        last = plan.last_chain(store)
        if last is None:
            return None
        chains.append(last)
    looked_up = [(chain, chain.records(store)) for chain in chains]
    found = [(chain, records) for chain, records in looked_up if records is not None]
    if len(found) < len(chains):
        return None
    run = experiment_run(plan, tracker, {})
    wanted = {record.fingerprint: record for _, records in found for record in records}
    if run is None:
        wanted |= {record.fingerprint: record for chain in chains for record in chain.given}
        shown = {run_key(key): tracker.shown(record) for key, record in wanted.items()}
        run_id, run_ids = None, {key: each for key, each in shown.items() if each is not None}
    else:
        run_id, run_ids = run.shown()
    if not run_ids.keys() >= {run_key(fingerprint) for fingerprint in wanted}:
        return None
    return RESULTS[experiment.kind](
        plan,
        tuple(
            ChainResult(
                chain,
                records,
                run_id=None if chain.group is None else run_ids.get(run_key(chain.group)),
                stages=tuple(
                    ShownStage(
                        record.kind,
                        _stage_name(chain, record, records),
                        record.fingerprint,
                        cached=True,
                        mlflow_run_id=run_ids[run_key(record.fingerprint)],
                    )
                    for record in (*chain.given, *records)
                ),
            )
            for chain, records in found
        ),
        executed=(),
        cached=tuple(wanted),
        run_id=run_id,
        figures=_figures(experiment.name, experiment.shared),
        study=collect_study(plan, store),
    )


def _stage_name(chain: Chain, record: StageRecord, records: Sequence[StageRecord]) -> str:
    stages = [chain.stage(number, records) for number in range(chain.size)]
    named = {stage.fingerprint: stage.name for stage in stages if stage is not None}
    return named.get(record.fingerprint) or stage_of(record).name


def _figures(name: str, config: AnyConfig) -> Path:
    """Where this machine keeps the figures of an experiment or a cell."""
    return local_folder(config.storage) / "figures" / name


def _tune_callbacks(config: AnyConfig) -> list[Any]:
    """Those that the user brings.

    Raises ValueError where one cannot be found or made.
    """
    callbacks = []
    for name in config.cluster.tune_callbacks:
        try:
            callbacks.append(resolve_name(name)())
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"cluster.tune_callbacks: {name!r} cannot be made ({error}): give package.module:"
                "Class of a ray.tune.Callback that can be imported here and takes no arguments."
            ) from error
    return callbacks


@contextmanager
def _connected(config: AnyConfig, say: Callable[[str], None]) -> Iterator[None]:
    """The Ray cluster of an experiment, which has room for a job and shares the storage.

    Raises ValueError where it will not do, before anything is started on it.
    """
    say("[dim]Connecting to Ray …[/]")
    with cluster(config.cluster.address):
        capacity.require(scaling(config))
        capacity.check_storage_is_shared(absolute(config.storage.path))
        yield


def _check_places(config: AnyConfig, tracker: Tracker, store: StageStore) -> None:
    """Find out whether results can be stored and tracked.

    Raises ValueError (StorageError, TrackingError) where they cannot.
    """
    # A server is asked before anything is written; a database lies in the storage, mostly.
    database = tracker.uri.startswith("sqlite:")
    for check in (store.check, tracker.check) if database else (tracker.check, store.check):
        check()
