"""Where results are kept: one way to open a path, one error for a path that cannot be used."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import fs as pafs


class StorageError(ValueError):
    """The storage path cannot be used; the message says which, why, and how to mend it."""


def open_storage(
    path: str | Path, filesystem: pafs.FileSystem | None = None
) -> tuple[pafs.FileSystem, str]:
    """The file system that ``path`` lies on, and the path within it.

    Args:
        path: a local folder (relative ones start at the working directory), or a URI such as
            ``s3://bucket/folder`` for ``pyarrow.fs.FileSystem.from_uri``.
        filesystem: given, ``path`` is a path within it.

    Raises:
        StorageError: no file system answers to ``path``.
    """
    from pyarrow import fs as pafs

    text = str(path)
    if filesystem is not None:
        return filesystem, text.rstrip("/")
    if "://" not in text:
        return pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    try:
        filesystem, root = pafs.FileSystem.from_uri(text)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
        raise StorageError(
            f"Storage path {text!r} is no usable address ({reason_of(error)}): give a folder or "
            "a URI such as s3://bucket/folder."
        ) from error
    return filesystem, root.rstrip("/")


def write_whole(filesystem: pafs.FileSystem, place: str, content: bytes) -> None:
    """Write a file so that it is never seen half written; it replaces the one before.

    Raises:
        OSError: it cannot be written.
    """
    folder, _, name = place.rpartition("/")
    part = f"{folder}/.{name}.{uuid.uuid4().hex}"
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(part) as stream:
        stream.write(content)
    filesystem.move(part, place)


def share_file(storage_path: str, name: str, source: Path) -> None:
    """Put a file of this machine under a storage path, where all nodes find it; once is enough.

    Args:
        storage_path: folder or URI.
        name: says what is in it, as a digest does: a file that is there stays.
        source: the file.

    Raises:
        StorageError: the storage cannot be written.
    """
    from pyarrow import fs as pafs

    filesystem, root = open_storage(storage_path)
    place = f"{root}/files/{name}"
    try:
        if filesystem.get_file_info(place).type == pafs.FileType.NotFound:
            write_whole(filesystem, place, source.read_bytes())
    except OSError as error:
        raise unusable(storage_path, "written", error) from error


def fetch_shared(storage_path: str, name: str, to: Path) -> Path:
    """Copy a shared file to the local path ``to``, and return that.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    filesystem, root = open_storage(storage_path)
    try:
        with filesystem.open_input_stream(f"{root}/files/{name}") as stream:
            to.write_bytes(stream.read())
    except OSError as error:
        raise unusable(storage_path, "read", error) from error
    return to


def unusable(path: str, verb: str, error: OSError) -> StorageError:
    """The error for a path that could not be ``verb`` (``read`` or ``written``)."""
    return StorageError(
        f"Storage path {path!r} cannot be {verb} ({reason_of(error)}): check that it exists and "
        "that you may write there, or set storage.path to another folder or URI."
    )


def reason_of(error: BaseException) -> str:
    """The first line of an error's own words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
