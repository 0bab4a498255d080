"""One table of tracked runs: what every section of a report is made of.

A row is a run, with the columns of MLflow's own `search_runs`: `params.*` and `tags.*` are text,
`metrics.*` numbers. It comes from a server or database, or from the results that a command has in
hand.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pandas as pd

from experiments.report.formats import Format
from experiments.report.tables import Entry, mean_std, number
from experiments.run.about import CELL_PARAMS
from orchestration.tracking.reader import TrackedRun, read_experiment

_COLUMNS = ["run_id", "name", "kind", "status", "parent_run_id", "fingerprint"]


class Artifacts(Protocol):
    """What a run has beside its row."""

    def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        """A finished stage's config, history and result; None where it cannot be had."""

    def document(self, run: TrackedRun, path: str) -> str | None:
        """The text of a file; None where it cannot be had."""

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        """The PNGs among its figures whose names begin so, in the order of their names."""


@dataclass(frozen=True)
class Runs:
    """The runs of an experiment, the oldest first.

    Attributes:
        experiment: name of the MLflow experiment.
        tracked: the runs of this program.
        num_foreign: how many others there are.
        artifacts: what the runs have beside their rows.
    """

    experiment: str
    tracked: tuple[TrackedRun, ...]
    num_foreign: int
    artifacts: Artifacts

    @classmethod
    def read(cls, uri: str, experiment: str, run: str | None = None) -> Runs:
        """From MLflow: all of an experiment, or one run with all its numbers come from.

        Raises:
            TrackingError: there is no such experiment or run, or the server is away or refuses.
        """
        tracked = read_experiment(uri, experiment)
        if run is not None:
            tracked = tracked.part(run)
        return cls(experiment, tracked.runs, tracked.num_foreign, tracked)

    @cached_property
    def by_id(self) -> Mapping[str, TrackedRun]:
        """Run id → run."""
        return {run.run_id: run for run in self.tracked}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a run, by run id; missing text is empty, missing numbers are NaN.

        Beside the columns of MLflow: `name`, `kind`, `parent_run_id`, `fingerprint`, and
        `input.KIND` with the run ids of what a run was made from.
        """
        texts = [
            {
                "run_id": run.run_id,
                "name": run.name,
                "kind": run.kind,
                "status": run.status,
                "parent_run_id": run.parent_run_id or "",
                "fingerprint": run.fingerprint or "",
                **{f"input.{kind}": run_id for kind, run_id in run.inputs.items()},
                **{f"params.{name}": text for name, text in run.params.items()},
                **{f"tags.{name}": text for name, text in run.tags.items()},
            }
            for run in self.tracked
        ]
        numbers = [
            {
                "start_time": run.started_at,
                **{f"metrics.{name}": value for name, value in run.metrics.items()},
            }
            for run in self.tracked
        ]
        # Two blocks instead of one a column: sections take rows out of it, again and again.
        frames = (
            pd.DataFrame(texts, columns=None if texts else _COLUMNS, dtype=object).fillna(""),
            pd.DataFrame(numbers, columns=None if numbers else ["start_time"], dtype=float),
        )
        return pd.concat(frames, axis=1).set_index("run_id", drop=False)

    def of_kind(self, kind: str, *, finished: bool = False) -> pd.DataFrame:
        """The rows of a kind of run: `cell`, `sweep`, `supernet`, `detect`, …"""
        rows = self.frame[self.frame["kind"] == kind]
        return rows[rows["status"] == "FINISHED"] if finished else rows

    def inputs(self, rows: pd.DataFrame, kind: str) -> pd.DataFrame:
        """The runs of a kind that some runs were made from, each once."""
        run_ids = dict.fromkeys(texts(rows, f"input.{kind}"))
        return self.frame.iloc[[self._places[each] for each in run_ids if each in self._places]]

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {run.run_id: place for place, run in enumerate(self.tracked)}

    def input(self, run_id: str, kind: str) -> TrackedRun | None:
        """What a run was made from."""
        return self.by_id.get(self.by_id[run_id].inputs.get(kind, ""))

    def params(
        self, run_id: str, but: Collection[str] = (), *, prefix: str = ""
    ) -> frozenset[tuple[str, str]]:
        """Names and texts of a stage's params, for comparison; some of them, or all but some.

        Those that repeat its config under the names that cells have for them are left out.
        """
        params, left_out = self.by_id[run_id].params.items(), {*but, *CELL_PARAMS}
        return frozenset(
            each for each in params if each[0].startswith(prefix) and each[0] not in left_out
        )

    def record(self, run_id: str) -> Mapping[str, Any] | None:
        """A stage's whole record: config, history and result; None where it cannot be had."""
        return self.artifacts.record(self.by_id[run_id])


def texts(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of text, which is empty where no run has it."""
    return rows[column] if column in rows else pd.Series("", index=rows.index)


def grouped(rows: pd.DataFrame, key: Callable[[str], Hashable]) -> list[pd.DataFrame]:
    """Rows whose run ids have one key, in the order of the first of each."""
    places: dict[Hashable, list[int]] = {}
    for place, run_id in enumerate(rows.index):
        places.setdefault(key(run_id), []).append(place)
    return [rows.iloc[group] for group in places.values()]


def of_each_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest of each seed."""
    return rows[~texts(rows, "params.seed").duplicated(keep="last")]


def numbers(rows: pd.DataFrame, metric: str) -> pd.Series:
    """A metric of some runs; NaN where no run has it."""
    column = f"metrics.{metric}"
    return rows[column] if column in rows else pd.Series(math.nan, index=rows.index)


def average(rows: pd.DataFrame, metric: str, form: Format) -> Entry:
    """A metric's mean ± standard deviation over some runs."""
    return mean_std(numbers(rows, metric), form)


def mean(
    rows: pd.DataFrame, metric: str, how: Callable[[list[float]], float] = statistics.fmean
) -> float:
    """A metric of several runs as one number, their mean or another one.

    Of finite values; NaN without any.
    """
    finite = [float(each) for each in numbers(rows, metric) if math.isfinite(each)]
    return how(finite) if finite else math.nan


def value(run: TrackedRun | None, metric: str, form: Format) -> Entry:
    """A metric of one run."""
    return number(None if run is None else run.metrics.get(metric), form)


def mean_value(run: TrackedRun, metric: str, form: Format) -> Entry:
    """A mean that a run itself has tracked ± the metric of that name with `_std`, if any."""
    return number(run.metrics.get(metric), form, run.metrics.get(f"{metric}_std", math.nan))
