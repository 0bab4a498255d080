"""The command line in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from experiments.cli import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """This process's own, with the project importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Begin a command in a process group of its own."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit status, standard output, standard error as one line."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one value that a command that has succeeded has printed."""
        assert self.status == 0, self.err
        value: dict[str, Any] = json.loads(self.out)
        return value


def assert_refused(outcome: Outcome, *words: str) -> None:
    """A wrong request: status 2, no traceback, and a sentence with some words in it."""
    assert outcome.status == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


class Head(Protocol):
    """Of a cluster: where its dashboard is, and what lets one in."""

    address: str
    token: str


class Client:
    """`bnnas` with the address and the token of a head in its environment."""

    def __init__(self, head: Head, folder: Path) -> None:
        self.folder = folder
        self.variables = {
            "RAY_API_SERVER_ADDRESS": head.address,
            "RAY_AUTH_TOKEN": head.token,
            "BNNAS_COMMIT": "0123456789ab",
            "COLUMNS": "200",
        }

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = run(*arguments, cwd=self.folder, **self.variables)
        assert "Traceback" not in done.stderr
        assert self.variables["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
        return done

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return start(*arguments, cwd=self.folder, **self.variables)
