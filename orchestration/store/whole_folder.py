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
        ValueError: `target` is the current folder, which cannot be put there anew.
        OSError: it holds something that is not to be replaced, or cannot be written.
    """
    target = target.absolute()
    if Path.cwd().is_relative_to(target.resolve()):
        raise ValueError(
            f"{target} is the current folder or has it within, and would be put in its place: name "
            "a folder of its own."
        )
    part, old = (target.with_name(f".{target.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        part.mkdir(parents=True)
        yield part
        if replace and target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
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
