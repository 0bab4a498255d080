"""How the process of a sweep follows its drivers: through Tune's own reports."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback

OnReport = Callable[[int, Mapping[str, Any]], None]
OnError = Callable[[int, Exception], None]


class TrialListener(Callback):
    """Passes on what the driver of each task reports and how it ends, with the task's index.

    The index is the one in a trial's config: Tune's list of trials, and of results, changes its
    order when a trial is started again.

    Args:
        on_event: called with the event in a report.
        on_complete: called with the last report of a task that has ended.
        on_error: called with the error of a task whose process has failed for good.
        interrupted: once set, Tune ends at its next step.
        index: where a trial's config has the index.
        event: where a report may have an event.
    """

    def __init__(
        self,
        on_event: Callable[[int, Any], None],
        on_complete: OnReport,
        on_error: OnError,
        interrupted: threading.Event,
        *,
        index: str,
        event: str,
    ) -> None:
        self._on_event, self._on_complete, self._on_error = on_event, on_complete, on_error
        self._interrupted = interrupted
        self._index, self._event = index, event

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of its callbacks on disk, which is never used."""
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Tune calls it several times a second."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """Tune calls it for every report."""
        if result.get(self._event) is not None:
            self._on_event(trial.config[self._index], result[self._event])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune calls it when a task has come to its end."""
        self._on_complete(trial.config[self._index], trial.last_result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune calls it when a task's process has failed too often."""
        # What Ray raised is there as a pickle, and everything else as text.
        if trial.pickled_error_file is not None:
            error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        else:
            lines = Path(trial.error_file).read_text("utf-8").strip().splitlines()
            error = RuntimeError(lines[-1])
        self._on_error(trial.config[self._index], error)
