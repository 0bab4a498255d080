"""The MLflow runs of stages: followed while a stage is made, complete when it is there.

All of it happens in one background thread, so that the next stage starts meanwhile. What goes wrong
there, such as a tracking server that is away, costs a warning and no result.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from orchestration.store.claims import Claims
from orchestration.store.json_text import JSON
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.live_run import LiveRun
from orchestration.tracking.models import WriteModel, find_model, log_model
from orchestration.tracking.tracker import INPUT, NOTHING, About, Tracker, TrackingError

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # a job that is to be followed waits no longer for the runs of its inputs

Draw = Callable[[StageRecord, Path], None]


@dataclass(frozen=True)
class Done:
    """A stage that is there.

    Attributes:
        stage: what was asked for.
        record: what was found.
        cached: whether it was there before, or somebody else has made it.
        drawn: the folder of its figures, some time soon; it lasts as long as the `StageRuns`.
        shown: its MLflow run's id, likewise.
    """

    stage: Stage
    record: StageRecord
    cached: bool
    drawn: Future[Path]
    shown: Future[str | None]

    @property
    def figures(self) -> Path:
        """The folder of its figures, waited for."""
        return self.drawn.result()

    @property
    def run_id(self) -> str | None:
        """Its complete MLflow run, waited for; None where the server was away."""
        return self.shown.result()


@dataclass(frozen=True)
class StageRuns:
    """The runs of one experiment's stages. A context: its end waits until all is shown.

    Attributes:
        tracker: where they are.
        claims: who logs a model.
        parent_run_id: the run that they are nested under.
        tags: further tags of every run.
        about: what MLflow shows of a stage beyond its record, given its kind and its config.
    """

    tracker: Tracker
    claims: Claims
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    about: Callable[[str, Mapping[str, JSON]], About] = lambda kind, config: NOTHING
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "mlflow"), repr=False, compare=False
    )
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="figures-"),
        repr=False,
        compare=False,
    )

    def __enter__(self) -> StageRuns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After Ctrl-C a server that is away is not waited for.
        is_interrupted = isinstance(error, KeyboardInterrupt)
        self._thread.shutdown(wait=not is_interrupted, cancel_futures=is_interrupted)
        self._folder.cleanup()

    def follow(self, stage: Stage, inputs: Mapping[str, Done] | None) -> Callable[[], LiveRun]:
        """What begins to follow a stage that is about to be made."""

        def begin() -> LiveRun:
            tracker = Tracker(self.tracker.uri, self.tracker.experiment)  # of another thread
            about = self.about(stage.kind, stage.config)
            return LiveRun(tracker, stage, self._tags(inputs), self.parent_run_id, about)

        return begin

    def done(
        self,
        stage: Stage,
        record: StageRecord,
        *,
        cached: bool,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
        model: WriteModel | None = None,
    ) -> Done:
        """A stage that is there; its run will show the record, its figures and its model."""

        def draw_all() -> Path:
            folder = Path(tempfile.mkdtemp(dir=self._folder.name))
            if draw is not None:
                try:
                    draw(record, folder)
                except Exception as error:  # noqa: BLE001  # a figure is worth no stage
                    _log.warning("A figure of %s could not be drawn: %r", stage.name, error)
            return folder

        def show_all() -> str | None:
            run_id = None
            try:
                run_id = self.tracker.publish(
                    record,
                    name=stage.name,
                    tags=self._tags(inputs),
                    about=self.about(record.kind, record.config),
                    figures=None if draw is None else drawn.result(),
                    parent_run_id=self.parent_run_id,
                )
                if model is not None:
                    self._show_model(stage, record, run_id, model)
            except Exception as error:  # noqa: BLE001  # neither is what MLflow shows
                _log.warning(
                    "%s is stored, but MLflow does not show %s: %s Run the same command again "
                    "when that is mended.",
                    stage.name,
                    "it" if run_id is None else "its model",
                    error if isinstance(error, TrackingError) else repr(error),
                )
            return run_id

        drawn = self._thread.submit(draw_all)
        return Done(stage, record, cached, drawn, self._thread.submit(show_all))

    def _show_model(
        self, stage: Stage, record: StageRecord, run_id: str, write: WriteModel
    ) -> None:
        """Of all that want to log a stage's model, one at a time does it."""

        def shown() -> str | None:
            return find_model(self.tracker, run_id, record)

        result = self.claims.wait(f"model-{record.fingerprint}", shown)
        if not isinstance(result, str):
            with result:
                log_model(self.tracker, run_id, record, write, name=stage.name)

    def _tags(self, inputs: Mapping[str, Done] | None) -> dict[str, str]:
        """The caller's, and what the stage was made from as far as MLflow shows that soon."""
        tags = dict(self.tags)
        for kind, done in (inputs or {}).items():
            with contextlib.suppress(TimeoutError):
                if (run_id := done.shown.result(_PATIENCE_S)) is not None:
                    tags[f"{INPUT}{kind}"] = run_id
        return tags
