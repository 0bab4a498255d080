"""MLflow as a projection of the stage store: one run per result, whatever happened on the way.

A stage's run is found by its tag ``bnnas.fingerprint``. :meth:`Tracker.publish` makes it show
exactly one :class:`~orchestration.store.stage_store.StageRecord`, and may be called any number of
times; :mod:`orchestration.tracking.live_run` does the same for a history that is still growing.
What a server that was away has missed is therefore filled in by whoever comes next. An epoch's
metrics, its number among them as the metric ``epoch``, go in one batch that is stored whole or not
at all: the steps of ``epoch`` say which epochs are there, and none is logged twice.

Two processes may create the run of one fingerprint at once. The run that started first (of equal
ones, the one with the smaller id) is the run; :meth:`Tracker.publish` deletes the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.store import json_text
from orchestration.store.json_text import JSON
from orchestration.store.stage_store import StageRecord
from orchestration.tracking import server as mlflow_server
from orchestration.tracking.params import charted, flatten_params
from orchestration.tracking.server import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunTag

__all__ = ["Tracker", "TrackingError"]

STAGE = "bnnas.stage"
FINGERPRINT = "bnnas.fingerprint"
GROUP = "bnnas.group"
PUBLISHED = "bnnas.published"
ERROR = "bnnas.error"
CELL = "bnnas.cell"
CODE = "bnnas.code"  # where a result comes from, as JSON
DEVICE = "bnnas.device"  # what its device-hours are hours of
SYSTEM_METRICS = "system/"  # MLflow's own: the metrics below it are no result's
INPUT = "bnnas.input."  # and the kind of the stage whose run id it holds
PART = "bnnas.part."  # and a number: fingerprints of stages that a group's numbers come from
PART_DIGITS = 12  # of a fingerprint, there
RUN_IDS = "bnnas.runs."  # and a number: keys and ids of the runs below a group's
PARENT = "mlflow.parentRunId"
RECORD = "record.json"  # the artifact that holds a stage's whole record
_EPOCH = "epoch"
_MAX_METRICS = 1000
_MAX_PARAMS = 100
MAX_TAG_CHARS = 5000


@dataclass(frozen=True)
class DatasetUse:
    """A data set that a stage reads, as MLflow lists it.

    Attributes:
        name: with the split, since MLflow lists a data set once a run.
        digest: of what decides which images they are; at most 36 characters.
        split: what they are read for: ``train``, ``search_val``, ``test``.
        source: JSON, where they come from.
    """

    name: str
    digest: str
    split: str
    source: str


@dataclass(frozen=True)
class About:
    """What MLflow shows of a stage beyond its record.

    Attributes:
        params: beside its config, such as those by which runs of cells are found.
        datasets: what it reads.
    """

    params: Mapping[str, JSON] = field(default_factory=dict)
    datasets: Sequence[DatasetUse] = ()


NOTHING = About()


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
        about: About = NOTHING,
        figures: Path | None = None,
        parent_run_id: str | None = None,
    ) -> str:
        """Make the run of ``record.fingerprint`` show ``record``, and return its id.

        Logged are the flattened config as params, the history (each epoch once), the series (each
        at its own steps), the final metrics with ``device_hours`` and ``wall_s``, ``config.yaml``
        and ``record.json``, and ``figures``. Doing it again changes nothing. A result that several
        experiments share stays where the first of them put it: later calls add the tags that are
        missing and change none, the parent included.

        Args:
            name: the run's name.
            tags: further tags, such as ``bnnas.cell`` and ``bnnas.input.<kind>``; where the record
                says what code it was made with, the tag ``bnnas.code`` repeats it.
            about: further params, and the data sets that the stage reads.
            figures: a folder of files.
            parent_run_id: a run of :meth:`start_group`; the parent of a run that has none yet.

        Raises:
            TrackingError: the server is away or refuses. What was logged by then stays, without
                the mark of a complete run; the next call goes on from there.
        """
        tags = record_tags(record, tags, parent_run_id)
        digest = record_digest(record)
        start_ms, end_ms = to_ms(record.started_at), to_ms(record.finished_at)
        with self.session() as client:
            run = self.claim(FINGERPRINT, record.fingerprint, name, tags, start_ms)
            run_id = str(run.info.run_id)
            new_tags = {key: value for key, value in tags.items() if key not in run.data.tags}
            client.log_batch(run_id, tags=tag_entities(new_tags))
            if run.data.tags.get(PUBLISHED) == digest:
                return run_id
            self.describe(run, record.config, about)
            num_epochs = len(record.history)
            rows = [
                (row, start_ms + (end_ms - start_ms) * done // num_epochs)
                for done, row in enumerate(record.history, start=1)
            ]
            logged_ms = self.logged_ms(run_id) if rows else {}
            self.log_epochs(run_id, rows, logged_ms)
            _log_series(client, run_id, record, start_ms, end_ms)
            # Of two values at one step, MLflow shows the later one: the final ones are the last.
            final_ms = max([end_ms, *(ms + 1 for ms in logged_ms.values())])
            fresh = _fresh(final_metrics(record), run.data.metrics)
            _log_metrics(client, run_id, _metrics(fresh, final_ms, num_epochs))
            self._log_documents(run_id, record)
            if figures is not None:
                client.log_artifacts(run_id, str(figures), "figures")
            client.set_tag(run_id, ERROR, "")
            client.update_run(run_id, name=name)
            client.set_terminated(run_id, "FINISHED", end_time=end_ms)
            client.set_tag(run_id, PUBLISHED, digest)
        return run_id

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
            tags[PARENT] = parent_run_id
        with self.session() as client:
            run = self.claim(GROUP, tags[GROUP], name, tags, to_ms(time.time()))
            run_id = str(run.info.run_id)
            self.log_params(run, flatten_params(params))
            client.log_batch(run_id, tags=tag_entities(tags))
            client.update_run(run_id, status="RUNNING", name=name)
        return run_id

    def find_group(self, group: str) -> Run | None:
        """The run of :meth:`start_group`; None where there is none.

        Raises:
            TrackingError: the server is away or refuses.
        """
        with self.session():
            self._connected()
            return next(iter(self._runs(GROUP, group)), None)

    def shown(self, record: StageRecord) -> str | None:
        """The run that shows exactly this record; None where :meth:`publish` has work to do.

        Raises:
            TrackingError: the server is away or refuses.
        """
        with self.session():
            self._connected()
            run = next(iter(self._runs(FINGERPRINT, record.fingerprint)), None)
        is_shown = run is not None and run.data.tags.get(PUBLISHED) == record_digest(record)
        return str(run.info.run_id) if run is not None and is_shown else None

    def finish_group(
        self,
        run_id: str,
        status: str = "FINISHED",
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, JSON] | None = None,
        artifacts: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End a run of :meth:`start_group`.

        Args:
            run_id: what that returned.
            status: ``FINISHED`` or ``FAILED``.
            metrics: final numbers; those that are shown already are not logged again.
            params: what is known only now, as in :meth:`start_group`.
            artifacts: a folder of files.
            tags: further tags, such as MLflow's own for a description.

        Raises:
            TrackingError: the server is away or refuses.
        """
        with self.session() as client:
            client.log_batch(run_id, tags=tag_entities(tags or {}))
            run = client.get_run(run_id)
            self._connected()
            self.log_params(run, flatten_params(params or {}))
            fresh = _fresh(metrics or {}, run.data.metrics)
            _log_metrics(client, run_id, _metrics(fresh, to_ms(time.time()), 0))
            if artifacts is not None:
                client.log_artifacts(run_id, str(artifacts))
            client.set_terminated(run_id, status)

    def kill(self, run_id: str) -> None:
        """Show a run as killed, and with it all below it that are shown as running.

        Raises:
            TrackingError: the server is away or refuses.
        """
        below = f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"
        with self.session() as client:
            client.set_terminated(run_id, "KILLED")
            running = client.search_runs([self.experiment_id()], filter_string=below)
        for run in running:
            self.kill(run.info.run_id)

    @contextmanager
    def session(self, timeout_s: int = 20, num_retries: int = 2) -> Iterator[MlflowClient]:
        """A client that gives up in time and whose errors are one sentence."""
        with (
            mlflow_server.patience(timeout_s, num_retries),
            mlflow_server.explained(self.uri),
        ):
            if self._client is None:
                self._client = mlflow_server.connect(self.uri)
            yield self._client

    def experiment_id(self) -> str:
        """The experiment's id, within :meth:`session`; asked for once."""
        return self._connected()[1]

    def _connected(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id, within :meth:`session`."""
        assert self._client is not None
        if self._experiment_id is None:
            self._experiment_id = mlflow_server.experiment_id(
                self._client, self.uri, self.experiment
            )
        return self._client, self._experiment_id

    def claim(self, key: str, value: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """The one run with this tag, created where there is none; others of it are deleted."""
        client, experiment_id = self._connected()
        runs = self._runs(key, value)
        if not runs:
            client.create_run(
                experiment_id, start_time=start_ms, tags=cut_tags(tags), run_name=name
            )
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
        runs = client.search_runs([experiment_id], filter_string=condition)
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def find_run(self, fingerprint: str) -> str | None:
        """The id of a stage's run in any experiment of the server; None where there is none.

        Raises:
            TrackingError: the server is away or refuses.
        """
        with self.session() as client:
            experiments = [each.experiment_id for each in client.search_experiments()]
            condition = f"tags.`{FINGERPRINT}` = '{fingerprint}'"
            runs = client.search_runs(
                experiments, condition, max_results=1, order_by=["attributes.start_time ASC"]
            )
        return str(runs[0].info.run_id) if runs else None

    def describe(self, run: Run, config: Mapping[str, JSON], about: About) -> None:
        """Log a stage's config as params, and what there is about it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self.log_params(run, flatten_params({**config, **about.params}))
        client, _ = self._connected()
        if about.datasets:
            datasets = [
                DatasetInput(
                    Dataset(each.name, each.digest, source_type="local", source=each.source),
                    [InputTag("mlflow.data.context", each.split)],
                )
                for each in about.datasets
            ]
            client.log_inputs(run.info.run_id, datasets)

    def log_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Params cannot be changed in MLflow: what is there stays."""
        from mlflow.entities import Param

        client, _ = self._connected()
        fresh = [Param(key, text) for key, text in params.items() if key not in run.data.params]
        for start in range(0, len(fresh), _MAX_PARAMS):
            client.log_batch(run.info.run_id, params=fresh[start : start + _MAX_PARAMS])

    def logged_ms(self, run_id: str) -> dict[int, int]:
        """The epochs that are there, and when each was logged, in Unix ms."""
        client, _ = self._connected()
        history = client.get_metric_history(run_id, _EPOCH)
        return {metric.step: metric.timestamp for metric in history}

    def log_epochs(
        self,
        run_id: str,
        rows: Sequence[tuple[Mapping[str, float], int]],
        logged_ms: dict[int, int],
    ) -> None:
        """Log the epochs that are not there yet.

        Args:
            run_id: the run.
            rows: (metrics, Unix ms) of each.
            logged_ms: those that are there; the new ones are added.
        """
        client, _ = self._connected()
        batch: list[Metric] = []
        for row, timestamp_ms in rows:
            epoch = int(row[_EPOCH])
            if epoch in logged_ms:
                continue
            # MLflow lists a history by time: a later epoch must never seem the earlier one.
            before_ms = [ms + 1 for step, ms in logged_ms.items() if step < epoch]
            logged_ms[epoch] = max([timestamp_ms, *before_ms])
            metrics = _metrics(charted(row), logged_ms[epoch], epoch)
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
        client.log_text(run_id, json_text.dumps(dataclasses.asdict(record)), RECORD)


def stage_tags(
    kind: str, fingerprint: str, tags: Mapping[str, str], parent_run_id: str | None
) -> dict[str, str]:
    """The tags of a stage's run: what it is found by, its parent, and the caller's own."""
    parent = {} if parent_run_id is None else {PARENT: parent_run_id}
    return {**tags, **parent, STAGE: kind, FINGERPRINT: fingerprint}


def _metrics(values: Mapping[str, float], timestamp_ms: int, step: int) -> list[Metric]:
    """MLflow's entities. NaN is stored as such; MLflow stores infinity as the largest float."""
    from mlflow.entities import Metric

    return [Metric(key, float(value), timestamp_ms, step) for key, value in values.items()]


def _log_series(
    client: MlflowClient, run_id: str, record: StageRecord, start_ms: int, end_ms: int
) -> None:
    """Log every point under its step; what is there already, at the same time, MLflow ignores."""
    metrics = []
    for key, points in record.series.items():
        for done, (step, value) in enumerate(points, start=1):
            timestamp_ms = start_ms + (end_ms - start_ms) * done // len(points)
            metrics += _metrics({key: value}, timestamp_ms, int(step))
    _log_metrics(client, run_id, metrics)


def _log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def part_tags(fingerprints: Iterable[str]) -> dict[str, str]:
    """The tags by which a group names its stages; many of them are in another group's care."""
    digits = list(dict.fromkeys(each[:PART_DIGITS] for each in fingerprints))
    per_tag = MAX_TAG_CHARS // (PART_DIGITS + 1)
    return {
        f"{PART}{start // per_tag}": " ".join(digits[start : start + per_tag])
        for start in range(0, len(digits), per_tag)
    }


def run_id_tags(run_ids: Mapping[str, str]) -> dict[str, str]:
    """The tags by which a group finds the runs below it at once; see :func:`run_ids_of`."""
    pairs = [f"{key}={run_id}" for key, run_id in run_ids.items()]
    per_tag = MAX_TAG_CHARS // (max(map(len, pairs), default=0) + 1)
    return {
        f"{RUN_IDS}{start // per_tag}": " ".join(pairs[start : start + per_tag])
        for start in range(0, len(pairs), per_tag)
    }


def run_ids_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Key → run id, of the tags of a group."""
    texts = [text for name, text in tags.items() if name.startswith(RUN_IDS)]
    return dict(pair.split("=", 1) for text in texts for pair in text.split())


def tag_entities(tags: Mapping[str, str]) -> list[RunTag]:
    """MLflow's entities."""
    from mlflow.entities import RunTag

    return [RunTag(key, text) for key, text in cut_tags(tags).items()]


def cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of the length that every MLflow server takes."""
    return {key: text[:MAX_TAG_CHARS] for key, text in tags.items()}


def record_tags(
    record: StageRecord, tags: Mapping[str, str], parent_run_id: str | None
) -> dict[str, str]:
    """The tags that :meth:`Tracker.publish` gives the run of a record."""
    code = {CODE: json_text.dumps(record.code)} if record.code else {}
    if device := record.code.get("device"):
        code[DEVICE] = f"{device.get('num_workers', 1)} × {device['model']}"
    return {**stage_tags(record.kind, record.fingerprint, tags, parent_run_id), **code}


def final_metrics(record: StageRecord) -> dict[str, float]:
    """The numbers of a finished stage, its cost among them."""
    return {**record.metrics, "device_hours": record.device_hours, "wall_s": record.wall_s}


def _fresh(metrics: Mapping[str, float], shown: Mapping[str, float]) -> dict[str, float]:
    """The metrics whose last value is another one, or that are not shown yet."""

    def is_shown(key: str, value: float) -> bool:
        return key in shown and (
            shown[key] == value or (shown[key] != shown[key] and value != value)
        )

    return {key: value for key, value in metrics.items() if not is_shown(key, value)}


def record_digest(record: StageRecord) -> str:
    """Changes whenever publishing again would show something new."""
    return hashlib.sha256(json_text.dumps(dataclasses.asdict(record)).encode()).hexdigest()


def to_ms(unix_s: float) -> int:
    """Unix seconds as MLflow's milliseconds."""
    return round(unix_s * 1000)
