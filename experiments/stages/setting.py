"""What every stage of one experiment is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.config.data import DataConfig
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.jobs.scorer_pool import MakeScorer
from orchestration.jobs.scoring_job import Rounds
from orchestration.jobs.train_job import JobResult, Work
from orchestration.store.stage import Stage
from orchestration.tracking.models import WriteModel
from orchestration.tracking.stage_runs import Done, Draw

if TYPE_CHECKING:
    from nas.data import DataSplits


# The network's state_dict in a checkpoint and among a stage's files.
WEIGHTS = "network.pt"
# What a network is fed, beside the weights of a retrained one: one normalised search-validation
# image [1, C, H, W], and its data set's class names and normalisation.
EXAMPLE = "example.npy"
IMAGES = "images.json"


class Watcher(Protocol):
    """Follows a stage's start, epochs and end; called from several threads."""

    def started(self, stage: Stage, total: int) -> None:
        """A stage of `total` epochs is wanted: it begins, or is waited for."""
        ...

    def advanced(self, stage: Stage, row: Mapping[str, float]) -> None:
        """An epoch of a stage is over; `row` holds its metrics."""
        ...

    def done(self, done: Done) -> None:
        """A stage is there."""
        ...


@dataclass(frozen=True)
class Setting:
    """The runner, where data lie, and who watches.

    Attributes:
        runner: has stages or makes them.
        place: what workers must know and what cannot change a result.
        watcher: follows every stage.
    """

    runner: StageRunner
    place: Mapping[str, Any]
    watcher: Watcher

    def with_place(self, **more: Any) -> Setting:
        """The same setting for workers that must know more."""
        return replace(self, place={**self.place, **more})

    def train(
        self,
        stage: Stage,
        work: Work,
        finish: Callable[[JobResult, Path], Outcome],
        *,
        total: int,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
        keep: tuple[str, ...] = (),
        model: WriteModel | None = None,
    ) -> Done:
        """`StageRunner.train` of `total` epochs, watched."""
        self.watcher.started(stage, total)
        done = self.runner.train(
            stage,
            work,
            self.place,
            finish,
            inputs=inputs,
            draw=draw,
            keep=keep,
            model=model,
            on_progress=lambda row: self.watcher.advanced(stage, row),
        )
        self.watcher.done(done)
        return done

    def score(
        self,
        stage: Stage,
        make_scorer: MakeScorer,
        rounds: Rounds,
        finish: Callable[[], Outcome],
        *,
        total: int,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
    ) -> Done:
        """`StageRunner.score` of `total` rounds, watched."""
        self.watcher.started(stage, total)
        done = self.runner.score(
            stage,
            make_scorer,
            self.place,
            rounds,
            finish,
            inputs=inputs,
            draw=draw,
            on_progress=lambda row: self.watcher.advanced(stage, row),
        )
        self.watcher.done(done)
        return done

    def compute(
        self,
        stage: Stage,
        make: Callable[[], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
    ) -> Done:
        """`StageRunner.compute`, watched."""
        done = self.runner.compute(stage, make, inputs=inputs, draw=draw)
        self.watcher.done(done)
        return done


def load_images(data: DataConfig, place: Mapping[str, Any]) -> DataSplits:
    """The images of a stage: what they are is in its content, where they lie is not."""
    from nas.data import load_data

    places = {"root": place["data_root"], "num_workers": place["num_loaders"]}
    return load_data(**{**data.model_dump(), **places})
