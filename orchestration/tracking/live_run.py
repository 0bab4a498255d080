"""Following a stage in MLflow while it runs: the growing history, epoch by epoch.

The server may be away at the start, in the middle or for good; a training does not wait for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestration.store.stage import Stage
from orchestration.tracking.tracker import (
    ERROR,
    FINGERPRINT,
    MAX_TAG_CHARS,
    NOTHING,
    PUBLISHED,
    About,
    Tracker,
    TrackingError,
    stage_tags,
    tag_entities,
    to_ms,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

# A live run that found the server away leaves it alone for a while, so that a server that is
# gone for good costs a long training nothing.
_LIVE_TIMEOUT_S = 3
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0
# Who has slept so long, as laptops do, may meanwhile have been taken for dead and followed.
_TRUST_S = 20.0


class LiveRun:
    """The run of a stage that is being executed. It never raises for a server that is away:
    it warns once, keeps what it could not deliver, and tries again with the epochs that follow.

    What is still undelivered at the end is delivered by ``Tracker.publish``.

    Args:
        tracker: where it is; used by no other thread.
        stage: what is executed.
        tags: further tags.
        parent_run_id: the run that it is nested under.
        about: further params, and the data sets that the stage reads.
    """

    def __init__(
        self,
        tracker: Tracker,
        stage: Stage,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        about: About = NOTHING,
    ) -> None:
        self.run_id: str | None = None
        self._tracker = tracker
        self._stage, self._about = stage, about
        self._tags = stage_tags(stage.kind, stage.fingerprint, tags or {}, parent_run_id)
        self._started_ms = to_ms(time.time())
        self._pending: list[tuple[dict[str, float], int]] = []
        self._logged_ms: dict[int, int] = {}
        self._read_s = 0.0
        self._pause_s = 0.0
        self._not_before_s = 0.0
        self._warned = False
        self.flush()

    def log_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics, ``epoch`` among them; an epoch that is there is left alone."""
        self._pending.append((dict(metrics), to_ms(time.time())))
        if time.monotonic() >= self._not_before_s:
            self.flush()

    def flush(self) -> bool:
        """Deliver what is pending now; False if the server is away."""
        try:
            with self._tracker.session(_LIVE_TIMEOUT_S, 0) as client:
                if self.run_id is None:
                    self.run_id = self._open(client)
                    self._read_s = -math.inf
                if time.monotonic() - self._read_s > _TRUST_S:
                    self._logged_ms = self._tracker.logged_ms(self.run_id)
                self._read_s = time.monotonic()
                self._tracker.log_epochs(self.run_id, self._pending, self._logged_ms)
        except TrackingError as error:
            self._pause(error)
            return False
        self._pending.clear()
        self._pause_s = 0.0
        if self._warned:
            self._warned = False
            _log.warning("MLflow at %s is back; its metrics are complete.", self._tracker.uri)
        return True

    def fail(self, message: str, traceback: str = "") -> None:
        """Mark the run as failed: the tag ``bnnas.error``, the artifact ``traceback.txt``."""
        if not self.flush() or self.run_id is None:
            return
        try:
            with self._tracker.session(_LIVE_TIMEOUT_S, 0) as client:
                client.set_tag(self.run_id, ERROR, message[:MAX_TAG_CHARS])
                if traceback:
                    client.log_text(self.run_id, traceback, "traceback.txt")
                client.set_terminated(self.run_id, "FAILED")
        except TrackingError as error:
            self._pause(error)

    def _open(self, client: MlflowClient) -> str:
        stage, tags = self._stage, self._tags
        run = self._tracker.claim(
            FINGERPRINT, stage.fingerprint, stage.name, tags, self._started_ms
        )
        run_id = str(run.info.run_id)
        self._tracker.describe(run, stage.config, self._about)
        # A run that was published before and is executed again is complete no longer.
        client.log_batch(run_id, tags=tag_entities({**tags, PUBLISHED: "", ERROR: ""}))
        client.update_run(run_id, status="RUNNING")
        return run_id

    def _pause(self, error: TrackingError) -> None:
        self.run_id = None  # found again by its fingerprint, whatever became of it meanwhile
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._not_before_s = time.monotonic() + self._pause_s
        if not self._warned:
            self._warned = True
            _log.warning("%s Training goes on; its metrics are kept and sent later.", error)
