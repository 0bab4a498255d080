"""A folder that is there with all its files, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` at the end; after an error it is gone.

    With `replace`, what was there before is there until then.

    Raises:
        OSError: `target` holds something that is not to be replaced, or cannot be written.
    """
    part, old = (target.with_name(f".{target.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        part.mkdir(parents=True)
        yield part
        if replace and target.exists():
            target.rename(old)
        part.rename(target)
    finally:
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)


def require_new(target: Path, option: str) -> None:
    """Raise ValueError where a folder cannot be made, because something is there."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(
            f"{option} is {str(target)!r}, which is there already: give a folder that is empty or "
            "does not exist."
        )
