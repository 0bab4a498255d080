"""What tracking costs a run: the share of its time that goes to MLflow and to nothing else.

    python -m experiments.benchmarks.tracking_cost [CONFIG] [--set KEY=VALUE ...] [--json]

CONFIG is one cell, by default the quickstart with one random architecture. The driver is the only
process that talks to MLflow, mostly in a background thread while workers come up or train; what it
says while no job is at work is what a run without tracking would not take. The cell runs on a new
local cluster, an empty storage and SQLite, once; the first use of a new database creates its
tables before the run and is told apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from experiments.benchmarks._options import read_options
from experiments.config.load import load_experiment
from experiments.config.places import open_tracker
from experiments.plan.graph import plan_experiment
from experiments.run.driver import DriverArgument, drive
from experiments.run.provenance import provenance
from orchestration.cluster.connect import cluster
from orchestration.jobs import train_job
from orchestration.jobs.job_result import Observer
from orchestration.store.stage_store import StageStore
from orchestration.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
_SHORT = ("random_baseline.num_architectures=1",)


class Clock:
    """Seconds in which somebody talks to MLflow, and those of them in which no job is at work."""

    def __init__(self) -> None:
        self.talking_s = 0.0
        self.only_talking_s = 0.0
        self._lock = threading.Lock()
        self._num = {"talking": 0, "working": 0}
        self._since_s = time.perf_counter()

    @contextlib.contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Within, somebody does `what`: "talking" or "working"."""
        self._count(what, 1)
        try:
            yield
        finally:
            self._count(what, -1)

    def _count(self, what: str, change: int) -> None:
        with self._lock:
            now_s = time.perf_counter()
            if self._num["talking"]:
                self.talking_s += now_s - self._since_s
                if not self._num["working"]:
                    self.only_talking_s += now_s - self._since_s
            self._since_s = now_s
            self._num[what] += change


def measure(config: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Drive a cell with a clock around every conversation with MLflow."""
    clock = Clock()
    session, attempt = Tracker.session, train_job._Job.attempt

    @contextlib.contextmanager
    def timed(self: Tracker, *arguments: Any, **options: Any) -> Iterator[MlflowClient]:
        with clock.running("talking"), session(self, *arguments, **options) as client:
            yield client

    def at_work(self: train_job._Job, observer: Observer) -> Any:
        with clock.running("working"):
            return attempt(self, observer)

    with tempfile.TemporaryDirectory(prefix="tracking-") as folder:
        places = [f"storage.path={folder}/runs", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        plan = plan_experiment(load_experiment(config, [*overrides, *places]))
        tracker = open_tracker(plan.experiment.shared)
        code = provenance()
        start_s = time.perf_counter()
        tracker.check()
        first_use_s = time.perf_counter() - start_s
        # Stages that run open trackers of their own: it is the class that gets the clock.
        with (
            mock.patch.object(Tracker, "session", timed),
            mock.patch.object(train_job._Job, "attempt", at_work),
            cluster(),
        ):
            start_s = time.perf_counter()
            for chain in plan.chains:  # as their drivers do, one after the other
                alone = replace(chain.resolve_paths(), group=None)
                argument = DriverArgument(alone, tracker.uri, tracker.experiment, code)
                drive(argument, lambda event: None)
            wall_s = time.perf_counter() - start_s
        store = StageStore(plan.experiment.storage.path)
        records = [record for chain in plan.chains for record in chain.records(store) or ()]
    return {
        "config": config.stem,
        "num_stages": len(records),
        "num_epochs": sum(len(record.history) for record in records),
        "first_use_s": first_use_s,
        "run_s": wall_s,
        "talking_s": clock.talking_s,
        "only_talking_s": clock.only_talking_s,
        "share": clock.only_talking_s / wall_s,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, _CONFIG, _SHORT)
    measured = measure(options.config, options.overrides)
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    print("{config}, {num_stages} stages, {num_epochs} epochs, on {machine}".format(**measured))
    print("the run                                      {run_s:8.1f} s".format(**measured))
    print("its driver in conversation with MLflow       {talking_s:8.2f} s".format(**measured))
    print("that while no job is at work                 {only_talking_s:8.2f} s".format(**measured))
    print("share of the run                             {share:8.2%}".format(**measured))
    print("creating the database's tables, once before  {first_use_s:8.2f} s".format(**measured))


if __name__ == "__main__":
    main()
