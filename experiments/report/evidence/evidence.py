"""The runs of an experiment as sections look at them: by kind, by parent, with their records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.report.evidence.units import Show
from experiments.report.evidence.values import REDUCTIONS, MeanStd, Number, Tracked
from orchestration.tracking.reader import TrackedExperiment, TrackedRun


@dataclass(frozen=True)
class Evidence:
    """A tracked experiment."""

    experiment: TrackedExperiment

    @property
    def runs(self) -> tuple[TrackedRun, ...]:
        """Of this program, the oldest first."""
        return self.experiment.runs

    @property
    def by_id(self) -> Mapping[str, TrackedRun]:
        """Run id → run."""
        return self.experiment.by_id

    @cached_property
    def _by_kind(self) -> Mapping[str, tuple[TrackedRun, ...]]:
        groups: dict[str, list[TrackedRun]] = {}
        for run in self.runs:
            groups.setdefault(run.kind, []).append(run)
        return {kind: tuple(group) for kind, group in groups.items()}

    def of(self, kind: str) -> tuple[TrackedRun, ...]:
        """The runs of a kind, the oldest first."""
        return self._by_kind.get(kind, ())

    def children(self, run: TrackedRun) -> tuple[TrackedRun, ...]:
        """The runs that are nested under a run."""
        return self.experiment.children(run)

    def input(self, run: TrackedRun, kind: str) -> TrackedRun | None:
        """What a run was made from."""
        return self.by_id.get(run.inputs.get(kind, ""))

    def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        """The whole record of a finished stage, asked for once; None where it cannot be had."""
        return self.experiment.record(run)


def tracked(
    runs: TrackedRun | Sequence[TrackedRun], metric: str, show: Show, how: str = "value"
) -> Number | None:
    """A metric of a run, or of several as one number; None where none of them has it.

    Of several, those whose value is no number are left out.
    """
    runs = [runs] if isinstance(runs, TrackedRun) else runs
    having = [
        run
        for run in runs
        if metric in run.metrics and (how == "value" or math.isfinite(run.metrics[metric]))
    ]
    if not having or (how == "std" and len(having) < 2):
        return None
    value = REDUCTIONS[how]([run.metrics[metric] for run in having])
    source = Tracked(metric, tuple(run.run_id for run in having), how)
    return Number.of(value, show, source)


def tracked_mean_std(run: TrackedRun, metric: str, show: Show) -> MeanStd | None:
    """A mean that a run itself has tracked, ± the metric of that name with `_std`, if any."""
    mean = tracked(run, metric, show)
    return None if mean is None else MeanStd(mean, tracked(run, f"{metric}_std", show))


def mean_std(runs: Sequence[TrackedRun], metric: str, show: Show) -> MeanStd | None:
    """The mean of a metric over runs, ± its standard deviation where there are several."""
    mean = tracked(runs, metric, show, "mean")
    return None if mean is None else MeanStd(mean, tracked(runs, metric, show, "std"))
