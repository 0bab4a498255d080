"""Where results are kept: one way to a path, one error for a path that cannot be used."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import fs as pafs


class StorageError(ValueError):
    """The storage path cannot be used; the message says which, why, and how to mend it."""


class Storage:
    """A folder on this machine or in an object store; places in it are relative to it.

    Args:
        path: a local folder (relative ones start at the working directory), or a URI such as
            ``s3://bucket/folder`` for ``pyarrow.fs.FileSystem.from_uri``.
        filesystem: given, ``path`` is a path within it.

    Raises:
        StorageError: no file system answers to ``path``; in its methods, it cannot be used.
    """

    def __init__(self, path: str | Path, filesystem: pafs.FileSystem | None = None) -> None:
        from pyarrow import fs as pafs

        self.path = str(path)
        if filesystem is not None:
            self.filesystem, root = filesystem, self.path
        elif "://" not in self.path:
            self.filesystem, root = pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
        else:
            try:
                self.filesystem, root = pafs.FileSystem.from_uri(self.path)
            except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
                raise StorageError(
                    f"Storage path {self.path!r} is no usable address ({reason_of(error)}): give "
                    "a folder or a URI such as s3://bucket/folder."
                ) from error
        self.root = root.rstrip("/")

    @property
    def is_remote(self) -> bool:
        """Whether every look at it is a request to a server."""
        from pyarrow import fs as pafs

        return not isinstance(self.filesystem, pafs.LocalFileSystem)

    def place(self, name: str) -> str:
        """A relative place as a path within the file system."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with self.errors("read"):
            try:
                with self.filesystem.open_input_stream(self.place(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that it is never seen half written; it replaces the one before."""
        folder, _, file = self.place(name).rpartition("/")
        part = f"{folder}/.{file}.{uuid.uuid4().hex}"
        with self.errors("written"):
            self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(part) as stream:
                stream.write(content)
            self.filesystem.move(part, self.place(name))

    def delete(self, name: str) -> None:
        """Delete a file or a whole folder; what is not there needs no deleting."""
        from pyarrow import fs as pafs

        place = self.place(name)
        with self.errors("written"), contextlib.suppress(FileNotFoundError):
            kind = self.filesystem.get_file_info(place).type
            if kind == pafs.FileType.File:
                self.filesystem.delete_file(place)
            elif kind == pafs.FileType.Directory:
                self.filesystem.delete_dir(place)

    def list(self, folder: str) -> list[pafs.FileInfo]:
        """What is in a folder; nothing where there is none."""
        from pyarrow import fs as pafs

        selector = pafs.FileSelector(self.place(folder), allow_not_found=True)
        with self.errors("read"):
            try:
                return list(self.filesystem.get_file_info(selector))
            except FileNotFoundError:  # created this very moment, by somebody else
                return []

    def check(self, folder: str) -> None:
        """Write and remove a probe file."""
        probe = f"{folder}/.probe-{uuid.uuid4().hex}"
        self.write(probe, b"probe")
        self.delete(probe)

    @contextlib.contextmanager
    def errors(self, verb: str) -> Iterator[None]:
        """Within it, an OSError becomes a StorageError: it cannot be ``verb``."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"Storage path {self.path!r} cannot be {verb} ({reason_of(error)}): check that it "
                "exists and that you may write there, or set storage.path to another folder or URI."
            ) from error


def share_file(storage_path: str, name: str, source: Path) -> None:
    """Put a file of this machine under a storage path, where all nodes find it; once is enough.

    Args:
        storage_path: folder or URI.
        name: says what is in it, as a digest does: a file that is there stays.
        source: the file.

    Raises:
        StorageError: the storage cannot be written.
    """
    storage = Storage(storage_path)
    if name not in {info.base_name for info in storage.list("files")}:
        storage.write(f"files/{name}", source.read_bytes())


def fetch_shared(storage_path: str, name: str, to: Path) -> Path:
    """Copy a shared file to the local path ``to``, and return that.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    storage = Storage(storage_path)
    content = storage.read(f"files/{name}")
    if content is None:
        raise StorageError(f"Storage path {storage_path!r} has no file {name!r}: run it again.")
    to.write_bytes(content)
    return to


def reason_of(error: BaseException) -> str:
    """The first line of an error's own words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
