"""Which images make which batch: the order of an epoch and its division among ranks.

Nothing here touches an image. A plan is a pure function of its arguments, so every rank computes
its own part with no message, and a resumed epoch continues where the interrupted one was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Separate random streams: the order of an epoch says nothing about its augmentation.
ORDER_STREAM = 0
AUGMENT_STREAM = 1


def count_batches(num_images: int, batch_size: int, *, training: bool) -> int:
    """Batches of one epoch: whole ones when training, else all, the last one perhaps partial.

    Raises:
        ValueError: `batch_size` below 1; when training, `batch_size` above `num_images`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    if not training:
        return -(-num_images // batch_size)
    if num_images < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but the training split has only {num_images} image(s), "
            f"less than one batch; give a batch_size of at most {num_images}."
        )
    return num_images // batch_size


def plan_batches(
    num_images: int,
    batch_size: int,
    *,
    training: bool,
    seed: int,
    epoch: int,
    rank: int,
    world_size: int,
    start: int,
) -> list[npt.NDArray[np.int64]]:
    """Image indices of every batch from `start` on that this rank holds; see `ImageSet.batches`.

    Raises:
        ValueError: an argument out of its range, as `ImageSet.batches` lists them.
    """
    num_batches = count_batches(num_images, batch_size, training=training)
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"rank is {rank} and world_size {world_size}; 0 <= rank < world_size is needed."
        )
    if training and batch_size % world_size:
        raise ValueError(
            f"batch_size is {batch_size}, the global batch, and cannot be divided evenly among "
            f"{world_size} ranks; give a multiple of {world_size}."
        )
    if not 0 <= start <= num_batches:
        raise ValueError(
            f"start is {start}; an epoch has {num_batches} batches, so 0 to {num_batches} can be "
            "left out."
        )
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed is {seed} and epoch {epoch}; both must be 0 or more.")
    order: npt.NDArray[np.int64] = np.arange(num_images, dtype=np.int64)
    if training:
        order = np.random.default_rng((ORDER_STREAM, seed, epoch)).permutation(order)
    return [
        np.array_split(order[first : first + batch_size], world_size)[rank]
        for first in range(start * batch_size, num_batches * batch_size, batch_size)
    ]
