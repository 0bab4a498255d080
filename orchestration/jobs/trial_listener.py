"""How the process of a sweep hears from its drivers: through Tune's own reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback

Hear = Callable[[int, Mapping[str, Any]], None]


class TrialListener(Callback):
    """Passes on what the driver of each task reports, and its last report when it ends.

    Tune keeps a copy of its callbacks on disk; that copy hears nothing.

    Args:
        on_event: called with a task's index and the event in its report.
        on_end: called with a task's index and its whole last report.
        index: where a trial's config has the index.
        event: where a report may have an event.
    """

    def __init__(self, on_event: Hear, on_end: Hear, *, index: str, event: str) -> None:
        self._hearers = [(on_event, on_end)]
        self._index, self._event = index, event

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_hearers": []}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """Tune calls it for every report."""
        for on_event, _ in self._hearers:
            if result.get(self._event) is not None:
                on_event(trial.config[self._index], result[self._event])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune calls it when a task has come to its end."""
        for _, on_end in self._hearers:
            on_end(trial.config[self._index], trial.last_result)
