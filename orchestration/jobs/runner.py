"""One stage, from its fingerprint to a record in the store and a run in MLflow.

What a stage does is a callable that the caller brings; this is what happens around it. Among all
that need a stage at the same time, threads, processes and clusters on one storage path, one makes
it and the others wait for its result (:mod:`orchestration.store.claims`). A record
that is in the store is only shown in MLflow again (idempotently, so that a server that was away
catches up); one that is not is made, stored complete, and then shown
(:mod:`orchestration.tracking.stage_runs`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.device import describe_device
from orchestration.jobs.failure import JobError, JobStoppedError, traceback_of
from orchestration.jobs.job_result import JobResult, forget_job
from orchestration.jobs.scorer_pool import MakeScorer
from orchestration.jobs.scoring_job import Rounds, run_scoring_job
from orchestration.jobs.train_job import Work, run_train_job
from orchestration.store.claims import Claim, Claims
from orchestration.store.failure_log import FailureLog, FailureNote
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.models import WriteModel
from orchestration.tracking.stage_runs import Done, Draw, StageRuns


@dataclass(frozen=True)
class Outcome:
    """What a stage found: `result` for the stages after it, `metrics` and `series` for people."""

    result: Mapping[str, Any]
    metrics: Mapping[str, float]
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRunner:
    """Makes stages of one experiment.

    Attributes:
        store: where results lie.
        claims: who is making what.
        failures: what failed and why.
        runs: where they are shown.
        scaling: the workers of every job.
        max_failures: how often a job is started again; see `run_train_job`.
        code: where results come from (commit, versions); kept in every record.
        on_progress: called with a job's stage and every epoch's metrics.
    """

    store: StageStore
    claims: Claims
    failures: FailureLog
    runs: StageRuns
    scaling: Scaling
    max_failures: int
    code: Mapping[str, Any]
    on_progress: Callable[[Stage, Mapping[str, float]], None] | None = None

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
    ) -> Done:
        """Load or make a stage that is a Ray Train job.

        Args:
            stage: what to make.
            work: runs on every worker, with {"stage": the stage's config, "place": `place`}.
            place: what the workers must know and what cannot change the result.
            finish: the outcome of a finished job, from its result and its last checkpoint's files.
            inputs: the stages that this one reads; their runs become `bnnas.input.<kind>` tags.
            draw: writes figures of a record into a folder; they become artifacts.
            keep: the files of the last checkpoint that the store keeps.
            model: writes a record's MLflow model into a folder; the run then has it as its model.
        """

        def make(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            config = {"stage": dict(stage.config), "place": dict(place)}
            job = run_train_job(work, config, **self._options(stage, claim, inputs))
            job.fetch(folder)
            outcome = finish(job, folder)
            for file in folder.iterdir():
                if file.name not in keep:
                    file.unlink()
            return outcome, job

        return self._run(stage, make, inputs, draw, model)

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
    ) -> Done:
        """Load or make a stage that is a scoring job; arguments as for `train` and, beyond them:

        Args:
            make_scorer: runs in every actor, with {"stage": the stage's config, "place": `place`}.
            rounds: what is to be scored, from the very beginning.
            finish: the outcome, when the rounds are over.
        """

        def make(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            config = {"stage": dict(stage.config), "place": dict(place)}
            options = self._options(stage, claim, inputs)
            job = run_scoring_job(make_scorer, config, rounds, **options)
            return finish(), job

        return self._run(stage, make, inputs, draw)

    def compute(
        self,
        stage: Stage,
        make: Callable[[], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
    ) -> Done:
        """Load or make a stage that this process computes itself; arguments as for `train`."""

        def make_here(folder: Path, claim: Claim) -> tuple[Outcome, JobResult]:
            start_s = time.perf_counter()
            outcome = make()
            wall_s = time.perf_counter() - start_s
            return outcome, JobResult([], wall_s, wall_s / 3600.0, describe_device("cpu"))

        return self._run(stage, make_here, inputs, draw)

    def _options(
        self, stage: Stage, claim: Claim, inputs: Mapping[str, Done] | None
    ) -> dict[str, Any]:
        """What every kind of job is started with, but for its work."""

        def progress(row: dict[str, float]) -> None:
            claim.set_note({"epoch": int(row["epoch"])})
            if self.on_progress is not None:
                self.on_progress(stage, row)

        return {
            "name": stage.job_name,
            "storage_path": self.store.path,
            "scaling": self.scaling,
            "follow": self.runs.follow(stage, inputs),
            "on_progress": progress,
            "max_failures": self.max_failures,
            "keep_going": lambda: not claim.lost.is_set(),
        }

    def _run(
        self,
        stage: Stage,
        make: Callable[[Path, Claim], tuple[Outcome, JobResult]],
        inputs: Mapping[str, Done] | None,
        draw: Draw | None,
        model: WriteModel | None = None,
    ) -> Done:
        read = {kind: done.record for kind, done in (inputs or {}).items() if kind in stage.inputs}
        record, cached = self._load_or_make(stage, make, read)
        # What a job keeps to go on from, also what a driver left that died before this.
        forget_job(stage.job_name, self.store.path)
        return self.runs.done(stage, record, cached=cached, inputs=inputs, draw=draw, model=model)

    def _load_or_make(
        self,
        stage: Stage,
        make: Callable[[Path, Claim], tuple[Outcome, JobResult]],
        read: Mapping[str, StageRecord],
    ) -> tuple[StageRecord, bool]:
        """The stage's record, and whether it was there or somebody else has made it."""

        def current() -> StageRecord | None:
            return self.store.current(stage.fingerprint, read)

        while True:
            result = self.claims.wait(stage.fingerprint, current)
            if isinstance(result, StageRecord):
                return result, True
            with result as claim:
                note = self.failures.get(stage.fingerprint)
                if note is not None and note.owner == claim.waited_for:
                    raise JobError(f"{stage.name} was waited for and failed: {note.message}")
                record = current()  # it may have come between the last look and the claim
                if record is not None:
                    return record, True
                self.store.delete(stage.fingerprint)  # made from what is no longer there
                try:
                    return self._make(stage, make, read, claim), False
                except JobStoppedError:
                    if not claim.lost.is_set():
                        raise
            # Somebody else took this process for dead and makes it: wait for them.

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
            except JobStoppedError:
                raise  # no failure of the stage
            except Exception as error:
                self.failures.put(
                    stage.fingerprint,
                    FailureNote(
                        kind=stage.kind,
                        name=stage.name,
                        message=str(error),
                        failed_at=time.time(),
                        owner=claim.holder.owner,
                        traceback=traceback_of(error),
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
                    series=outcome.series,
                    device_hours=job.device_hours,
                    wall_s=job.wall_s,
                    started_at=started_at,
                    finished_at=time.time(),
                    made_from={kind: record.attempt for kind, record in read.items()},
                    code={**self.code, "device": job.device},
                ),
                folder,
            )
        self.failures.forget(stage.fingerprint)
        return record
