"""Folders of image files: workers, damaged files, layouts that are not one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import DataSplits, MissingDataError, UnreadableImageError, load_data
from nas.data.folder import FolderImageSet
from tests.nas.data_files import truncate, write_image_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_image_tree(tmp_path, {"ant": 10, "bee": 20}, {"ant": 4, "bee": 4})
    return tmp_path


def load(root: Path, *, skip_unreadable: bool = False, num_workers: int = 0) -> DataSplits:
    return load_data(
        "imagefolder",
        root=str(root),
        resolution=16,
        search_val_fraction=0.2,
        skip_unreadable=skip_unreadable,
        num_workers=num_workers,
    )


def train_files(splits: DataSplits) -> set[bytes]:
    assert isinstance(splits.train, FolderImageSet)
    return set(splits.train._paths_N.tolist())


def test_splits_follow_the_tree(root: Path) -> None:
    splits = load(root)
    assert splits.class_names == ("ant", "bee")
    assert np.bincount(splits.train.labels_N).tolist() == [8, 16]
    assert np.bincount(splits.search_val.labels_N).tolist() == [2, 4]
    assert np.bincount(splits.test.labels_N).tolist() == [4, 4]
    assert load_data("imagefolder", root=str(root)).resolution == 224


def test_evaluation_resizes_crops_and_normalises(root: Path) -> None:
    # A one-coloured image stays so; ImageNet's constants make these numbers of it.
    for path in (root / "val" / "ant").iterdir():
        Image.new("L", (50, 30), 128).save(path, quality=100)
    images_BCHW, labels_B = next(load(root).test.batches(4, training=False))
    assert labels_B.tolist() == [0] * 4
    for channel, expected in enumerate([0.0741, 0.2052, 0.4265]):
        torch.testing.assert_close(
            images_BCHW[:, channel], torch.full((4, 16, 16), expected), rtol=0, atol=1e-4
        )


def test_worker_processes_change_nothing(root: Path) -> None:
    for training in (True, False):
        alone = list(load(root).train.batches(8, training=training, seed=3, epoch=1))
        helped = load(root, num_workers=2).train.batches(8, training=training, seed=3, epoch=1)
        for (a, i), (b, j) in zip(alone, helped, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(i, j)


def test_start_decodes_nothing_of_what_it_leaves_out(root: Path) -> None:
    for path in (root / "val" / "ant").iterdir():
        truncate(path)
    images_BCHW, labels_B = next(load(root).test.batches(4, training=False, start=1))
    assert labels_B.tolist() == [1] * 4
    assert images_BCHW.shape == (4, 3, 16, 16)


def test_an_unreadable_image_is_named(root: Path) -> None:
    path = root / "val" / "bee" / "002.jpg"
    truncate(path)
    for num_workers in (0, 1):
        with pytest.raises(
            UnreadableImageError, match=f"^[^\n]*{path}[^\n]*skip_unreadable[^\n]*$"
        ):
            list(load(root, num_workers=num_workers).test.batches(8, training=False))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_skipped_images_are_counted_and_move_no_other(root: Path, num_workers: int) -> None:
    before = load(root)
    damaged = root / "train" / "bee" / "000.jpg"
    for name in ("000.jpg", "001.jpg", "002.jpg"):
        truncate(root / "train" / "bee" / name)
    (root / "val" / "ant" / "001.jpg").write_bytes(b"not an image")

    after = load(root, skip_unreadable=True, num_workers=num_workers)
    assert after.train.num_skipped + after.search_val.num_skipped == 3
    assert len(after.train) == len(before.train) - after.train.num_skipped
    assert len(after.search_val) == len(before.search_val) - after.search_val.num_skipped
    assert after.test.num_skipped == 1
    assert after.test.labels_N.tolist() == [0] * 3 + [1] * 4
    assert train_files(after) < train_files(before)
    assert str(damaged).encode() not in train_files(after)
    shown = list(after.train.batches(7, training=True))
    assert [len(labels_B) for _, labels_B in shown] == [7, 7, 7]


def test_a_failing_disk_is_no_unreadable_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load(root, skip_unreadable=True)


def test_a_split_without_a_readable_image_is_refused(root: Path) -> None:
    for path in (root / "val").glob("*/*.jpg"):
        truncate(path)
    with pytest.raises(ValueError, match=f"none of the 8 images .*{root}/val/ant/000.jpg"):
        load(root, skip_unreadable=True)


def test_layouts_that_are_not_one(root: Path) -> None:
    shutil.copytree(root / "train" / "bee", root / "train" / "cat")
    (root / "val" / "bee").rename(root / "val" / "dog")
    with pytest.raises(ValueError, match="only train has bee, cat, only val has dog"):
        load(root)
    shutil.rmtree(root / "val")
    with pytest.raises(MissingDataError, match=f"looked for the folder {root}/val,.*ROOT/train"):
        load(root)
    (root / "val").mkdir()
    with pytest.raises(MissingDataError, match=f"looked for class folders in {root}/val"):
        load(root)
    for name in ("ant", "bee", "cat"):
        (root / "val" / name).mkdir()
    with pytest.raises(MissingDataError, match="must hold at least one image.*ant, bee, cat"):
        load(root)
