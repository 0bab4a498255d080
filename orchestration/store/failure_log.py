"""Why a stage has failed, kept beside the results for `status` and for whoever waits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.store import json_text
from orchestration.store.storage import open_storage, unusable, write_whole

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
    """

    kind: str
    name: str
    message: str
    failed_at: float
    owner: str


class FailureLog:
    """The last failure of every stage under one storage path.

    Args:
        path: as for :class:`~orchestration.store.stage_store.StageStore`.
        filesystem: given, ``path`` is a path within it.

    Raises:
        StorageError: no file system answers to ``path``.
    """

    def __init__(self, path: str | Path, filesystem: pafs.FileSystem | None = None) -> None:
        self.path = str(path)
        self._fs, root = open_storage(path, filesystem)
        self._root = f"{root}/failures"

    def get(self, fingerprint: str) -> FailureNote | None:
        """The last failure of a stage that has not succeeded since."""
        try:
            with self._fs.open_input_stream(f"{self._root}/{fingerprint}.json") as stream:
                return FailureNote(**json_text.loads(stream.read()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self.path, "read", error) from error

    def put(self, fingerprint: str, note: FailureNote) -> None:
        """Remember a failure; it replaces the one before."""
        content = json_text.dumps(dataclasses.asdict(note)).encode()
        try:
            write_whole(self._fs, f"{self._root}/{fingerprint}.json", content)
        except OSError as error:
            raise unusable(self.path, "written", error) from error

    def forget(self, fingerprint: str) -> None:
        """The stage has succeeded; one that never failed needs no forgetting."""
        try:
            self._fs.delete_file(f"{self._root}/{fingerprint}.json")
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(self.path, "written", error) from error
