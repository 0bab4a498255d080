"""What every stage of one experiment is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.stage import Stage
from orchestration.stage_runner import Done, Draw, Outcome, StageRunner
from orchestration.train_job import JobResult, Work

if TYPE_CHECKING:
    from experiments.terminal import Display
    from nas.data import DataSplits


# The network's state_dict in a checkpoint and among a stage's files.
WEIGHTS = "network.pt"


@dataclass(frozen=True)
class Setting:
    """The runner, where data lie, and the display that watches.

    Attributes:
        runner: has stages or makes them.
        place: what workers must know and what cannot change a result.
        display: told of every stage's start, epochs and end.
    """

    runner: StageRunner
    place: Mapping[str, Any]
    display: Display

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
    ) -> Done:
        """`StageRunner.train`, shown as a bar of `total` epochs."""
        self.display.started(stage, total)
        done = self.runner.train(
            stage,
            work,
            self.place,
            finish,
            inputs=inputs,
            draw=draw,
            keep=keep,
            on_progress=lambda row: self.display.advanced(stage, row),
        )
        self.display.done(done)
        return done

    def compute(
        self,
        stage: Stage,
        make: Callable[[], Outcome],
        *,
        inputs: Mapping[str, Done] | None = None,
        draw: Draw | None = None,
    ) -> Done:
        """`StageRunner.compute`, shown when it is done."""
        done = self.runner.compute(stage, make, inputs=inputs, draw=draw)
        self.display.done(done)
        return done


def load_stage_data(stage: Mapping[str, Any], place: Mapping[str, Any]) -> DataSplits:
    """The images of a stage: what they are is in the stage's config, where they lie is not."""
    from nas.data import load_data

    return load_data(
        **{**stage["data"], "root": place["data_root"], "num_workers": place["num_loaders"]}
    )
