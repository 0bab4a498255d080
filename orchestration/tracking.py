"""MLflow as a projection of the stage store: one run per result, whatever happened on the way.

A stage's run is found by its tag ``bnnas.fingerprint``. :meth:`Tracker.publish` makes it show
exactly one :class:`~orchestration.stage_store.StageRecord`, and may be called any number of
times; :class:`LiveRun` does the same for a history that is still growing. What a server that was
away has missed is therefore filled in by whoever comes next. An epoch's metrics, its number among
them as the metric ``epoch``, go in one batch that is stored whole or not at all: the steps of
``epoch`` say which epochs are there, and none is logged twice.

Two processes may create the run of one fingerprint at once. The run that started first (of equal
ones, the one with the smaller id) is the run; :meth:`Tracker.publish` deletes the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration import json_text, mlflow_server
from orchestration.json_text import JSON
from orchestration.mlflow_server import TrackingError
from orchestration.params import flatten_params
from orchestration.stage_store import StageRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunTag

__all__ = ["LiveRun", "LiveTracking", "Tracker", "TrackingError"]

_log = logging.getLogger(__name__)

STAGE = "bnnas.stage"
FINGERPRINT = "bnnas.fingerprint"
GROUP = "bnnas.group"
PUBLISHED = "bnnas.published"
ERROR = "bnnas.error"
_PARENT = "mlflow.parentRunId"
_EPOCH = "epoch"
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_TAG_CHARS = 5000
# A live run that found the server away leaves it alone for a while, so that a server that is
# gone for good costs a long training nothing.
_LIVE_TIMEOUT_S = 3
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0


class Tracker:
    """One experiment on one MLflow server or database. Making one touches no network.

    Args:
        uri: ``http://HOST:PORT`` or ``sqlite:////ABSOLUTE/PATH/mlflow.db``. The artifacts of a
            SQLite database go to the folder ``artifacts`` beside it.
        experiment: its name; created at first use.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.experiment = experiment
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None

    def check(self) -> None:
        """Find out within seconds whether runs can be logged; creates the experiment.

        Raises:
            TrackingError: they cannot; one sentence with the URI and the way out.
        """
        mlflow_server.check(self.uri, self.experiment)

    def publish(
        self,
        record: StageRecord,
        *,
        name: str,
        tags: Mapping[str, str],
        artifacts: Path | None = None,
        parent_run_id: str | None = None,
    ) -> str:
        """Make the run of ``record.fingerprint`` show ``record``, and return its id.

        Logged are the flattened config as params, the history (each epoch once), the final
        metrics with ``device_hours`` and ``wall_s``, ``config.yaml`` and ``record.json``, and
        the files under ``artifacts``. Doing it again changes nothing. A result that several
        experiments share stays where the first of them put it: later calls add the tags that are
        missing and change none, the parent included.

        Args:
            name: the run's name.
            tags: further tags, such as ``bnnas.cell`` and ``bnnas.input.<kind>``.
            artifacts: a folder with figures and the like.
            parent_run_id: a run of :meth:`start_group`; the parent of a run that has none yet.

        Raises:
            TrackingError: the server is away or refuses. What was logged by then stays, without
                the mark of a complete run; the next call goes on from there.
        """
        tags = _tags(record.kind, record.fingerprint, tags, parent_run_id)
        digest = _digest(record, artifacts)
        start_ms, end_ms = _ms(record.started_at), _ms(record.finished_at)
        with self._session() as client:
            run = self._claim(FINGERPRINT, record.fingerprint, name, tags, start_ms)
            run_id = str(run.info.run_id)
            new_tags = {key: value for key, value in tags.items() if key not in run.data.tags}
            client.log_batch(run_id, tags=_entities(new_tags))
            if run.data.tags.get(PUBLISHED) == digest:
                return run_id
            self._log_params(run, flatten_params(record.config))
            num_epochs = len(record.history)
            rows = [
                (row, start_ms + (end_ms - start_ms) * done // num_epochs)
                for done, row in enumerate(record.history, start=1)
            ]
            self._log_epochs(run_id, rows)
            final = {
                **record.metrics,
                "device_hours": record.device_hours,
                "wall_s": record.wall_s,
            }
            shown = run.data.metrics
            fresh = {key: value for key, value in final.items() if not _same(shown.get(key), value)}
            _log_metrics(client, run_id, _metrics(fresh, end_ms, num_epochs))
            self._log_documents(run_id, record)
            if artifacts is not None:
                client.log_artifacts(run_id, str(artifacts))
            client.set_tag(run_id, ERROR, "")
            client.update_run(run_id, name=name)
            client.set_terminated(run_id, "FINISHED", end_time=end_ms)
            client.set_tag(run_id, PUBLISHED, digest)
        return run_id

    def start(
        self,
        *,
        kind: str,
        fingerprint: str,
        name: str,
        config: Mapping[str, JSON],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
    ) -> LiveRun:
        """Go on with the run of ``fingerprint`` or begin it; a server that is away is no error."""
        spec = LiveTracking(
            uri=self.uri,
            experiment=self.experiment,
            kind=kind,
            fingerprint=fingerprint,
            name=name,
            config=config,
            tags=tags,
            parent_run_id=parent_run_id,
        )
        run = LiveRun(self, spec)
        run.flush()
        return run

    def start_group(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, JSON],
        *,
        group: str | None = None,
        parent_run_id: str | None = None,
    ) -> str:
        """The run that others are nested under, for a cell or a sweep; returns its id.

        Args:
            name: the run's name.
            tags: further tags.
            params: nested; flattened and logged as params, as far as they are new.
            group: what it is found by again, as the tag ``bnnas.group``; ``name`` if not given.
            parent_run_id: the group that this group is part of.

        Raises:
            TrackingError: the server is away or refuses.
        """
        tags = {**tags, GROUP: group or name}
        if parent_run_id is not None:
            tags[_PARENT] = parent_run_id
        with self._session() as client:
            run = self._claim(GROUP, tags[GROUP], name, tags, _ms(time.time()))
            run_id = str(run.info.run_id)
            self._log_params(run, flatten_params(params))
            client.log_batch(run_id, tags=_entities(tags))
            client.update_run(run_id, status="RUNNING", name=name)
        return run_id

    def finish_group(
        self,
        run_id: str,
        status: str = "FINISHED",
        metrics: Mapping[str, float] | None = None,
        artifacts: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End a run of :meth:`start_group`.

        Args:
            run_id: what that returned.
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            metrics: final numbers; those that are shown already are not logged again.
            artifacts: a folder of files.
            tags: further tags, such as MLflow's own for a description.

        Raises:
            TrackingError: the server is away or refuses.
        """
        with self._session() as client:
            client.log_batch(run_id, tags=_entities(tags or {}))
            shown = client.get_run(run_id).data.metrics
            fresh = {
                key: value
                for key, value in (metrics or {}).items()
                if not _same(shown.get(key), value)
            }
            _log_metrics(client, run_id, _metrics(fresh, _ms(time.time()), 0))
            if artifacts is not None:
                client.log_artifacts(run_id, str(artifacts))
            client.set_terminated(run_id, status)

    @contextmanager
    def _session(self, timeout_s: int = 20, num_retries: int = 2) -> Iterator[MlflowClient]:
        """A client that gives up in time and whose errors are one sentence."""
        with (
            mlflow_server.patience(timeout_s, num_retries),
            mlflow_server.explained(self.uri),
        ):
            if self._client is None:
                self._client = mlflow_server.connect(self.uri)
            yield self._client

    def _connected(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id, within :meth:`_session`."""
        assert self._client is not None
        if self._experiment_id is None:
            self._experiment_id = mlflow_server.experiment_id(
                self._client, self.uri, self.experiment
            )
        return self._client, self._experiment_id

    def _claim(
        self, key: str, value: str, name: str, tags: Mapping[str, str], start_ms: int
    ) -> Run:
        """The one run with this tag, created where there is none; others of it are deleted."""
        client, experiment_id = self._connected()
        runs = self._runs(key, value)
        if not runs:
            client.create_run(experiment_id, start_time=start_ms, tags=dict(tags), run_name=name)
            runs = self._runs(key, value)
        for other in runs[1:]:
            client.delete_run(other.info.run_id)
        return runs[0]

    def _runs(self, key: str, value: str) -> list[Run]:
        client, experiment_id = self._connected()
        quote = '"' if "'" in value else "'"  # MLflow's filters know no escape
        if quote in value:
            raise TrackingError(f"{value} holds both kinds of quotes: name it with one at most.")
        condition = f"tags.`{key}` = {quote}{value}{quote}"
        found = client.search_runs([experiment_id], filter_string=condition)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _log_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Params cannot be changed in MLflow: what is there stays."""
        from mlflow.entities import Param

        client, _ = self._connected()
        fresh = [Param(key, text) for key, text in params.items() if key not in run.data.params]
        for start in range(0, len(fresh), _MAX_PARAMS):
            client.log_batch(run.info.run_id, params=fresh[start : start + _MAX_PARAMS])

    def _log_epochs(self, run_id: str, rows: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Log the epochs that are not there yet; ``rows`` holds (metrics, Unix ms)."""
        if not rows:
            return
        client, _ = self._connected()
        history = client.get_metric_history(run_id, _EPOCH)
        logged_ms = {metric.step: metric.timestamp for metric in history}
        batch: list[Metric] = []
        for row, timestamp_ms in rows:
            epoch = int(row[_EPOCH])
            if epoch in logged_ms:
                continue
            # MLflow lists a history by time: a later epoch must never seem the earlier one.
            before_ms = [ms + 1 for step, ms in logged_ms.items() if step < epoch]
            logged_ms[epoch] = max([timestamp_ms, *before_ms])
            metrics = _metrics(row, logged_ms[epoch], epoch)
            if len(batch) + len(metrics) > _MAX_METRICS:  # never part of an epoch
                _log_metrics(client, run_id, batch)
                batch = []
            batch += metrics
        _log_metrics(client, run_id, batch)

    def _log_documents(self, run_id: str, record: StageRecord) -> None:
        import yaml

        client, _ = self._connected()
        text = yaml.safe_dump(json_text.plain(record.config), sort_keys=False)
        client.log_text(run_id, text, "config.yaml")
        client.log_text(run_id, json_text.dumps(dataclasses.asdict(record)), "record.json")


@dataclass(frozen=True)
class LiveTracking:
    """All that is needed to follow a running stage in MLflow, as plain values.

    Attributes are the arguments of :class:`Tracker` and :meth:`Tracker.start`.
    """

    uri: str
    experiment: str
    kind: str
    fingerprint: str
    name: str
    config: Mapping[str, JSON]
    tags: Mapping[str, str] = field(default_factory=dict)
    parent_run_id: str | None = None

    def open(self) -> LiveRun:
        """Start following; a server that is away is no error."""
        return Tracker(self.uri, self.experiment).start(
            kind=self.kind,
            fingerprint=self.fingerprint,
            name=self.name,
            config=self.config,
            tags=self.tags,
            parent_run_id=self.parent_run_id,
        )


class LiveRun:
    """The run of a stage that is being executed. It never raises for a server that is away:
    it warns once, keeps what it could not deliver, and tries again with the epochs that follow.

    What is still undelivered at the end is delivered by :meth:`Tracker.publish`.
    """

    def __init__(self, tracker: Tracker, spec: LiveTracking) -> None:
        self.run_id: str | None = None
        self._tracker = tracker
        self._spec = spec
        self._started_ms = _ms(time.time())
        self._pending: list[tuple[dict[str, float], int]] = []
        self._pause_s = 0.0
        self._not_before_s = 0.0
        self._warned = False

    @property
    def num_pending(self) -> int:
        """How many epochs wait for the server."""
        return len(self._pending)

    def log_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log one epoch's metrics, ``epoch`` among them; an epoch that is there is left alone."""
        self._pending.append((dict(metrics), _ms(time.time())))
        if time.monotonic() >= self._not_before_s:
            self.flush()

    def flush(self) -> bool:
        """Deliver what is pending now; False if the server is away."""
        try:
            with self._tracker._session(_LIVE_TIMEOUT_S, 0) as client:
                if self.run_id is None:
                    self.run_id = self._open(client)
                self._tracker._log_epochs(self.run_id, self._pending)
        except TrackingError as error:
            self._retreat(error)
            return False
        self._pending.clear()
        self._pause_s = 0.0
        if self._warned:
            self._warned = False
            _log.warning("MLflow at %s is back; its metrics are complete.", self._tracker.uri)
        return True

    def fail(self, message: str) -> None:
        """Mark the run as failed, with the reason as the tag ``bnnas.error``."""
        if not self.flush() or self.run_id is None:
            return
        try:
            with self._tracker._session(_LIVE_TIMEOUT_S, 0) as client:
                client.set_tag(self.run_id, ERROR, message[:_MAX_TAG_CHARS])
                client.set_terminated(self.run_id, "FAILED")
        except TrackingError as error:
            self._retreat(error)

    def _open(self, client: MlflowClient) -> str:
        spec = self._spec
        tags = _tags(spec.kind, spec.fingerprint, spec.tags, spec.parent_run_id)
        run = self._tracker._claim(FINGERPRINT, spec.fingerprint, spec.name, tags, self._started_ms)
        run_id = str(run.info.run_id)
        self._tracker._log_params(run, flatten_params(spec.config))
        # A run that was published before and is executed again is complete no longer.
        client.log_batch(run_id, tags=_entities({**tags, PUBLISHED: "", ERROR: ""}))
        client.update_run(run_id, status="RUNNING")
        return run_id

    def _retreat(self, error: TrackingError) -> None:
        self.run_id = None  # found again by its fingerprint, whatever became of it meanwhile
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._not_before_s = time.monotonic() + self._pause_s
        if not self._warned:
            self._warned = True
            _log.warning("%s Training goes on; its metrics are kept and sent later.", error)


def _tags(
    kind: str, fingerprint: str, tags: Mapping[str, str], parent_run_id: str | None
) -> dict[str, str]:
    parent = {} if parent_run_id is None else {_PARENT: parent_run_id}
    return {**tags, **parent, STAGE: kind, FINGERPRINT: fingerprint}


def _metrics(values: Mapping[str, float], timestamp_ms: int, step: int) -> list[Metric]:
    """MLflow's entities. NaN is stored as such; MLflow stores infinity as the largest float."""
    from mlflow.entities import Metric

    return [Metric(key, float(value), timestamp_ms, step) for key, value in values.items()]


def _log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def _entities(tags: Mapping[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(key, text[:_MAX_TAG_CHARS]) for key, text in tags.items()]


def _same(shown: float | None, value: float) -> bool:
    return shown is not None and (shown == value or (shown != shown and value != value))


def _digest(record: StageRecord, artifacts: Path | None) -> str:
    """Changes whenever publishing again would show something new."""
    seal = hashlib.sha256(json_text.dumps(dataclasses.asdict(record)).encode())
    for path in sorted(artifacts.rglob("*")) if artifacts is not None else ():
        if path.is_file():
            seal.update(str(path.relative_to(artifacts or path)).encode())
            seal.update(path.read_bytes())
    return seal.hexdigest()


def _ms(unix_s: float) -> int:
    return round(unix_s * 1000)
