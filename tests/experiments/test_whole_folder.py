"""A folder is there with all its files, or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from experiments.whole_folder import require_new, whole_folder


class StopError(Exception):
    """Stands for whatever goes wrong while a folder is filled."""


def test_a_folder_is_not_there_until_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with whole_folder(target) as folder:
        (folder / "file").write_text("content", encoding="utf-8")
        assert not target.exists()
    assert (target / "file").read_text(encoding="utf-8") == "content"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(StopError), whole_folder(tmp_path / "target") as folder:
        (folder / "file").touch()
        raise StopError
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(OSError), whole_folder(target) as folder:  # noqa: PT011
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    require_new(target, "--output")
    with whole_folder(target) as folder:
        (folder / "file").touch()
    assert [path.name for path in target.iterdir()] == ["file"]


def test_whoever_would_write_over_something_is_told_the_option(tmp_path: Path) -> None:
    require_new(tmp_path / "none", "--output")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match=rf"--output is '{path}', which is there already"):
            require_new(path, "--output")
