"""The MLflow run of a cell or a sweep, from its start to whatever end it comes to.

Its results are in the store, so a tracking server that is away costs a warning; what it missed at
the beginning of the run, it gets at its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestration.store.json_text import JSON
from orchestration.tracking.tracker import (
    ERROR,
    Tracker,
    TrackingError,
    part_tags,
    run_id_tags,
    run_ids_of,
)

_log = logging.getLogger(__name__)

_INTERRUPTED_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class GroupRun:
    """A run that others are nested under, found again by its group; see `Tracker.start_group`.

    Attributes:
        name: what people call it.
        tracker: where it is.
        tags: of the run.
        params: nested.
        group: what it is found by.
        parent_run_id: the group that this one is part of.
    """

    name: str
    tracker: Tracker
    tags: Mapping[str, str]
    params: Mapping[str, JSON]
    group: str
    parent_run_id: str | None = None

    def start(self) -> str:
        """Begin it, or find it again; returns its id.

        Raises:
            TrackingError: the server is away or refuses.
        """
        return self.tracker.start_group(
            self.name, self.tags, self.params, group=self.group, parent_run_id=self.parent_run_id
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shown as running within, and as failed or killed, with the reason, after an error."""
        run_id = self._attempt(self.start, "running")
        try:
            yield
        except Exception as error:
            self.finish("FAILED", tags={ERROR: str(error)})
            raise
        except BaseException:
            if run_id is not None:
                self._kill(run_id)
            raise

    def _kill(self, run_id: str) -> None:
        """Show it and all below it as killed.

        After Ctrl-C a server that is away is not waited for long.
        """

        def kill() -> str:
            self.tracker.kill(run_id)
            return run_id

        thread = threading.Thread(target=self._attempt, args=(kill, "KILLED"), daemon=True)
        thread.start()
        thread.join(_INTERRUPTED_TIMEOUT_S)

    def finish(
        self,
        status: str = "FINISHED",
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, JSON] | None = None,
        artifacts: Path | None = None,
        tags: Mapping[str, str] | None = None,
        parts: Iterable[str] = (),
        run_ids: Mapping[str, str] | None = None,
    ) -> str | None:
        """End it, as `Tracker.finish_group` does; an earlier end's reason is forgotten.

        `parts` are the fingerprints of all stages that its numbers come from, `run_ids` the runs
        below it, by the keys that :meth:`shown` returns them under. Returns its id; None where the
        server was away.
        """

        ending = {ERROR: "", **part_tags(parts), **run_id_tags(run_ids or {}), **(tags or {})}

        def end() -> str:
            run_id = self.start()
            self.tracker.finish_group(run_id, status, metrics, params, artifacts, ending)
            return run_id

        return self._attempt(end, status)

    def shown(self) -> tuple[str | None, dict[str, str]]:
        """The id of the run and of those below it, where an earlier :meth:`finish` showed them all.

        Raises:
            TrackingError: the server is away or refuses.
        """
        run = self.tracker.find_group(self.group)
        if run is None or run.info.status != "FINISHED":
            return None, {}
        return str(run.info.run_id), run_ids_of(run.data.tags)

    def _attempt(self, report: Callable[[], str], status: str) -> str | None:
        try:
            return report()
        except TrackingError as error:
            _log.warning("MLflow does not show %s as %s: %s", self.name, status, error)
            return None
