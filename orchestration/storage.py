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


def unusable(path: str, verb: str, error: OSError) -> StorageError:
    """The error for a path that could not be ``verb`` (``read`` or ``written``)."""
    return StorageError(
        f"Storage path {path!r} cannot be {verb} ({reason_of(error)}): check that it exists and "
        "that you may write there, or set storage.path to another folder or URI."
    )


def reason_of(error: BaseException) -> str:
    """The first line of an error's own words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
