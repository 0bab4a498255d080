"""Who is making what: one maker for each stage, among all processes that share a storage path.

A claim is a small file under ``<path>/claims/<fingerprint>/`` that its holder rewrites every few
seconds. To claim is to write a file of one's own and then to look: whoever is not alone takes the
file back and tries again a little later. Of two that claim at once each has written before it
looks, so that at least one of them sees the other: there is never more than one holder, and nothing
is asked of the file system but that a listing shows what was written before it began.

A holder that died leaves its file behind. On its own machine it is known by its process, and its
claim is void at once; elsewhere a claim is void when it has not changed for :data:`STALE_S`, by the
watch of the one who waits, so that no two clocks need agree. A holder that was only asleep (a
laptop's lid) finds its file gone, and stops (:attr:`Claim.lost`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from orchestration.store import json_text
from orchestration.store.storage import Storage

if TYPE_CHECKING:
    from pyarrow import fs as pafs

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

BEAT_S = 5.0
STALE_S = 30.0
# How often one looks again who waits for somebody else's result. Remote storage is asked ever less
# often, for every look is a few requests, and hundreds may wait.
_POLL_S, _MOST_POLL_S = 0.4, 10.0


@dataclass(frozen=True)
class Holder:
    """Who holds a claim.

    Attributes:
        owner: unique for every claim that is ever made.
        machine: where the process runs; process ids mean something on one machine only.
        pid: the process.
        started: when that process began, in the kernel's ticks; process ids are used again.
        beat: counts up while the holder lives.
        note: what the holder says of its progress, for people.
    """

    owner: str
    machine: str
    pid: int
    started: int
    beat: int = 0
    note: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def this_process(cls) -> Holder:
        """A new claim's holder."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, _machine(), pid, _process_start(pid) or 0)

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to be gone; False where it cannot be known."""
        return self.machine == _machine() and _process_start(self.pid) != self.started


class Claims:
    """The claims under one storage path.

    Args:
        path: as for :class:`~orchestration.store.stage_store.StageStore`.
        filesystem: given, ``path`` is a path within it.
        beat_s: seconds between two signs of life.
        stale_s: seconds without one after which a claim is void.

    Raises:
        StorageError: no file system answers to ``path``.
    """

    def __init__(
        self,
        path: str | Path,
        filesystem: pafs.FileSystem | None = None,
        *,
        beat_s: float = BEAT_S,
        stale_s: float = STALE_S,
    ) -> None:
        self._storage = Storage(path, filesystem)
        self._beat_s = beat_s
        self._stale_s = stale_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def attempt(self, fingerprint: str) -> Claim | None:
        """Claim a stage; None where somebody else holds it, or tries to at this very moment.

        Raises:
            StorageError: the storage cannot be used.
        """
        if self._others(fingerprint):
            return None
        claim = Claim(self, fingerprint, Holder.this_process(), self._beat_s)
        self.write(fingerprint, claim.holder)
        if self._others(fingerprint, but=claim.holder.owner):
            self.remove(fingerprint, claim.holder.owner)
            return None
        claim.start()
        return claim

    def was_void(self, fingerprint: str, owner: str, since: float) -> bool:
        """Whether a sign of life came so late that another has claimed; it is taken back then.

        Args:
            fingerprint: of the stage.
            owner: of the claim.
            since: when the sign was begun, on the monotonic clock.
        """
        if time.monotonic() - since < self._stale_s or not self._others(fingerprint, but=owner):
            return False
        self.remove(fingerprint, owner)
        return True

    def wait(self, fingerprint: str, look: Callable[[], _T | None]) -> _T | Claim:
        """Wait until ``look`` finds a stage's result or the stage can be claimed.

        Returns:
            What ``look`` has found, or the claim, under which it has to be asked once more.
        """
        waited_for, poll_s = None, _POLL_S
        while (result := look()) is None:
            claim = self.attempt(fingerprint)
            if claim is not None:
                claim.waited_for = waited_for
                return claim
            holder = self.holder(fingerprint)
            waited_for = waited_for if holder is None else holder.owner
            time.sleep(random.uniform(0.5, 1.5) * poll_s)
            if self._storage.is_remote:
                poll_s = min(1.5 * poll_s, _MOST_POLL_S)
        return result

    def holder(self, fingerprint: str) -> Holder | None:
        """Who holds a stage's claim now, as far as it can be told at first sight."""
        return next(iter(self._others(fingerprint)), None)

    def write(self, fingerprint: str, holder: Holder) -> None:
        """Put a claim's file in its place, or put its newest state there."""
        content = json_text.dumps(dataclasses.asdict(holder)).encode()
        self._storage.write(f"claims/{fingerprint}/{holder.owner}", content)

    def is_there(self, fingerprint: str, owner: str) -> bool:
        """Whether a claim's file is still in its place."""
        return self._read(fingerprint, owner) is not None

    def remove(self, fingerprint: str, owner: str) -> None:
        """Take a claim's file away; one that is gone needs no removing."""
        self._storage.delete(f"claims/{fingerprint}/{owner}")

    def _others(self, fingerprint: str, but: str | None = None) -> list[Holder]:
        """The claims on a stage that are not void; void ones are removed on the way."""
        held = []
        for name in [info.base_name for info in self._storage.list(f"claims/{fingerprint}")]:
            if name == but or name.startswith("."):
                continue
            holder = self._read(fingerprint, name)
            if holder is None:
                continue
            if self._is_void(holder):
                self.remove(fingerprint, holder.owner)
            else:
                held.append(holder)
        return held

    def _is_void(self, holder: Holder) -> bool:
        now_s = time.monotonic()
        with self._lock:
            beat, since_s = self._seen.get(holder.owner, (holder.beat, now_s))
            if beat != holder.beat:
                since_s = now_s
            self._seen[holder.owner] = (holder.beat, since_s)
        return holder.is_dead or now_s - since_s > self._stale_s

    def _read(self, fingerprint: str, owner: str) -> Holder | None:
        content = self._storage.read(f"claims/{fingerprint}/{owner}")
        if content is None:
            return None
        try:
            return Holder(**json_text.loads(content))
        except (ValueError, TypeError):
            # Being written at this moment, where moving a file takes more than one step.
            return Holder(owner, machine="", pid=0, started=0, beat=-1)


class Claim:
    """A stage that this process alone may make; leaving the ``with`` block gives it up.

    Attributes:
        holder: this process, with its latest note.
        lost: set when somebody else has taken the claim for void; what is made under it must stop.
        waited_for: the owner of the claim before, where this one was waited for.
    """

    def __init__(self, claims: Claims, fingerprint: str, holder: Holder, beat_s: float) -> None:
        self.holder = holder
        self.lost = threading.Event()
        self.waited_for: str | None = None
        self._claims = claims
        self._fingerprint = fingerprint
        self._beat_s = beat_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="claim", daemon=True)

    def start(self) -> None:
        """Begin to give signs of life."""
        self._thread.start()

    def set_note(self, note: Mapping[str, Any]) -> None:
        """Note how far it is; others see it with the next sign of life."""
        self.holder = dataclasses.replace(self.holder, note=dict(note))

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._claims.remove(self._fingerprint, self.holder.owner)

    def _live(self) -> None:
        while not self._over.wait(self._beat_s):
            self.holder = dataclasses.replace(self.holder, beat=self.holder.beat + 1)
            try:
                if not self._claims.is_there(self._fingerprint, self.holder.owner):
                    self.lost.set()
                    return
                start_s = time.monotonic()
                self._claims.write(self._fingerprint, self.holder)
                if self._claims.was_void(self._fingerprint, self.holder.owner, start_s):
                    self.lost.set()
                    return
            except ValueError as error:  # storage that is away for a moment; others wait longer
                _log.warning("The claim on a stage could not be renewed: %s", error)


def _machine() -> str:
    """This machine, or this container: the same only where process ids mean the same."""
    try:
        names = Path("/proc/self/ns/pid").readlink()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot}/{names}"


def _process_start(pid: int) -> int | None:
    """When a process of this machine began; None where there is none, or only its remains."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
