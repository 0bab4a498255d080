"""Reading back what was tracked: runs of an experiment, a page at a time.

Numbers and names come with the pages. Only a document, such as the record that holds a stage's
whole history, costs a request of its own.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestration.cluster.credentials import without_credentials
from orchestration.store import json_text
from orchestration.store.stage_store import StageRecord
from orchestration.tracking import server as mlflow_server
from orchestration.tracking.params import charted, flatten_params
from orchestration.tracking.server import TrackingError
from orchestration.tracking.tracker import (
    CODE,
    ERROR,
    FINGERPRINT,
    INPUT,
    NOTHING,
    PARENT,
    PART,
    PART_DIGITS,
    PUBLISHED,
    RECORD,
    STAGE,
    SYSTEM_METRICS,
    About,
    cut_tags,
    final_metrics,
    record_digest,
    record_tags,
    to_ms,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FIGURES = "figures"  # where the tracker puts those of a stage
_TIMEOUT_S, _NUM_RETRIES = 20, 1
PROGRAM = "bnnas"
_PAGE = 1000  # runs; MLflow sends no more than 50,000 at once


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow has it.

    Attributes:
        run_id: MLflow's.
        name: the run's name.
        status: ``RUNNING``, ``FINISHED``, ``FAILED``, ``KILLED`` or ``SCHEDULED``.
        params: flat.
        metrics: the last value of each.
        tags: all of them.
        started_at: Unix time, seconds.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started_at: float

    @property
    def kind(self) -> str:
        """The stage's kind, or what the run is a group of: ``cell``, ``sweep``, …"""
        return self.tags[STAGE]

    @property
    def fingerprint(self) -> str | None:
        """Of the stage; a group has none."""
        return self.tags.get(FINGERPRINT)

    @property
    def parent_run_id(self) -> str | None:
        """The group that it was first part of."""
        return self.tags.get(PARENT)

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return self.tags.get(ERROR) or None

    @property
    def inputs(self) -> dict[str, str]:
        """Kind → run id of what it was made from."""
        return {
            key.removeprefix(INPUT): run_id
            for key, run_id in self.tags.items()
            if key.startswith(INPUT)
        }

    @cached_property
    def part_fingerprints(self) -> frozenset[str]:
        """First digits of the stages that a group's numbers come from, as far as it names them."""
        texts = [text for key, text in self.tags.items() if key.startswith(PART)]
        return frozenset(" ".join(texts).split())

    @cached_property
    def code(self) -> Mapping[str, Any]:
        """Commit, command, versions and hardware that it was made with; empty if unknown."""
        try:
            code = json_text.loads(self.tags.get(CODE, "{}"))
        except ValueError:  # MLflow cuts tags that are too long
            code = {}
        return code if isinstance(code, dict) else {}

    @property
    def command(self) -> str | None:
        """What it was made with, as it can be given again; None if unknown."""
        command = self.code.get("command") or self.tags.get("mlflow.source.name")
        if not command:
            return None
        # What `python -c` runs has no name of its own.
        return re.sub("^-c ", f"{PROGRAM} ", without_credentials(str(command)))


@dataclass(frozen=True)
class TrackedExperiment:
    """The runs of an experiment, the oldest first.

    Attributes:
        uri: of the server or database.
        name: the experiment's.
        runs: those of this program.
        num_foreign: how many others there are.
    """

    uri: str
    name: str
    runs: tuple[TrackedRun, ...]
    num_foreign: int
    _records: dict[str, Mapping[str, Any] | None] = field(
        default_factory=dict, repr=False, compare=False
    )
    _documents: _Documents | None = field(default=None, repr=False, compare=False)

    def part(self, run_id: str) -> TrackedExperiment:
        """A run with everything that its numbers come from, at any depth.

        Args:
            run_id: whole, or as many digits as no other run's id begins with.

        Raises:
            TrackingError: there is no such run in the experiment.
        """
        wanted: set[str] = set()
        waiting = [self._one(run_id)]
        while waiting:
            one = waiting.pop()
            if one.run_id not in wanted:
                wanted.add(one.run_id)
                waiting += self.sources(one)
        runs = tuple(run for run in self.runs if run.run_id in wanted)
        return replace(self, runs=runs, num_foreign=0)

    def sources(self, run: TrackedRun) -> tuple[TrackedRun, ...]:
        """What a run's numbers come from: its inputs, what is nested under it, what it names."""
        inputs = [self.by_id[each] for each in run.inputs.values() if each in self.by_id]
        runs = [*inputs, *self.children(run)]
        if run.fingerprint is None:
            runs += [self._by_digits[d] for d in run.part_fingerprints if d in self._by_digits]
        return tuple({one.run_id: one for one in runs}.values())

    def children(self, run: TrackedRun) -> tuple[TrackedRun, ...]:
        """The runs that are nested under a run."""
        return self._by_parent.get(run.run_id, ())

    @cached_property
    def by_id(self) -> Mapping[str, TrackedRun]:
        """Run id → run."""
        return {run.run_id: run for run in self.runs}

    @cached_property
    def _by_digits(self) -> Mapping[str, TrackedRun]:
        return {run.fingerprint[:PART_DIGITS]: run for run in self.runs if run.fingerprint}

    @cached_property
    def _by_parent(self) -> Mapping[str, tuple[TrackedRun, ...]]:
        nested: dict[str, list[TrackedRun]] = {}
        for run in self.runs:
            nested.setdefault(run.parent_run_id or "", []).append(run)
        return {run_id: tuple(runs) for run_id, runs in nested.items()}

    def _one(self, digits: str) -> TrackedRun:
        """The run with this id, or with the only id that begins so."""
        matches = [run for run in self.runs if digits and run.run_id.startswith(digits)]
        if len(matches) == 1:
            return matches[0]
        what = f"{len(matches)} runs" if matches else "no run"
        raise TrackingError(
            f"The experiment {self.name!r} has {what} of this program whose id begins with "
            f"{digits!r}: take one from the lineage table of the whole report, or from MLflow's "
            "page of the run."
        )

    def document(self, run: TrackedRun, path: str) -> str | None:
        """The text of one of a run's artifacts; None, with a warning, where it cannot be had."""
        return None if self._documents is None else self._documents.text(run, path)

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        """The PNGs among a run's figures whose names begin so; none where they cannot be had."""
        return [] if self._documents is None else self._documents.figures(run, prefix)

    def record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        """The record of a stage that is finished: what `StageRecord` has; None without one."""
        if run.run_id not in self._records:
            self._records[run.run_id] = self._read_record(run)
        return self._records[run.run_id]

    def _read_record(self, run: TrackedRun) -> Mapping[str, Any] | None:
        text = self.document(run, RECORD) if run.tags.get(PUBLISHED) else None
        try:
            record = None if text is None else json_text.loads(text)
        except ValueError as error:
            _log.warning("%s of the run %s is damaged: %s", RECORD, run.name, error)
            return None
        return record if isinstance(record, dict) else None


class _Documents:
    """The artifacts of runs, over one connection."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._is_away = False

    def text(self, run: TrackedRun, path: str) -> str | None:
        def read(to: str) -> str:
            return Path(self._client.download_artifacts(run.run_id, path, to)).read_text("utf-8")

        return self._attempt(run, path, read)

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        def read(to: str) -> list[bytes]:
            listed = self._client.list_artifacts(run.run_id, _FIGURES)
            paths = [each.path for each in listed if Path(each.path).match(f"{prefix}*.png")]
            return [
                Path(self._client.download_artifacts(run.run_id, path, to)).read_bytes()
                for path in sorted(paths)
            ]

        return self._attempt(run, _FIGURES, read) or []

    def _attempt(self, run: TrackedRun, path: str, read: Callable[[str], _T]) -> _T | None:
        """What is read by way of a folder; None, with a warning, where it cannot be."""
        if self._is_away:  # that was said, and each further request would wait as long again
            return None
        with mlflow_server.patience(_TIMEOUT_S, 0), tempfile.TemporaryDirectory() as to:
            try:
                return read(to)
            except Exception as error:  # noqa: BLE001  # every artifact store has errors of its own
                reason = mlflow_server.reason_of(error)
                self._is_away = mlflow_server.is_away(error)
                _log.warning("%s of the run %s cannot be read: %s", path, run.name, reason)
                return None


def read_experiment(uri: str, name: str) -> TrackedExperiment:
    """Read the runs of an experiment; nothing is created.

    Args:
        uri: of the server or database.
        name: the experiment's.

    Raises:
        TrackingError: there is no such experiment, or the server or database is away or refuses.
    """
    with mlflow_server.reading(uri, _TIMEOUT_S, _NUM_RETRIES) as client:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise TrackingError(_no_such(uri, name, client))
        if experiment.lifecycle_stage != "active":
            raise mlflow_server.deleted(experiment, uri)
        runs: dict[str, Run] = {}
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id],
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            # Pages are cut anew for each request: a run that is deleted meanwhile moves the others.
            runs |= {run.info.run_id: run for run in page}
            token = page.token
            if not token:
                break
    ours = [_tracked(run) for run in runs.values() if STAGE in run.data.tags]
    ours.sort(key=lambda run: run.started_at)
    num_foreign = len(runs) - len(ours)
    return TrackedExperiment(uri, name, tuple(ours), num_foreign, {}, _Documents(client))


def tracked_run(
    record: StageRecord,
    *,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    about: About = NOTHING,
    parent_run_id: str | None = None,
) -> TrackedRun:
    """The run that `Tracker.publish` makes of a record that was not published before.

    Args as there, and `run_id`, which that returned. Of every metric it has the last value, of
    those that are final, in the history and in the series, in this order of precedence.
    """
    last = {key: points[-1][1] for key, points in record.series.items() if points}
    for row in record.history:
        last |= charted(row)
    all_tags = {
        **record_tags(record, tags, parent_run_id),
        ERROR: "",
        PUBLISHED: record_digest(record),
        "mlflow.runName": name,
    }
    return TrackedRun(
        run_id=run_id,
        name=name,
        status="FINISHED",
        params=flatten_params({**record.config, **about.params}),
        metrics={key: float(value) for key, value in {**last, **final_metrics(record)}.items()},
        tags=cut_tags(all_tags),
        started_at=to_ms(record.started_at) / 1000,
    )


def _tracked(run: Run) -> TrackedRun:
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        params=dict(run.data.params),
        metrics={
            name: _as_logged(value)
            for name, value in run.data.metrics.items()
            if not name.startswith(SYSTEM_METRICS)
        },
        tags=dict(run.data.tags),
        started_at=run.info.start_time / 1000,
    )


def _as_logged(value: float) -> float:
    """MLflow keeps infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _no_such(uri: str, name: str, client: MlflowClient) -> str:
    names = [each.name for each in client.search_experiments()]
    near = difflib.get_close_matches(name, names, n=3) or sorted(names)[:5]
    hint = f"there are {', '.join(map(repr, near))}" if near else "it holds none"
    return f"MLflow at {uri} has no experiment {name!r}: {hint}; name one with --experiment."
