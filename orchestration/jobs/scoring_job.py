"""One scoring job: rounds of items, suggested here and scored in parallel on Ray actors.

The driver holds the rounds and nothing heavy; the actors hold what scoring needs and no state.
After every round the rounds' state and the job's ledger are written in one step, so that a job that
was interrupted goes on after its last full round when it is started again, and ends as an
uninterrupted one would. As the name says what decides its result, it can never inherit another
job's rounds.

Device time is the time for which actors had room, summed over them. What is lost together with a
driver, at most a round, is not known to anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.failure import JobStoppedError
from orchestration.jobs.job_result import (
    Follow,
    JobResult,
    KeepGoing,
    Observer,
    Progress,
    always,
    job_folder,
)
from orchestration.jobs.scorer_pool import MakeScorer, ScorerPool
from orchestration.jobs.worker import Ledger
from orchestration.store import json_text
from orchestration.store.storage import Storage, reason_of

_log = logging.getLogger(__name__)


class Rounds(Protocol):
    """What is to be scored, round after round; a function of its state, which is plain JSON."""

    def suggest(self) -> Sequence[Any]:
        """The next round's items, plain values that pickle; the same ones until `update`.

        None when there is nothing more to score.
        """
        ...

    def update(self, items: Sequence[Any], scores: Sequence[float]) -> Mapping[str, float]:
        """Take the scores of all items of a round, NaN and infinities as they come.

        Returns:
            The round's metrics.
        """
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """All that `load_state_dict` needs to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        ...


def run_scoring_job(
    make_scorer: MakeScorer,
    config: dict[str, Any],
    rounds: Rounds,
    *,
    name: str,
    storage_path: str,
    scaling: Scaling | None = None,
    follow: Follow | None = None,
    on_progress: Progress | None = None,
    max_failures: int = 3,
    keep_going: KeepGoing = always,
) -> JobResult:
    """Score ``rounds`` to their end; a round is an epoch.

    A job that was interrupted earlier under the same name goes on after its last full round:
    ``rounds`` comes fresh and is given the state that it had.

    Args:
        make_scorer: a function of an importable module, called as ``make_scorer(config, device)``
            once in every actor; what it returns gives the score of one item, as a function of the
            item alone.
        config: its first argument; must pickle.
        rounds: stays in this process.
        name: the job's name, with the fingerprint of what decides its result.
        storage_path: folder or URI; only this process writes there.
        scaling: the actors, at most as many as the least number of workers; one on a CPU if not
            given.
        follow: begins to follow it in MLflow, from this process.
        on_progress: called in this thread with each round's metrics. A job that is continued
            starts with the rounds that are done.
        max_failures: how often one item may fail for reasons that may go away.
        keep_going: asked now and then; with False the job stops, and can be continued.

    Raises:
        ValueError: the scorer or ``rounds`` raised it; the request was wrong, and nothing is tried
            again.
        JobError: the job failed for good, or was stopped.
        StorageError: ``storage_path`` cannot be used.
    """
    observer = Observer(follow, on_progress)
    checkpoint = _Checkpoint(Storage(storage_path), name)
    ledger = checkpoint.restore(rounds)
    for row in ledger.history:
        observer.show(row)
    items = rounds.suggest()
    if not items:
        return JobResult.of(ledger)
    before_s, before_device_s = ledger.wall_s, ledger.device_s
    observer.begin()
    try:
        with ScorerPool(
            make_scorer,
            config,
            scaling or Scaling(),
            name=name,
            max_failures=max_failures,
            keep_going=keep_going,
        ) as pool:
            while items:
                row = ledger.append(rounds.update(items, pool.score(items)))
                wall_s, device_s = pool.spent_s()
                ledger.wall_s = before_s + wall_s
                ledger.device_s = before_device_s + device_s
                ledger.device = {**pool.device, "num_workers": pool.num_actors}
                pool.check()  # who must stop does not overwrite what another one has written
                checkpoint.write(rounds, ledger)
                observer.show(row)
                items = rounds.suggest()
    except Exception as error:
        if keep_going() and not isinstance(error, JobStoppedError):
            observer.fail(error)
        raise
    return JobResult.of(ledger)


@dataclass(frozen=True)
class _Checkpoint:
    """The state after the last full round: one file, whole or absent."""

    storage: Storage
    name: str

    @property
    def place(self) -> str:
        return f"{job_folder(self.name)}/rounds.json"

    def restore(self, rounds: Rounds) -> Ledger:
        """Give `rounds` the state that was written last; the ledger that was written with it."""
        text = self.storage.read(self.place)
        if text is None:
            return Ledger()
        try:
            saved = json_text.loads(text)
            state, ledger = saved["state"], Ledger(**saved["ledger"])
        except (ValueError, KeyError, TypeError) as error:  # as a power cut may leave it
            _log.warning(
                "The rounds of %s cannot be used (%s); it starts over.", self.name, reason_of(error)
            )
            return Ledger()
        rounds.load_state_dict(state)
        return ledger

    def write(self, rounds: Rounds, ledger: Ledger) -> None:
        """Replace what was written before, in one step."""
        text = json_text.dumps({"state": rounds.state_dict(), "ledger": vars(ledger)})
        self.storage.write(self.place, text.encode())
