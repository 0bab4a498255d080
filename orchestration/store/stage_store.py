"""Results of finished stages under their fingerprints: complete or absent, never half.

The store is the source of truth; the tracking server only shows what is in it. It needs nothing
from its file system but reading, writing and listing, so a laptop's folder, NFS and every object
store that pyarrow knows will do::

    <path>/stages/<fingerprint>/record.json          written last, in one step
    <path>/stages/<fingerprint>/<attempt>/...        the files of the attempt that record names

The first record of a fingerprint stays: a second writer uploads into an attempt of its own, finds
the place taken and returns the record that is there. (An object store without exclusive creation
lets the later of two *simultaneous* writers win; both attempts stay whole, and a reader that
holds a record goes on reading that record's own files.)
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestration.store import json_text
from orchestration.store.storage import Storage, StorageError, reason_of

if TYPE_CHECKING:
    from pyarrow import fs as pafs

__all__ = ["StageRecord", "StageStore", "StorageError"]

_FORMAT = 1
_RECORD = "record.json"
# Object stores make a finished upload visible in one step, and copying there to rename costs.
_ATOMIC_UPLOAD = frozenset({"s3", "gcs", "abfs"})
# What file systems without hard links (FAT, some FUSE mounts) answer to a request for one.
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True)
class StageRecord:
    """What one finished stage leaves behind.

    Attributes:
        kind: ``supernet``, ``search``, ``retrain``, ...
        fingerprint: see :func:`orchestration.store.fingerprint.fingerprint`.
        config: nested JSON, what decided the result.
        inputs: the stages it read, kind → fingerprint.
        result: JSON, what the stages after it read (architecture, FLOPs, scores, ...).
        history: one row per epoch; ``epoch`` counts from 1.
        series: what was recorded more often than that: name → (optimiser step, value).
        metrics: the final numbers.
        device_hours: hours of all its devices together, restarts included.
        wall_s: seconds it took, restarts included.
        started_at: Unix time, seconds.
        finished_at: Unix time, seconds.
        made_from: the very records that were read, kind → ``attempt``.
        code: where the result came from: commit, versions.
        files: names of its files, relative, with forward slashes.
        attempt: the folder of its files; the store fills it in.
    """

    kind: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    result: Mapping[str, Any]
    history: list[dict[str, float]]
    metrics: Mapping[str, float]
    device_hours: float
    wall_s: float
    started_at: float
    finished_at: float
    made_from: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    code: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    attempt: str = ""


class StageStore:
    """The stages under one storage path.

    Args:
        path: a local folder, or a URI for ``pyarrow.fs.FileSystem.from_uri``.
        filesystem: given, ``path`` is a path within it.

    Raises:
        StorageError: no file system answers to ``path``.
    """

    def __init__(self, path: str | Path, filesystem: pafs.FileSystem | None = None) -> None:
        from pyarrow import fs as pafs

        self._storage = Storage(path, filesystem)
        self.path = self._storage.path
        self._fs = self._storage.filesystem
        self._is_local = isinstance(self._fs, pafs.LocalFileSystem)

    def check(self) -> None:
        """Write and remove a probe file.

        Raises:
            StorageError: the path cannot be written.
        """
        self._storage.check("stages")

    def get(self, fingerprint: str) -> StageRecord | None:
        """The record under ``fingerprint``, or None where there is no complete one.

        Raises:
            StorageError: the storage cannot be reached, or the record is damaged.
        """
        place = f"{_folder(fingerprint)}/{_RECORD}"
        text = self._storage.read(place)
        if text is None:
            return None
        try:
            document = json_text.loads(text)
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']} is not {_FORMAT}")
            values = document["record"]
            return StageRecord(**{**values, "files": tuple(values["files"])})
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"The stage record {self._storage.place(place)} cannot be understood "
                f"({reason_of(error)}): delete its folder to have the stage run again."
            ) from error

    def current(
        self, fingerprint: str, inputs: Mapping[str, StageRecord] | None = None
    ) -> StageRecord | None:
        """The same, but None also where it was made from other records than ``inputs``.

        A record that was deleted and made anew need not be the same to the bit: what depends on it
        is made anew, too.
        """
        record = self.get(fingerprint)
        wanted = {kind: source.attempt for kind, source in (inputs or {}).items()}
        return record if record is not None and dict(record.made_from) == wanted else None

    def put(self, record: StageRecord, folder: Path | None = None) -> StageRecord:
        """Store ``record`` with every file under ``folder``; afterwards it is complete.

        Returns:
            The record that is in the store now: this one with ``files`` and ``attempt`` filled
            in, or the one that was complete before.

        Raises:
            StorageError: the storage cannot be written.
            ValueError: the record holds what JSON cannot.
        """
        present = self.get(record.fingerprint)
        if present is not None:
            return present
        names = _names(folder) if folder is not None else ()
        attempt = uuid.uuid4().hex
        record = dataclasses.replace(record, files=names, attempt=attempt)
        text = json_text.dumps({"format": _FORMAT, "record": dataclasses.asdict(record)})
        home = self._storage.place(_folder(record.fingerprint))
        with self._storage.errors("written"):
            self._fs.create_dir(home, recursive=True)
            if folder is not None and names:
                self._upload(folder, names, f"{home}/{attempt}")
            if self._write_record(home, text.encode()):
                return record
            if names:
                self._fs.delete_dir(f"{home}/{attempt}")
        return self.put(record, folder)  # another writer was first: its record is the answer

    def fetch(self, key: str | StageRecord, name: str, to: Path) -> Path:
        """Copy one file of a stage to the local path ``to``, whole or not at all; returns ``to``.

        Args:
            key: a fingerprint, or a record, which pins the very files that belong to it.
            name: one of the record's ``files``.
            to: the file to write; its folder is created.

        Raises:
            StorageError: no such stage or file, or it cannot be read.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name}.{uuid.uuid4().hex}")
        try:
            with self.open_file(key, name) as stream, part.open("wb") as sink:
                shutil.copyfileobj(stream, sink, 1 << 20)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    def read_bytes(self, key: str | StageRecord, name: str) -> bytes:
        """The content of one file of a stage; arguments and errors as in :meth:`fetch`."""
        with self.open_file(key, name) as stream:
            return bytes(stream.read())

    def open_file(self, key: str | StageRecord, name: str) -> Any:
        """A readable binary stream of one file; arguments and errors as in :meth:`fetch`."""
        record = key if isinstance(key, StageRecord) and key.attempt else self.get(_fp(key))
        if record is None or name not in record.files:
            known = "no such stage" if record is None else f"its files are {list(record.files)}"
            raise StorageError(
                f"Stage {_fp(key)[:12]} in {self.path!r} has no file {name!r} ({known}): run the "
                "stage again."
            )
        place = f"{_folder(record.fingerprint)}/{record.attempt}/{name}"
        with self._storage.errors("read"):
            return self._fs.open_input_stream(self._storage.place(place))

    def delete(self, fingerprint: str) -> None:
        """Forget a stage and all its files. What is not there needs no deleting.

        Raises:
            StorageError: the storage cannot be written.
        """
        home = _folder(fingerprint)
        # The record goes first: from here on the stage is absent, whatever happens next.
        self._storage.delete(f"{home}/{_RECORD}")
        self._storage.delete(home)

    def list(self, kind: str | None = None) -> Iterator[StageRecord]:
        """All complete records, or those of one kind, in the order of their fingerprints.

        Raises:
            StorageError: the storage cannot be read, or a record is damaged.
        """
        infos = self._storage.list("stages")
        for name in sorted(info.base_name for info in infos if not info.is_file):
            record = self.get(name)
            if record is not None and kind in (None, record.kind):
                yield record

    def _upload(self, folder: Path, names: tuple[str, ...], to: str) -> None:
        if self._is_local:
            for name in names:
                target = Path(to, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target)
                _sync(target)
            return
        from pyarrow import fs as pafs

        self._fs.create_dir(to, recursive=True)
        pafs.copy_files(str(folder.absolute()), to, pafs.LocalFileSystem(), self._fs)

    def _write_record(self, home: str, content: bytes) -> bool:
        """Make the record visible in one step; False if there was one already."""
        place = f"{home}/{_RECORD}"
        part = f"{home}/.{_RECORD}.{uuid.uuid4().hex}"
        if self._fs.type_name in _ATOMIC_UPLOAD:
            part = place
        with self._fs.open_output_stream(part) as stream:
            stream.write(content)
        if self._is_local:
            _sync(Path(part))
            try:
                os.link(part, place)  # unlike a rename, it refuses to replace
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                Path(part).replace(place)
            finally:
                Path(part).unlink(missing_ok=True)
            _sync(Path(home))
        elif part != place:
            self._fs.move(part, place)
        return True


def _folder(fingerprint: str) -> str:
    if not re.fullmatch(r"[\w-]+", fingerprint):
        raise StorageError(f"{fingerprint!r} is no fingerprint: expected hexadecimal digits only.")
    return f"stages/{fingerprint}"


def _fp(key: str | StageRecord) -> str:
    return key.fingerprint if isinstance(key, StageRecord) else key


def _names(folder: Path) -> tuple[str, ...]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(str(PurePosixPath(path.relative_to(folder))) for path in files))


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a record must never outlive its files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
