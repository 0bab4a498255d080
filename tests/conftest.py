"""What all tests share: an environment of their own, one Ray cluster, one head that wants a token.

A test that needs Ray takes `ray_cluster`: two CPUs of this process's one cluster, which
`orchestration.cluster.connect.cluster` finds connected and uses, whatever size it is asked for.
A test that kills nodes, ends a cluster or needs another one does so in a subprocess.

`make test` runs two processes of pytest-xdist, since most of these tests wait. The tests of a file
stay together, and so do the files that read the recorded experiment, which takes a minute to make.
Each process has one thread: networks this small lose more to threads that wait for each other than
they gain, and sums have one order.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from orchestration.cluster.connect import cluster
from orchestration.cluster.threads import live_threads
from tests.orchestration.ray_head import RayHead

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, here and in what tests start
# As orchestration.cluster.connect does it, before Ray is imported: loopback only.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

_PREFIXES = ("GIT_", "MLFLOW_", "RAY_")
_RECORDED = {
    "tests/experiments/commands/test_detect.py",
    "tests/experiments/report/test_make.py",
    "tests/experiments/run/test_detector.py",
    "tests/experiments/run/test_study.py",
    "tests/experiments/run/test_sweep.py",
    "tests/experiments/stages/test_logged_model.py",
}
_LONGEST = ("test_train_job.py", "test_interruptions.py", "test_make.py", "test_submit.py")


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "recorded" if file in _RECORDED else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """See pytest-xdist: how tests are shared among its processes."""
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those that wait for clusters: both processes end together.

    Jobs of Ray Train come before all: for some minutes after the death of a controller, Ray keeps
    what an elastic job could take.
    """

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name
        first = _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)
        return first, item.get_closest_marker("ray") is None

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """Forget the user's tracking server, Ray cluster and Git folder; draw without a display.

    Ctrl-C reaches what tests start also where these are started in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(_PREFIXES)]:
            patch.delenv(name)
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """A cluster that starts while a thread uses an earlier one can end the process."""
    yield
    assert not live_threads()


@pytest.fixture(autouse=True)
def _nothing_stays_reserved() -> Iterator[None]:
    """What a killed process had reserved is freed soon: our cluster serves all tests."""
    yield
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    end_s = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < end_s, "cores are still taken"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def ray_cluster(_own_environment: None) -> Iterator[None]:
    """Two CPUs of this machine, for all tests."""
    with cluster(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def ray_head(_own_environment: None) -> Iterator[RayHead]:
    """A Ray head on loopback with two CPUs, a dashboard and a token, for all tests."""
    head = RayHead()
    try:
        yield head.wait()
    finally:
        head.stop()
