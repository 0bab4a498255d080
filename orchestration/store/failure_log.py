"""Why a stage has failed, kept beside the results for `status` and for whoever waits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.store import json_text
from orchestration.store.storage import Storage

if TYPE_CHECKING:
    from pyarrow import fs as pafs


@dataclass(frozen=True)
class FailureNote:
    """The last failure of a stage.

    Attributes:
        kind: the stage's kind.
        name: what people call it.
        message: why it failed.
        failed_at: Unix time, seconds.
        owner: the claim under which it failed.
        traceback: where in the program.
    """

    kind: str
    name: str
    message: str
    failed_at: float
    owner: str
    traceback: str = ""


class FailureLog:
    """The last failure of every stage under one storage path.

    Args:
        path: as for :class:`~orchestration.store.stage_store.StageStore`.
        filesystem: given, ``path`` is a path within it.

    Raises:
        StorageError: no file system answers to ``path``.
    """

    def __init__(self, path: str | Path, filesystem: pafs.FileSystem | None = None) -> None:
        self._storage = Storage(path, filesystem)

    def get(self, fingerprint: str) -> FailureNote | None:
        """The last failure of a stage that has not succeeded since."""
        content = self._storage.read(f"failures/{fingerprint}.json")
        return None if content is None else FailureNote(**json_text.loads(content))

    def put(self, fingerprint: str, note: FailureNote) -> None:
        """Remember a failure; it replaces the one before."""
        content = json_text.dumps(dataclasses.asdict(note)).encode()
        self._storage.write(f"failures/{fingerprint}.json", content)

    def forget(self, fingerprint: str) -> None:
        """The stage has succeeded; one that never failed needs no forgetting."""
        self._storage.delete(f"failures/{fingerprint}.json")
