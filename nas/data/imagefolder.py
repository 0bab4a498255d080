"""Folders of image files in ImageNet's layout: ROOT/train/<class>/*, ROOT/val/<class>/*.

The official validation images are the test split here; search-validation is carved from train.

Legend: N images.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas.data.image_set import DataSplits
from nas.data.request import DataRequest, MissingDataError
from nas.data.splits import split_train

if TYPE_CHECKING:
    from nas.data.folder import FolderImageSet

DEFAULT_RESOLUTION_PX = 224
_LAYOUT = "the layout is ROOT/train/<class>/*.jpg and ROOT/val/<class>/*.jpg, as ImageNet's"
_MAX_NAMES = 5


def find_imagefolder(root: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The root and the names of the classes, which are folders in both train/ and val/.

    Raises:
        MissingDataError: no root, no train/ or val/ folder, or no class folders in them.
        ValueError: train/ and val/ have different classes.
    """
    if root is None:
        raise MissingDataError(f"imagefolder needs a root, and none was given; {_LAYOUT}.")
    class_names, test_class_names = _class_names(root / "train"), _class_names(root / "val")
    if class_names != test_class_names:
        raise ValueError(
            f"the classes of {root}/train and {root}/val must agree; only train has "
            f"{_some(set(class_names) - set(test_class_names))}, only val has "
            f"{_some(set(test_class_names) - set(class_names))}."
        )
    return root, class_names


def load_imagefolder(request: DataRequest) -> DataSplits:
    """Splits of an image folder; the images are decoded when their batch comes.

    With `skip_unreadable` every image of the three splits is decoded once beforehand, and those
    that cannot be are left out of *their* split. Splits are made from the whole list first, so that
    one damaged file moves no other image to another split, and every rank, decoding the same files,
    leaves out the same ones.

    Raises:
        MissingDataError: as `find_imagefolder`, or a class folder without images.
        ValueError: as `find_imagefolder`, or a class is too small to be split.
    """
    root, class_names = find_imagefolder(request.root_path)
    paths_N, labels_N = _list_images(root / "train")
    test_paths_N, test_labels_N = _list_images(root / "val")
    train, search_val = split_train(labels_N, class_names, request)
    resolution = request.resolution or DEFAULT_RESOLUTION_PX

    def image_set(
        paths: npt.NDArray[np.bytes_], labels: npt.NDArray[np.int64], *, augment: bool
    ) -> FolderImageSet:
        from nas.data.folder import FolderImageSet, find_unreadable

        keep: npt.NDArray[np.bool_] = np.ones(len(paths), dtype=np.bool_)
        if request.skip_unreadable:
            keep = ~find_unreadable(paths, num_workers=request.num_workers)
        if not keep.any():
            raise ValueError(
                f"none of the {len(paths)} images of one split of {root} can be decoded "
                f"(the first is {os.fsdecode(paths[0])}); replace them."
            )
        return FolderImageSet(
            paths[keep],
            labels[keep],
            resolution=resolution,
            augment=augment,
            num_workers=request.num_workers,
            num_skipped=int((~keep).sum()),
        )

    return DataSplits(
        name=request.name,
        train=image_set(paths_N[train], labels_N[train], augment=request.augment),
        search_val=image_set(paths_N[search_val], labels_N[search_val], augment=False),
        test=image_set(test_paths_N, test_labels_N, augment=False),
        in_channels=3,
        resolution=resolution,
        class_names=class_names,
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise MissingDataError(
            f"imagefolder: looked for the folder {folder}, and it is not there; {_LAYOUT}."
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise MissingDataError(
            f"imagefolder: looked for class folders in {folder}, and there is none; {_LAYOUT}."
        )
    return tuple(names)


def _list_images(folder: Path) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]]:
    """Paths and labels of all images, in torchvision's sorted order."""
    from torchvision.datasets import ImageFolder

    try:
        samples = ImageFolder(folder).samples
    except FileNotFoundError as error:
        raise MissingDataError(
            f"imagefolder: each class folder in {folder} must hold at least one image ({error})"
        ) from error
    # One array instead of a million str objects: forked workers then share its memory, where
    # reference counts would make them copy it.
    paths_N = np.array([os.fsencode(path) for path, _ in samples], dtype=np.bytes_)
    labels_N = np.array([label for _, label in samples], dtype=np.int64)
    return paths_N, labels_N


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_MAX_NAMES]) or "none"
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"
