"""The data sets by name. Another one is another entry here: what it is, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nas.data.cifar10 import find_cifar10, read_cifar10
from nas.data.digits import read_digits
from nas.data.fashion_mnist import find_fashion_mnist, read_fashion_mnist
from nas.data.image_set import DataSplits
from nas.data.imagefolder import DEFAULT_RESOLUTION_PX, find_imagefolder, load_imagefolder
from nas.data.request import DataRequest
from nas.data.small import load_small


@dataclass(frozen=True)
class ImageSpec:
    """Shape of the images (resolution in pixels) and number of classes.

    `num_train_images` counts the official training images, search-validation not yet carved out;
    None where only reading the data would tell.
    """

    in_channels: int
    resolution: int
    num_classes: int
    num_train_images: int | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set. `describe` takes the root, looks for the files and reads no image."""

    describe: Callable[[Path | None], ImageSpec]
    load: Callable[[DataRequest], DataSplits]


def _describe_fashion_mnist(root: Path | None) -> ImageSpec:
    find_fashion_mnist(root)
    return ImageSpec(1, 28, 10, 60_000)


def _describe_cifar10(root: Path | None) -> ImageSpec:
    find_cifar10(root)
    return ImageSpec(3, 32, 10, 50_000)


def _describe_imagefolder(root: Path | None) -> ImageSpec:
    _, class_names = find_imagefolder(root)
    return ImageSpec(3, DEFAULT_RESOLUTION_PX, len(class_names))


DATASETS: dict[str, DataSet] = {
    "digits": DataSet(
        describe=lambda root: ImageSpec(1, 8, 10, 1438),
        load=lambda request: load_small(read_digits(), request),
    ),
    "fashion_mnist": DataSet(
        describe=_describe_fashion_mnist,
        load=lambda request: load_small(read_fashion_mnist(request.root_path), request),
    ),
    "cifar10": DataSet(
        describe=_describe_cifar10,
        load=lambda request: load_small(read_cifar10(request.root_path), request),
    ),
    "imagefolder": DataSet(describe=_describe_imagefolder, load=load_imagefolder),
}


def describe_data(
    name: str, *, root: str | None = None, resolution: int | None = None
) -> ImageSpec:
    """What networks have to know of a data set, without torch and without reading an image.

    A driver asks before it starts anything, so that missing files are an error then and not an
    hour later in a worker. Arguments and errors as for `load_data`.
    """
    request = DataRequest(name=name, root=root, resolution=resolution)
    spec = _data_set(name).describe(request.root_path)
    return replace(spec, resolution=resolution or spec.resolution)


def load_data(
    name: str,
    *,
    root: str | None = None,
    resolution: int | None = None,
    search_val_fraction: float = 0.1,
    augment: bool = True,
    max_train_images: int | None = None,
    split_seed: int = 0,
    skip_unreadable: bool = False,
    num_workers: int = 0,
) -> DataSplits:
    """Load a data set by name; nothing is ever downloaded.

    The splits depend on the files, `search_val_fraction`, `split_seed` and `max_train_images` only,
    so every rank that loads the same data has the same splits.

    Args:
        name: one of `DATASETS`.
        root: the folder that holds the files; `digits` needs none, and `fashion_mnist` looks where
            Debian's package puts them if none is given.
        resolution: side of the images in pixels, at least 4. Small images are resized to it once,
            those of a folder as they are decoded. None: as the data set has them; 224 for a folder.
        search_val_fraction: share of the training images kept for judging candidates, above 0 and
            at most 0.5, stratified by class, at least one image of each class.
        augment: random crops and the like on training batches: shifts by up to resolution // 8
            pixels (and flips, except for digits), or for a folder what SPOS trains ImageNet with.
        max_train_images: train on a stratified subset of at most so many images.
        split_seed: decides which images are carved out, and which subset is taken.
        skip_unreadable: for a folder, decode every image once now, and leave out those that cannot
            be decoded (`ImageSet.num_skipped` counts them); otherwise they raise when their batch
            comes.
        num_workers: for a folder, processes that decode images; 0 decodes in this process.

    Raises:
        MissingDataError: files that are not there; the message says how to get them.
        ValueError: an unknown name, an argument out of its range, too few images in a class, or
            damaged files.
    """
    data_set = _data_set(name)
    request = DataRequest(
        name=name,
        root=root,
        resolution=resolution,
        search_val_fraction=search_val_fraction,
        augment=augment,
        max_train_images=max_train_images,
        split_seed=split_seed,
        skip_unreadable=skip_unreadable,
        num_workers=num_workers,
    )
    return data_set.load(request)


def _data_set(name: str) -> DataSet:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(sorted(DATASETS))}.")
    return DATASETS[name]
