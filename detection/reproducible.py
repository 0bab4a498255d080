"""Images that depend on (seed, epoch, index) and on nothing else.

MMDetection's augmentations draw from the global generators of whatever process loads an image: a
training that was interrupted, or that has another number of loaders or of ranks, sees other images.
Here the sampler says which epoch an index belongs to, and the data set seeds the generators for
each image, so that a training that goes on after a crash is the one that was never interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import DefaultSampler


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """MMEngine's sampler, whose indices say the epoch: index + epoch · length of the data set."""

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)
        return (first + index for index in super().__iter__())


@DATASETS.register_module()
class SeededCocoDataset(CocoDataset):
    """MMDetection's COCO data set for training, with augmentations drawn from (seed, epoch, index).

    An index below the data set's length belongs to epoch 0.

    Args:
        args: those of `CocoDataset`.
        seed: of the augmentations.
        kwargs: those of `CocoDataset`.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        self.seed = seed
        super().__init__(*args, **kwargs)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The image with what is known of it, as the pipeline packs it."""
        epoch, index = divmod(int(idx), len(self))
        with _seeded(self.seed, epoch, index):
            return super().__getitem__(index)


@contextmanager
def _seeded(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Python's and NumPy's global generators seeded within, and afterwards as they were."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # what mmcv draws from
    words = np.random.SeedSequence((seed, epoch, index)).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
