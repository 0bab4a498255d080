"""CIFAR-10, in the python batches that torchvision downloads and reads.

Krizhevsky: "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.data.request import MissingDataError
from nas.data.small import SmallData

_FOLDER = "cifar-10-batches-py"
_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_HOW_TO_GET = (
    "run `python -c \"import torchvision; torchvision.datasets.CIFAR10('ROOT', "
    'download=True)"` and give that ROOT as the root.'
)


def find_cifar10(root: Path | None) -> Path:
    """The root, once all of CIFAR-10's files are seen to lie under it.

    Raises:
        MissingDataError: no root, or files missing under ROOT/cifar-10-batches-py.
    """
    if root is None:
        raise MissingDataError(f"cifar10 needs a root, and none was given; {_HOW_TO_GET}")
    missing = [name for name in _FILES if not (root / _FOLDER / name).is_file()]
    if missing:
        raise MissingDataError(
            f"cifar10: looked for {', '.join(missing)} in {root / _FOLDER}, and found none of "
            f"them; {_HOW_TO_GET}"
        )
    return root


def read_cifar10(root: Path | None) -> SmallData:
    """CIFAR-10's python batches through torchvision: 50,000 + 10,000 images, 32x32, RGB.

    Raises:
        MissingDataError: as `find_cifar10`.
        ValueError: files whose checksum is not the official one.
    """
    root = find_cifar10(root)
    from torchvision.datasets import CIFAR10

    try:
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    except RuntimeError as error:
        raise ValueError(
            f"cifar10: a file in {root / _FOLDER} is damaged (its MD5 checksum is not the official "
            f"one); remove the folder, then {_HOW_TO_GET}"
        ) from error
    return SmallData(
        train_NCHW=np.ascontiguousarray(train.data.transpose(0, 3, 1, 2)),
        train_labels_N=np.array(train.targets, dtype=np.int64),
        test_NCHW=np.ascontiguousarray(test.data.transpose(0, 3, 1, 2)),
        test_labels_N=np.array(test.targets, dtype=np.int64),
        class_names=tuple(train.classes),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        flip=True,
    )
