"""What the driver process of one chain does: have or make its stages, in their order."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detection.coco.data import DetectionImages
from experiments.config.load import dump_config
from experiments.config.places import scaling
from experiments.plan.chain import Chain, inputs_of, stage_of
from experiments.plan.forecast import num_epochs
from experiments.run.about import about
from experiments.run.events import Event, EventReporter
from experiments.run.groups import (
    ShownStage,
    cell_ending,
    cell_metrics,
    chain_run,
    note,
    retrained_of,
)
from experiments.run.provenance import source_tags
from experiments.run.result import ChainResult
from experiments.stages.detect import make_detect
from experiments.stages.retrain import make_retrain, show_retrain
from experiments.stages.score import make_score
from experiments.stages.search import make_search
from experiments.stages.supernet import make_supernet
from experiments.stages.worker_place import WorkerPlace
from orchestration.jobs.failure import JobError
from orchestration.jobs.runner import StageRunner
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done, StageRuns
from orchestration.tracking.tracker import CELL, Tracker

_MakeStage = Callable[[Stage, StageRunner, Mapping[str, Done]], Done]


@dataclass(frozen=True)
class DriverArgument:
    """What a driver is told; a value that pickles.

    Attributes:
        chain: what to make, its paths resolved.
        uri: of MLflow's server or database.
        experiment: name of the MLflow experiment.
        code: where results come from; a record and a run keep it.
        parent_run_id: the run that those of the chain are nested under.
        figures: the folder that keeps those of the chain; None where it keeps none.
        images: of a detect stage, which were looked at.
    """

    chain: Chain
    uri: str
    experiment: str
    code: Mapping[str, Any]
    parent_run_id: str | None = None
    figures: Path | None = None
    images: DetectionImages | None = None


def drive(argument: DriverArgument, report: Callable[[Event], None]) -> ChainResult:
    """Have or make the stages of a chain; `report` is called with what happens to them.

    The records are in the store, and not in the result.
    """
    chain, tracker = argument.chain, Tracker(argument.uri, argument.experiment)
    source = source_tags(argument.code)
    run = chain_run(chain, tracker, source, argument.parent_run_id)
    try:
        with (
            nullcontext() if run is None else run.running(),
            EventReporter(report) as events,
            StageRuns(
                tracker,
                Claims(chain.config.storage.path),
                argument.parent_run_id,
                {CELL: chain.name, **source},
                about,
            ) as runs,
        ):
            done_stages = _make(argument, _runner(argument, runs, events), events)
            if argument.figures is not None:
                _keep_figures(argument.figures, chain, done_stages)
            stages = tuple(
                ShownStage(
                    done.stage.kind,
                    done.stage.name,
                    done.record.fingerprint,
                    done.cached,
                    done.run_id,
                )
                for done in done_stages
            )
            run_id = None
            records = [done.record for done in done_stages]
            if run is not None:
                text = note([(run.name, retrained_of(records))])
                run_id = cell_ending(records, stages).show(run, argument.figures, text)
            return ChainResult(
                chain,
                stages=stages,
                run_id=run_id,
                metrics=cell_metrics(records) if chain.is_cell else {},
            )
    except Exception as error:  # noqa: BLE001  # the others go on; the caller says what failed
        return ChainResult(
            chain,
            error=f"{error}" or type(error).__name__,
            details=error.details if isinstance(error, JobError) else "",
            is_wrong_request=isinstance(error, ValueError),
        )


def _make(argument: DriverArgument, runner: StageRunner, events: EventReporter) -> list[Done]:
    """All stages of a chain, the one that was given first."""
    chain, makers = argument.chain, _makers(argument)
    done_stages: list[Done] = []
    for record in chain.given:
        done_stages.append(show_retrain(stage_of(record), record, runner))
        events.done(done_stages[-1])
    num_given = len(done_stages)
    for number in range(chain.size):
        stage = chain.stage(number, [done.record for done in done_stages[num_given:]])
        assert stage is not None  # its search is made
        earlier = {done.stage.kind: done for done in done_stages}
        inputs = {kind: earlier[kind] for kind in inputs_of(stage) if kind in earlier}
        if (total := num_epochs(stage)) is not None:
            events.started(stage, total)
        done_stages.append(makers[stage.kind](stage, runner, inputs))
        events.done(done_stages[-1])
    return done_stages


def _makers(argument: DriverArgument) -> dict[str, _MakeStage]:
    """Kind of stage → who has it or makes it."""
    chain, place = argument.chain, WorkerPlace.of(argument.chain.config)
    makers: dict[str, _MakeStage] = {
        "supernet": partial(make_supernet, place=place),
        "score": partial(make_score, place=place),
        "search": partial(make_search, place=place),
        "retrain": partial(make_retrain, place=place),
    }
    if chain.config.detect is not None and argument.images is not None:
        makers["detect"] = partial(
            make_detect,
            detect=chain.config.detect,
            images=argument.images,
            weights=chain.weights,
        )
    return makers


def _runner(argument: DriverArgument, runs: StageRuns, events: EventReporter) -> StageRunner:
    config = argument.chain.config
    return StageRunner(
        store=StageStore(config.storage.path),
        claims=runs.claims,
        failures=FailureLog(config.storage.path),
        runs=runs,
        scaling=scaling(config),
        max_failures=config.cluster.max_failures,
        code=argument.code,
        on_progress=events.advanced,
    )


def _keep_figures(folder: Path, chain: Chain, done_stages: Iterable[Done]) -> None:
    """The figures of some stages and the resolved config, in one folder on this machine."""
    for done in done_stages:
        shutil.copytree(done.figures, folder, dirs_exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(chain.config), encoding="utf-8")
