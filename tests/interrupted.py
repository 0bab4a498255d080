"""A training that is killed and goes on, and what it then has to be equal to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestration.jobs.worker import LocalWorkerContext

History = list[dict[str, float]]


class CrashError(Exception):
    """Stands for a killed process."""


class CrashingContext(LocalWorkerContext):
    """Dies as soon as an epoch's checkpoint is written."""

    def report(self, metrics: Any, save: Any = None) -> None:
        super().report(metrics, save)
        raise CrashError


def in_pieces(train: Callable[[LocalWorkerContext], None], folder: Path) -> LocalWorkerContext:
    """Train one epoch a process, until there is no more to do."""
    while True:
        context = CrashingContext(folder)
        try:
            train(context)
        except CrashError:
            continue
        return context


def without_timings(history: History) -> History:
    return [{key: row[key] for key in row if not key.endswith("epoch_s")} for row in history]


def assert_same_value(ours: Any, theirs: Any) -> None:
    """Equal to the bit, tensors within nested values included."""
    import torch

    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same_value(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same_value(mine, other)
    else:
        assert ours == theirs


def own_processes(name: str, ancestor: int | None = None) -> list[int]:
    """The ids of a process's descendants whose name starts so; of this one's, if none is given."""
    names, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, tail = stat.read_text().rpartition(")")
            pid = int(stat.parent.name)
            names[pid] = head.partition("(")[2]
            parents[pid] = int(tail.split()[1])
    found = []
    for pid in [pid for pid, each in names.items() if each.startswith(name)]:
        at, root = pid, ancestor or os.getpid()
        while at in parents and at != root:
            at = parents[at]
        if at == root:
            found.append(pid)
    return found
