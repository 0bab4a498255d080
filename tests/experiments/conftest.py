"""What the tests of this package share: one thread, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from experiments import cli
from tests.experiments.command import Outcome
from tests.experiments.detectors import Detected, detect_in
from tests.experiments.recorded import Recorded, record_in


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small lose more to threads that wait for each other than they gain."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def bnnas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command through the script's entry point, in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bnnas", *map(str, arguments)])
        capsys.readouterr()
        status: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return Outcome(status, captured.out, " ".join(captured.err.split()))

    return run


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A tracked experiment that the commands have made, for all tests."""
    return record_in(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def detected(tmp_path_factory: pytest.TempPathFactory) -> Detected:
    """A small detector that `bnnas detect` has made, for all tests."""
    return detect_in(tmp_path_factory.mktemp("detected"))
