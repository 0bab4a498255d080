"""What all tests share: an environment that the user's own settings cannot reach into."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.orchestration.ray_head import RayHead

_PREFIXES = ("GIT_", "MLFLOW_", "RAY_")


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """Forget the user's tracking server, Ray cluster and Git folder; draw without a display."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(_PREFIXES)]:
            patch.delenv(name)
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="session")
def ray_head(_own_environment: None) -> Iterator[RayHead]:
    """A Ray head on loopback with two CPUs, a dashboard and a token, for all tests."""
    head = RayHead()
    try:
        yield head.wait()
    finally:
        head.stop()
