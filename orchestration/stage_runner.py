"""Have it or make it: one stage from its fingerprint to a record in the store and a run in MLflow.

What a stage does is a callable that the caller brings; this is what happens around it. A record
that is in the store is only shown in MLflow again (idempotently, so that a server that was away
catches up); one that is not is made, stored complete, and then shown. A tracking server that goes
away while a stage runs costs a warning and nothing else.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.live_run import LiveTracking
from orchestration.stage import Stage
from orchestration.stage_store import StageRecord, StageStore
from orchestration.tracking import Tracker, TrackingError
from orchestration.train_job import (
    JobResult,
    Progress,
    Scaling,
    Work,
    forget_job,
    run_train_job,
)

_log = logging.getLogger(__name__)

Draw = Callable[[StageRecord, Path], None]


@dataclass(frozen=True)
class Outcome:
    """What a stage found: `result` for the stages after it, `metrics` for people."""

    result: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Done:
    """A stage that is there. `run_id` is None where the tracking server could not be told."""

    stage: Stage
    record: StageRecord
    cached: bool
    run_id: str | None


@dataclass(frozen=True)
class StageRunner:
    """Makes stages of one experiment.

    Attributes:
        store: where results lie.
        tracker: where they are shown.
        scaling: the workers of every job.
        max_failures: how often a job is started again; see `run_train_job`.
        code: where results come from (commit, versions); kept in every record.
        parent_run_id: the MLflow run that the stages' runs are nested under.
        tags: further tags of every run.
        before_job: called before a job is started, such as for starting a cluster when the first
            stage turns out to need one.
    """

    store: StageStore
    tracker: Tracker
    scaling: Scaling
    max_failures: int
    code: Mapping[str, Any]
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    before_job: Callable[[], None] = lambda: None
    _making: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def train(
        self,
        stage: Stage,
        work: Work,
        place: Mapping[str, Any],
        finish: Callable[[JobResult, Path], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
        keep: tuple[str, ...] = (),
        on_progress: Progress | None = None,
    ) -> Done:
        """Have or make a stage that is a Ray Train job.

        Args:
            stage: what to make.
            work: runs on every worker, with {"stage": the stage's config, "place": `place`}.
            place: what the workers must know and what cannot change the result.
            finish: the outcome of a finished job, from its result and its last checkpoint's files.
            inputs: the stages that this one reads; their runs become `bnnas.input.<kind>` tags.
            draw: writes figures of a record into a folder; they become artifacts.
            keep: the files of the last checkpoint that the store keeps.
            on_progress: called with every epoch's metrics.
        """

        name = f"{stage.kind}-{stage.fingerprint}"

        def make(folder: Path) -> tuple[Outcome, JobResult]:
            self.before_job()
            job = run_train_job(
                work,
                {"stage": dict(stage.config), "place": dict(place)},
                name=name,
                storage_path=self.store.path,
                scaling=self.scaling,
                on_epoch=LiveTracking(
                    uri=self.tracker.uri,
                    experiment=self.tracker.experiment,
                    kind=stage.kind,
                    fingerprint=stage.fingerprint,
                    name=stage.name,
                    config=stage.config,
                    tags=self._tags(inputs),
                    parent_run_id=self.parent_run_id,
                ),
                on_progress=on_progress,
                max_failures=self.max_failures,
            )
            job.fetch(folder)
            outcome = finish(job, folder)
            for file in folder.iterdir():
                if file.name not in keep:
                    file.unlink()
            return outcome, job

        done = self._have_or_make(stage, make, inputs, draw)
        forget_job(name, self.store.path)  # also what a driver left that died just before this
        return done

    def compute(
        self,
        stage: Stage,
        make: Callable[[], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
    ) -> Done:
        """Have or make a stage that this process computes itself; arguments as for `train`."""

        def make_here(folder: Path) -> tuple[Outcome, JobResult]:
            start_s = time.perf_counter()
            outcome = make()
            wall_s = time.perf_counter() - start_s
            return outcome, JobResult([], wall_s, wall_s / 3600.0, None)

        return self._have_or_make(stage, make_here, inputs, draw)

    def _have_or_make(
        self,
        stage: Stage,
        make: Callable[[Path], tuple[Outcome, JobResult]],
        inputs: Mapping[str, Done] | None,
        draw: Draw | None,
    ) -> Done:
        with (
            self._making[stage.fingerprint],  # a second thread that needs it waits, and has it
            tempfile.TemporaryDirectory(prefix="stage-") as temporary,
        ):
            record = self.store.get(stage.fingerprint)
            cached = record is not None
            if record is None:
                folder = Path(temporary) / "files"
                folder.mkdir()
                started_at = time.time()
                outcome, job = make(folder)
                record = self.store.put(
                    StageRecord(
                        kind=stage.kind,
                        fingerprint=stage.fingerprint,
                        config=stage.config,
                        inputs=stage.inputs,
                        result=outcome.result,
                        history=job.history,
                        metrics=outcome.metrics,
                        device_hours=job.device_hours,
                        wall_s=job.wall_s,
                        started_at=started_at,
                        finished_at=time.time(),
                        code=self.code,
                    ),
                    folder,
                )
            figures = Path(temporary) / "artifacts"
            figures.mkdir()
            if draw is not None:
                draw(record, figures / "figures")
            run_id = self._publish(stage, record, inputs, figures)
        return Done(stage, record, cached, run_id)

    def _publish(
        self,
        stage: Stage,
        record: StageRecord,
        inputs: Mapping[str, Done] | None,
        figures: Path,
    ) -> str | None:
        try:
            return self.tracker.publish(
                record,
                name=stage.name,
                tags=self._tags(inputs),
                artifacts=figures,
                parent_run_id=self.parent_run_id,
            )
        except TrackingError as error:
            _log.warning(
                "%s is stored in %s but not shown in MLflow: %s Run the same command again when "
                "the server is back.",
                stage.name,
                self.store.path,
                error,
            )
            return None

    def _tags(self, inputs: Mapping[str, Done] | None) -> dict[str, str]:
        lineage = {
            f"bnnas.input.{kind}": done.run_id
            for kind, done in (inputs or {}).items()
            if done.run_id is not None
        }
        return {**self.tags, **lineage}
