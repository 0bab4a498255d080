"""Fashion-MNIST: large enough for science on a CPU, and packaged by Debian.

Xiao, Rasul, Vollgraf: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, https://arxiv.org/abs/1708.07747.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.data.request import MissingDataError
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
_UNSIGNED_BYTE = 8  # the element type code of idx files that hold uint8
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
    arrays = {name: _read_idx(path, FASHION_MNIST_FILES[name]) for name, path in files.items()}
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
        paths = {}
        for name in FASHION_MNIST_FILES:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    paths[name] = path
                    break
        if len(paths) == len(FASHION_MNIST_FILES):
            return paths
    raise MissingDataError(
        f"fashion_mnist: looked for {', '.join(FASHION_MNIST_FILES)} (plain or .gz) in "
        f"{', '.join(map(str, folders))}, and no folder holds all four; on Debian or Ubuntu run "
        "`apt-get install dataset-fashion-mnist` and leave the root out, or run `python -c "
        "\"import torchvision; torchvision.datasets.FashionMNIST('ROOT', download=True)\"` and "
        "give that ROOT as the root."
    )


def _read_idx(path: Path, num_dims: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, plain or gzipped, with `num_dims` dimensions.

    torchvision reads unpacked files only, and Debian ships them gzipped where users cannot write.

    Raises:
        ValueError: the file is not such an array, or not all of one; the message names it.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}); get it again.") from error
    header_bytes = 4 + 4 * num_dims
    if len(content) < header_bytes or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, num_dims]):
        raise ValueError(
            f"{path} does not begin like an idx file of unsigned bytes with {num_dims} "
            "dimension(s); get it again."
        )
    shape = struct.unpack_from(f">{num_dims}I", content, 4)
    expected_bytes = header_bytes + math.prod(shape)
    if len(content) != expected_bytes:
        raise ValueError(
            f"{path} holds {len(content)} bytes where its header announces {expected_bytes}; "
            "get it again."
        )
    # Copied: an array over a `bytes` object is read-only, which torch.from_numpy warns of.
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape).copy()
