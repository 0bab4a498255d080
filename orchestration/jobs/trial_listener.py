"""How the process of a sweep follows its drivers: through Tune's own reports."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback

OnReport = Callable[[str, Mapping[str, Any]], None]
OnError = Callable[[str, Exception], None]


class TrialListener(Callback):
    """Passes on what the driver of each task reports and how it ends, with the trial's name.

    The name is the one in its config: Tune's list of trials, and of results, changes its
    order when a trial is started again.

    Args:
        on_event: called with the event in a report.
        on_complete: called with the last report of a task that has ended.
        on_error: called with the error of a task whose process has failed for good.
        interrupted: once set, Tune ends at its next step.
        name: where a trial's config has its name.
        event: where a report may have an event.
    """

    def __init__(
        self,
        on_event: Callable[[str, Any], None],
        on_complete: OnReport,
        on_error: OnError,
        interrupted: threading.Event,
        *,
        name: str,
        event: str,
    ) -> None:
        self._on_event, self._on_complete, self._on_error = on_event, on_complete, on_error
        self._interrupted = interrupted
        self._name, self._event = name, event

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
            self._on_event(trial.config[self._name], result[self._event])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune calls it when a task has come to its end."""
        self._on_complete(trial.config[self._name], trial.last_result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune calls it when a task's process has failed too often."""
        # What Ray raised is there as a pickle, and everything else as text.
        if trial.pickled_error_file is not None:
            error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        else:
            lines = Path(trial.error_file).read_text("utf-8").strip().splitlines()
            error = RuntimeError(lines[-1])
        self._on_error(trial.config[self._name], error)
