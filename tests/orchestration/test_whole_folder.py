"""A folder is there with all its files, or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from orchestration.store.whole_folder import require_new, whole_folder


class StopError(Exception):
    """Stands for whatever goes wrong while a folder is filled."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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


def test_what_is_replaced_stays_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    for name in ("old", "new"):
        with whole_folder(target, replace=True) as part:
            (part / name).touch()
            assert name == "old" or names(target) == {"old"}
    assert (names(target), names(tmp_path)) == ({"new"}, {"target"})

    rename = Path.rename

    def full(path: Path, to: Path) -> Path:
        if (path / "newest").exists():
            raise OSError("disk full")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="full"), whole_folder(target, replace=True) as part:
        (part / "newest").touch()
    assert (names(target), names(tmp_path)) == ({"new"}, {"target"})


@pytest.mark.parametrize("target", [".", "..", "../within"])
def test_the_current_folder_is_not_put_there_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "within").mkdir()
    monkeypatch.chdir(tmp_path / "within")
    with (
        pytest.raises(ValueError, match="name a folder of its own"),
        whole_folder(Path(target), replace=True),
    ):
        pass
    assert names(tmp_path) == {"within"}
