"""Writes small data sets in the formats that the real ones come in.

Pixels are smooth random patterns, different for every image, so that content identifies an image.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

Bytes = npt.NDArray[np.uint8]


def random_images(num_images: int, side_px: int, seed: int, channels: int = 3) -> Bytes:
    """uint8 images, N x H x W x C, smooth enough to survive JPEG and resizing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (num_images, 4, 4, channels), np.uint8)
    repeats = side_px // 4
    return coarse.repeat(repeats, axis=1).repeat(repeats, axis=2)


def write_image_tree(
    root: Path, train_per_class: dict[str, int], val_per_class: dict[str, int]
) -> None:
    """ROOT/{train,val}/<class>/<n>.jpg, 40 x 32 pixels."""
    for part, per_class in (("train", train_per_class), ("val", val_per_class)):
        for class_number, (name, count) in enumerate(per_class.items()):
            folder = root / part / name
            folder.mkdir(parents=True)
            pixels = random_images(count, 40, seed=class_number + 100 * (part == "val"))
            for number, image in enumerate(pixels):
                Image.fromarray(image[:32]).save(folder / f"{number:03d}.jpg", quality=95)


def truncate(path: Path) -> None:
    """Keep the first half of a file: a header that reads well, and data that ends too early."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_fashion_mnist(
    folder: Path, *, gzipped: bool, num_train: int = 60, num_test: int = 20
) -> None:
    """Four idx files whose labels run through the ten classes again and again."""
    folder.mkdir(parents=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        images = random_images(count, 28, seed=count, channels=1)[..., 0]
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
            content = header + array.tobytes()
            path = folder / f"{part}-{name}"
            if gzipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, *, accept: bool = True) -> None:
    """CIFAR-10's pickled batches, 20 images in each.

    torchvision accepts the official files only, by MD5. With `accept`, its list of checksums gets
    these files' instead, and everything else is torchvision's own code on its own format.
    """
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]]
    checksums = {}
    for number, name in enumerate(names):
        rows = random_images(20, 32, seed=number).transpose(0, 3, 1, 2).reshape(20, -1)
        content = pickle.dumps({"data": rows, "labels": [i % 10 for i in range(20)]})
        (folder / name).write_bytes(content)
        checksums[name] = hashlib.md5(content).hexdigest()
    label_names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = pickle.dumps({"label_names": label_names})
    (folder / CIFAR10.meta["filename"]).write_bytes(meta)
    if accept:
        monkeypatch.setattr(CIFAR10, "train_list", [[n, checksums[n]] for n in names[:5]])
        monkeypatch.setattr(CIFAR10, "test_list", [[names[5], checksums[names[5]]]])
        meta_entry = {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()}
        monkeypatch.setattr(CIFAR10, "meta", meta_entry)
