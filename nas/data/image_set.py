"""The shape that every data set has: three splits, each a seeded stream of batches.

Legend: N images of a split, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "search_val", "test"]

# Separate random streams: the order of an epoch says nothing about its augmentation.
ORDER_STREAM = 0
AUGMENT_STREAM = 1


class ImageSet(ABC):
    """One split of a data set.

    Attributes:
        labels_N: class index of every image, in evaluation order.
        mean: per channel, of pixels in 0..1; what batches are normalised with, and so `std`.
        std: per channel.
        num_skipped: unreadable images that were left out of this split when it was loaded.
    """

    labels_N: npt.NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_skipped: int

    def __len__(self) -> int:
        """Number of images, those left out not counted."""
        return len(self.labels_N)

    def num_batches(self, batch_size: int, *, training: bool) -> int:
        """Batches of one epoch; the same on every rank. Raises as `batches` does."""
        num_images = len(self)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        if not training:
            return -(-num_images // batch_size)
        if num_images < batch_size:
            raise ValueError(
                f"batch_size is {batch_size}, but the training split has only {num_images} "
                f"image(s), less than one batch; give a batch_size of at most {num_images}."
            )
        return num_images // batch_size

    def batches(
        self,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch that belong to one rank, on the CPU.

        Order and augmentation are pure functions of (seed, epoch, image index). Rank r gets the
        r-th contiguous slice of every global batch, so that the ranks' slices put together are the
        batch that a single rank would get, image for image, bit for bit.

        Args:
            batch_size: images in a *global* batch, over all ranks.
            training: shuffled, augmented and without the last incomplete global batch; otherwise in
                order, not augmented, and complete. A batch that cannot be divided evenly gives
                slices that differ by one image. Every rank yields the same number of batches, so
                that collectives stay aligned: without `training` a slice may hold zero images.
            seed: the run's seed, at least 0.
            epoch: counts from 0.
            rank: this rank, 0 <= rank < world_size.
            world_size: number of ranks.
            start: batches to leave out at the beginning without decoding them, so that an epoch can
                be resumed in its middle.

        Yields:
            (images_BCHW float32 normalised, labels_B int64).

        Raises:
            ValueError: at the call, before the first batch: when training, a `batch_size` larger
                than the set or less than `world_size`; any argument out of its range.
            UnreadableImageError: while iterating, naming the file.
        """
        num_batches = self.num_batches(batch_size, training=training)
        if world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"rank is {rank} and world_size {world_size}; 0 <= rank < world_size is needed."
            )
        if training and batch_size < world_size:
            raise ValueError(
                f"batch_size is {batch_size}, the global batch, less than one image for each of "
                f"{world_size} ranks; give a batch_size of at least {world_size}."
            )
        if not 0 <= start <= num_batches:
            raise ValueError(
                f"start is {start}; an epoch has {num_batches} batches, so 0 to {num_batches} can "
                "be left out."
            )
        if seed < 0 or epoch < 0:
            raise ValueError(f"seed is {seed} and epoch {epoch}; both must be 0 or more.")
        order: npt.NDArray[np.int64] = np.arange(len(self), dtype=np.int64)
        if training:
            order = np.random.default_rng((ORDER_STREAM, seed, epoch)).permutation(order)
        plan = [
            np.array_split(order[first : first + batch_size], world_size)[rank]
            for first in range(start * batch_size, num_batches * batch_size, batch_size)
        ]
        return self._load(plan, (seed, epoch) if training else None)

    @abstractmethod
    def _load(
        self, plan: list[npt.NDArray[np.int64]], draw: tuple[int, int] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a plan, which holds the indices of each one's images.

        `draw` is the (seed, epoch) of augmentation, None for none.
        """


@dataclass(frozen=True)
class DataSplits:
    """A loaded data set.

    `search_val` is carved from the training images (stratified by class), so that no search ever
    sees a test image. `resolution` is the height and width in pixels that batches have.
    """

    name: str
    train: ImageSet
    search_val: ImageSet
    test: ImageSet
    in_channels: int
    resolution: int
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
