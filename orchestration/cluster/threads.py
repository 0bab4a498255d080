"""Threads that use the connected cluster, and have to end before it is let go.

A thread that asks Ray for something after its cluster was shut down, or while the process connects
to another one, can take the whole process down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_threads: list[threading.Thread] = []


def start_thread(name: str, function: Callable[[], _T]) -> Future[_T]:
    """Call a function that uses the connected cluster in a thread of its own.

    Whoever leaves before the future is done has to see to it that the function ends soon.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  # raised again by whoever asks the future
            future.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    with _lock:
        _threads[:] = [*live_threads(), thread]
        thread.start()
    return future


def live_threads() -> list[threading.Thread]:
    """Those that use the cluster now."""
    return [thread for thread in _threads if thread.is_alive()]


def join_threads(timeout_s: float) -> None:
    """Wait until all have ended, but not for ever: those that go on are named in a warning."""
    end_s = time.monotonic() + timeout_s
    for thread in live_threads():
        thread.join(max(0.0, end_s - time.monotonic()))
    if names := [thread.name for thread in live_threads()]:
        _log.warning(
            "The Ray cluster is let go although the threads %s have not ended in %.0f s.",
            ", ".join(names),
            timeout_s,
        )
