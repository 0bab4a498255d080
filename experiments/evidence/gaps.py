"""The command that would fill what is missing."""

from __future__ import annotations

import re

from orchestration.run_reader import PROGRAM, TrackedRun

# Small, and with all that sections compare in its grid.
SWEEP = f"{PROGRAM} sweep experiments/configs/ablation_quickstart.yaml"
# The commands that train supernets.
_COMMAND = re.compile(rf"{PROGRAM} (run|sweep|correlate) ")


def again(run: TrackedRun, *settings: str) -> str:
    """The command that made a run, with other settings; of two for one field the later counts."""
    command = run.command or ""
    if not _COMMAND.match(command):
        command = f"{PROGRAM} {'correlate' if run.kind == 'correlate' else 'sweep'} CONFIG"
    return with_settings(command, *settings)


def as_sweep(run: TrackedRun, *settings: str) -> str:
    """The same as a sweep; `settings` have an axis of its grid, because the file may have none."""
    command = run.command or ""
    found = _COMMAND.match(command)
    rest = "CONFIG" if found is None else command[found.end() :]
    return with_settings(f"{PROGRAM} sweep {rest}", *settings)


def with_settings(command: str, *settings: str) -> str:
    """A command as sentences quote it."""
    return f"`{' '.join([command, *(f'--set {setting}' for setting in settings)])}`"
