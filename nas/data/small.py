"""Data sets that fit in memory: what their readers return, and the splits made of it.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.data.image_set import DataSplits
from nas.data.request import DataRequest
from nas.data.splits import split_train

# Images move by up to an eighth of their side: the customary 4 pixels of CIFAR's 32.
_SHIFT_DIVISOR = 8


@dataclass(frozen=True)
class SmallData:
    """Official training and test images of a small data set, pixels uint8 or float32 in 0..1.

    `mean` and `std` (per channel, of pixels in 0..1) are None where nobody published them: the
    training split's own are used then.
    """

    train_NCHW: npt.NDArray[np.uint8 | np.float32]
    train_labels_N: npt.NDArray[np.int64]
    test_NCHW: npt.NDArray[np.uint8 | np.float32]
    test_labels_N: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flip: bool


def load_small(data: SmallData, request: DataRequest) -> DataSplits:
    """Splits of a small data set, as `request` asks for them."""
    from nas.data.memory import MemoryImageSet, resize

    train, search_val = split_train(data.train_labels_N, data.class_names, request)
    native_px = data.train_NCHW.shape[-1]
    resolution = request.resolution or native_px
    mean, std = data.mean, data.std
    if mean is None or std is None:
        mean = tuple(data.train_NCHW[train].mean(axis=(0, 2, 3), dtype=np.float64).tolist())
        std = tuple(data.train_NCHW[train].std(axis=(0, 2, 3), dtype=np.float64).tolist())

    def image_set(
        pixels_NCHW: npt.NDArray[np.uint8 | np.float32],
        labels_N: npt.NDArray[np.int64],
        *,
        augment: bool,
    ) -> MemoryImageSet:
        return MemoryImageSet(
            resize(pixels_NCHW, resolution),
            labels_N,
            mean=mean,
            std=std,
            max_shift_px=resolution // _SHIFT_DIVISOR if augment else 0,
            flip=data.flip and augment,
        )

    return DataSplits(
        name=request.name,
        train=image_set(
            data.train_NCHW[train], data.train_labels_N[train], augment=request.augment
        ),
        search_val=image_set(
            data.train_NCHW[search_val], data.train_labels_N[search_val], augment=False
        ),
        test=image_set(data.test_NCHW, data.test_labels_N, augment=False),
        in_channels=data.train_NCHW.shape[1],
        resolution=resolution,
        class_names=data.class_names,
    )
