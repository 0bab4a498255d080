"""Waiting for something to happen, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T], limit_s: float = 100.0, pause_s: float = 0.02) -> _T:
    """What the condition gives as soon as it is true; fail if that does not come to pass."""
    end_s = time.monotonic() + limit_s
    while not (met := condition()):
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(pause_s)
    return met
