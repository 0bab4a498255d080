"""The command that would fill what is missing."""

from __future__ import annotations

import contextlib
import re
import shlex

from orchestration.tracking.reader import PROGRAM, TrackedRun

# Small, and with all that sections compare in its grid.
SWEEP = f"{PROGRAM} sweep experiments/configs/ablation_quickstart.yaml"
MOST_PICTURES = 20  # that a section draws, of the newest runs; what it leaves out it says
_PRINTING = ("--quiet", "-q", "--json")
# The commands that train supernets.
_COMMAND = re.compile(rf"{PROGRAM} (run|sweep|correlate) (.+)", re.DOTALL)


def again(run: TrackedRun, *settings: str) -> str:
    """The command that made a run, with other settings."""
    subcommand, rest = _told(run)
    return with_settings(f"{PROGRAM} {subcommand} {rest}", *settings)


def as_sweep(run: TrackedRun, *settings: str) -> str:
    """The same as a sweep; `settings` have an axis of its grid, because the file may have none."""
    _, rest = _told(run)
    return with_settings(f"{PROGRAM} sweep {rest}", *settings)


def _told(run: TrackedRun) -> tuple[str, str]:
    """Subcommand and arguments of the command that made a run, if they can be given again."""
    if found := _COMMAND.fullmatch(run.command or ""):
        with contextlib.suppress(ValueError):  # cut off within quotes
            shlex.split(found[2])
            return found[1], found[2]
    return "correlate" if run.kind == "correlate" else "sweep", "CONFIG"


def undrawn(what: str, num: int) -> list[str]:
    """A sentence if some pictures are left out, none otherwise."""
    if num <= MOST_PICTURES:
        return []
    return [
        f"{num - MOST_PICTURES} {what} are not drawn, because the section draws {MOST_PICTURES}: "
        f"`{PROGRAM} report --run ID` draws what belongs to one run."
    ]


def with_settings(command: str, *settings: str) -> str:
    """A command as sentences quote it: a field is set once, and how to print is left open."""
    words = iter(shlex.split(command))
    kept: list[str] = []
    given: list[str] = []
    for word in words:
        if word == "--set":
            given.append(next(words, ""))
        elif word.startswith("--set="):
            given.append(word.removeprefix("--set="))
        elif word not in _PRINTING:
            kept.append(word)
    by_field: dict[str, str] = {}
    for setting in (*given, *settings):
        field = setting.partition("=")[0]
        by_field.pop(field, None)  # the last one counts, and where it stands
        by_field[field] = setting
    kept += [word for setting in by_field.values() for word in ("--set", setting)]
    return f"`{shlex.join(kept)}`"
