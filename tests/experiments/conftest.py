"""What the tests of this package share: the command line in this process, recorded experiments."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.experiments.command import Outcome

if TYPE_CHECKING:
    from tests.experiments.detectors import Detected
    from tests.experiments.recorded import Recorded


@pytest.fixture
def bnnas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command through the script's entry point, in this process."""
    from experiments import cli

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bnnas", *map(str, arguments)])
        capsys.readouterr()
        status: Any = 0
        before = signal.getsignal(signal.SIGTERM)  # a command has its own answer
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, " ".join(captured.err.split()))

    return run


@pytest.fixture(scope="session")
def recorded(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Tracked experiments that the engine makes, for all tests."""
    from tests.experiments.recorded import Recorded

    return Recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def detected(recorded: Recorded) -> Detected:
    """The recorded detector."""
    from tests.experiments.detectors import Detected

    return Detected(recorded.folder, recorded.detector)
