"""Have it or make it: one stage from its fingerprint to a record in the store and a run in MLflow.

What a stage does is a callable that the caller brings; this is what happens around it. Among all
that need a stage at the same time, threads, processes and clusters on one storage path, one makes
it and the others wait for its result (:mod:`orchestration.claims`). A record
that is in the store is only shown in MLflow again (idempotently, so that a server that was away
catches up); one that is not is made, stored complete, and then shown. A tracking server that goes
away while a stage runs costs a warning and nothing else.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.claims import Claim, Claims
from orchestration.failure import JobError
from orchestration.failure_log import FailureLog, FailureNote
from orchestration.job import JobResult, Progress, forget_job
from orchestration.live_run import LiveTracking
from orchestration.scaling import Scaling
from orchestration.scorer_pool import MakeScorer
from orchestration.scoring_job import Rounds, run_scoring_job
from orchestration.stage import Stage
from orchestration.stage_store import StageRecord, StageStore
from orchestration.tracked_model import WriteModel, log_model, shown_model
from orchestration.tracking import INPUT, Tracker, TrackingError
from orchestration.train_job import Work, run_train_job

_log = logging.getLogger(__name__)

_POLL_S = 0.4  # how often one looks again who waits for somebody else's result

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
        claims: who is making what.
        failures: what failed and why.
        tracker: where they are shown.
        scaling: the workers of every job.
        max_failures: how often a job is started again; see `run_train_job`.
        code: where results come from (commit, versions); kept in every record.
        parent_run_id: the MLflow run that the stages' runs are nested under.
        tags: further tags of every run.
    """

    store: StageStore
    claims: Claims
    failures: FailureLog
    tracker: Tracker
    scaling: Scaling
    max_failures: int
    code: Mapping[str, Any]
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

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
        model: WriteModel | None = None,
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
            model: writes a record's MLflow model into a folder; the run then has it as its model.
            on_progress: called with every epoch's metrics.
        """

        def make(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            config = {"stage": dict(stage.config), "place": dict(place)}
            job = run_train_job(work, config, **self._options(stage, claim, inputs, on_progress))
            job.fetch(folder)
            outcome = finish(job, folder)
            for file in folder.iterdir():
                if file.name not in keep:
                    file.unlink()
            return outcome, job

        done = self._have_or_make(stage, make, inputs, draw)
        if model is not None and done.run_id is not None:
            self._show_model(done, done.run_id, model)
        self._forget_job(stage)
        return done

    def score(
        self,
        stage: Stage,
        make_scorer: MakeScorer,
        place: Mapping[str, Any],
        rounds: Rounds,
        finish: Callable[[], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
        on_progress: Progress | None = None,
    ) -> Done:
        """Have or make a stage that is a scoring job; arguments as for `train` and, beyond them:

        Args:
            make_scorer: runs in every actor, with {"stage": the stage's config, "place": `place`}.
            rounds: what is to be scored, from the very beginning.
            finish: the outcome, when the rounds are over.
        """

        def make(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            config = {"stage": dict(stage.config), "place": dict(place)}
            options = self._options(stage, claim, inputs, on_progress)
            job = run_scoring_job(make_scorer, config, rounds, **options)
            return finish(), job

        done = self._have_or_make(stage, make, inputs, draw)
        self._forget_job(stage)
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

        def make_here(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            start_s = time.perf_counter()
            outcome = make()
            wall_s = time.perf_counter() - start_s
            return outcome, JobResult([], wall_s, wall_s / 3600.0)

        return self._have_or_make(stage, make_here, inputs, draw)

    def _options(
        self,
        stage: Stage,
        claim: Claim,
        inputs: Mapping[str, Done] | None,
        on_progress: Progress | None,
    ) -> dict[str, Any]:
        """What every kind of job is started with, but for its work."""

        def progress(row: dict[str, float]) -> None:
            claim.tell({"epoch": int(row["epoch"])})
            if on_progress is not None:
                on_progress(row)

        return {
            "name": _job_name(stage),
            "storage_path": self.store.path,
            "scaling": self.scaling,
            "on_epoch": LiveTracking(
                uri=self.tracker.uri,
                experiment=self.tracker.experiment,
                kind=stage.kind,
                fingerprint=stage.fingerprint,
                name=stage.name,
                config=stage.config,
                tags=self._tags(inputs),
                parent_run_id=self.parent_run_id,
            ),
            "on_progress": progress,
            "max_failures": self.max_failures,
            "keep_going": lambda: not claim.lost.is_set(),
        }

    def _forget_job(self, stage: Stage) -> None:
        """Remove what a job keeps to go on from, also what a driver left that died before this."""
        forget_job(_job_name(stage), self.store.path)

    def _have_or_make(
        self,
        stage: Stage,
        make: Callable[[Path, Claim], tuple[Outcome, JobResult]],
        inputs: Mapping[str, Done] | None,
        draw: Draw | None,
    ) -> Done:
        read = {kind: done.record for kind, done in (inputs or {}).items() if kind in stage.inputs}
        record, cached = self._wait_or_make(stage, make, read)
        return Done(stage, record, cached, self._publish(stage, record, inputs, draw))

    def _wait_or_make(
        self,
        stage: Stage,
        make: Callable[[Path, Claim], tuple[Outcome, JobResult]],
        read: Mapping[str, StageRecord],
    ) -> tuple[StageRecord, bool]:
        """The stage's record, and whether it was there or somebody else has made it."""
        waited_for = None
        while (record := self.store.current(stage.fingerprint, read)) is None:
            claim = self.claims.attempt(stage.fingerprint)
            if claim is None:
                holder = self.claims.holder(stage.fingerprint)
                if holder is not None:
                    waited_for = holder.owner
                time.sleep(random.uniform(0.5, 1.5) * _POLL_S)
                continue
            with claim:
                failed = self.failures.get(stage.fingerprint)
                if failed is not None and failed.owner == waited_for:
                    raise JobError(f"{stage.name} was waited for and failed: {failed.message}")
                record = self.store.current(stage.fingerprint, read)  # finished between two looks
                if record is None:
                    self.store.delete(stage.fingerprint)  # made from what is no longer there
                    return self._make(stage, make, read, claim), False
        return record, True

    def _make(
        self,
        stage: Stage,
        make: Callable[[Path, Claim], tuple[Outcome, JobResult]],
        read: Mapping[str, StageRecord],
        claim: Claim,
    ) -> StageRecord:
        started_at = time.time()
        with tempfile.TemporaryDirectory(prefix="stage-") as temporary:
            folder = Path(temporary)
            try:
                outcome, job = make(folder, claim)
            except Exception as error:
                self.failures.put(
                    stage.fingerprint,
                    FailureNote(
                        stage.kind, stage.name, str(error), time.time(), claim.holder.owner
                    ),
                )
                raise
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
                    made_from={kind: record.attempt for kind, record in read.items()},
                    code=self.code,
                ),
                folder,
            )
        self.failures.forget(stage.fingerprint)
        return record

    def _publish(
        self,
        stage: Stage,
        record: StageRecord,
        inputs: Mapping[str, Done] | None,
        draw: Draw | None,
    ) -> str | None:
        try:
            return self.tracker.publish(
                record,
                name=stage.name,
                tags=self._tags(inputs),
                draw=draw,
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

    def _show_model(self, done: Done, run_id: str, write: WriteModel) -> None:
        """Have the stage's run show its model; of all that want to, one at a time logs it."""
        try:
            while shown_model(self.tracker, run_id, done.record) is None:
                claim = self.claims.attempt(f"model-{done.record.fingerprint}")
                if claim is None:
                    time.sleep(random.uniform(0.5, 1.5) * _POLL_S)
                    continue
                with claim:
                    log_model(self.tracker, run_id, done.record, write, name=done.stage.name)
        except TrackingError as error:
            _log.warning(
                "%s is stored in %s, but MLflow does not show its model: %s Run the same command "
                "again when the server is back.",
                done.stage.name,
                self.store.path,
                error,
            )

    def _tags(self, inputs: Mapping[str, Done] | None) -> dict[str, str]:
        lineage = {
            f"{INPUT}{kind}": done.run_id
            for kind, done in (inputs or {}).items()
            if done.run_id is not None
        }
        return {**self.tags, **lineage}


def _job_name(stage: Stage) -> str:
    return f"{stage.kind}-{stage.fingerprint}"
