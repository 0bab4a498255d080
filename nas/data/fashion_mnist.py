"""Fashion-MNIST: large enough for science on a CPU, and packaged by Debian.

Xiao, Rasul, Vollgraf: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, https://arxiv.org/abs/1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.data.errors import MissingDataError
from nas.data.idx import read_idx
from nas.data.small import SmallData

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Name → number of dimensions of the array in it.
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}


def read_fashion_mnist(root: Path | None) -> SmallData:
    """Fashion-MNIST's four idx files: 60,000 + 10,000 images, 28x28, one channel.

    Raises:
        MissingDataError: as `find_fashion_mnist`.
        ValueError: a file is damaged, or images and labels do not belong together.
    """
    files = find_fashion_mnist(root)
    arrays = {name: read_idx(path, FASHION_MNIST_FILES[name]) for name, path in files.items()}
    pixels, labels = {}, {}
    for part in ("train", "t10k"):
        pixels[part] = arrays[f"{part}-images-idx3-ubyte"][:, None]
        labels[part] = arrays[f"{part}-labels-idx1-ubyte"].astype(np.int64)
        if len(pixels[part]) != len(labels[part]) or labels[part].max(initial=0) >= 10:
            raise ValueError(
                f"the Fashion-MNIST files {part}-* hold {len(pixels[part])} images and "
                f"{len(labels[part])} labels up to {labels[part].max(initial=0)}; one label from 0 "
                "to 9 per image is expected: get all four files again."
            )
    return SmallData(
        train_NCHW=pixels["train"],
        train_labels_N=labels["train"],
        test_NCHW=pixels["t10k"],
        test_labels_N=labels["t10k"],
        class_names=CLASS_NAMES,
        mean=(0.2860,),
        std=(0.3530,),
        flip=True,
    )


def find_fashion_mnist(root: Path | None) -> dict[str, Path]:
    """The four files by name.

    Looked for in torchvision's layout under `root`, in `root` itself and in `root`/fashion-mnist;
    without a `root`, where Debian's package `dataset-fashion-mnist` puts them.

    Raises:
        MissingDataError: no folder holds all four, plain or gzipped.
    """
    if root is None:
        folders = [DEBIAN_FASHION_MNIST]
    else:
        folders = [root / "FashionMNIST" / "raw", root, root / "fashion-mnist"]
    for folder in folders:
        found = {}
        for name in FASHION_MNIST_FILES:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    found[name] = path
                    break
        if len(found) == len(FASHION_MNIST_FILES):
            return found
    raise MissingDataError(
        f"fashion_mnist: looked for {', '.join(FASHION_MNIST_FILES)} (plain or .gz) in "
        f"{', '.join(map(str, folders))}, and no folder holds all four; on Debian or Ubuntu run "
        "`apt-get install dataset-fashion-mnist` and leave the root out, or run `python -c "
        "\"import torchvision; torchvision.datasets.FashionMNIST('ROOT', download=True)\"` and "
        "give that ROOT as the root."
    )
