"""The MLflow run of a cell or a sweep, from its start to whatever end it comes to.

Its results are in the store, so a tracking server that goes away meanwhile costs a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestration.json_text import JSON
from orchestration.tracking import ERROR, Tracker, TrackingError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupRun:
    """A run that others are nested under, begun by :meth:`Tracker.start_group`.

    Attributes:
        name: what people call it.
        run_id: MLflow's.
        tracker: where it is.
    """

    name: str
    run_id: str
    tracker: Tracker

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Marked as failed or killed, with the reason, unless all goes well within."""
        try:
            yield
        except Exception as error:
            self.finish("FAILED", tags={ERROR: str(error)})
            raise
        except BaseException:
            self.finish("KILLED")
            raise

    def finish(
        self,
        status: str = "FINISHED",
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, JSON] | None = None,
        artifacts: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End it, as :meth:`Tracker.finish_group` does; an earlier end's reason is forgotten."""
        try:
            self.tracker.finish_group(
                self.run_id, status, metrics, params, artifacts, {ERROR: "", **(tags or {})}
            )
        except TrackingError as error:
            _log.warning(
                "The results are stored, but MLflow does not show %s as %s: %s",
                self.name,
                status,
                error,
            )
