"""Small data sets: the whole split in memory as one array, augmented a batch at a time.

A 28x28 image costs less to augment than to hand to a worker process, so there are no workers here.
NumPy does it, in one thread: torch's threads wait for each other at every small operation, which
takes far longer than the operation where several processes share the cores.

Legend: N images of the split, B of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.data.image_set import AUGMENT_STREAM, ImageSet

Pixels = npt.NDArray[np.uint8 | np.float32]


class MemoryImageSet(ImageSet):
    """An `ImageSet` over an array of images.

    Args:
        pixels_NCHW: uint8 in 0..255 or float32 in 0..1, square.
        labels_N: class indices.
        mean, std: per channel, of pixels in 0..1.
        max_shift_px: when training, every image moves by up to so many pixels in each direction;
            black fills what becomes free.
        flip: when training, mirror every other image, at random.
    """

    def __init__(
        self,
        pixels_NCHW: Pixels,
        labels_N: npt.NDArray[np.int64],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        max_shift_px: int = 0,
        flip: bool = False,
    ) -> None:
        assert pixels_NCHW.dtype in (np.uint8, np.float32)
        assert pixels_NCHW.shape[2] == pixels_NCHW.shape[3]
        assert len(pixels_NCHW) == len(labels_N)
        self.pixels_NCHW = pixels_NCHW
        self.labels_N = labels_N
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.num_skipped = 0
        self._mean_C11 = np.array(mean, dtype=np.float32).reshape(-1, 1, 1)
        self._std_C11 = np.array(std, dtype=np.float32).reshape(-1, 1, 1)
        self._max_shift_px = max_shift_px
        self._flip = flip

    def _load(
        self, plan: list[npt.NDArray[np.int64]], draw: tuple[int, int] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        augmented = draw is not None and (self._max_shift_px > 0 or self._flip)
        if augmented:
            # Drawn for the whole split, whatever this rank's share of it is: an image's
            # augmentation then depends on its index alone, and any division among ranks gives the
            # same images.
            generator = np.random.default_rng((AUGMENT_STREAM, *(draw or ())))
            offsets_N2 = generator.integers(0, 2 * self._max_shift_px + 1, size=(len(self), 2))
            flips_N = generator.random(len(self)) < (0.5 if self._flip else 0.0)
        for indices_B in plan:
            pixels_BCHW = self.pixels_NCHW[indices_B]
            if augmented:
                offsets_B2, flips_B = offsets_N2[indices_B], flips_N[indices_B]
                pixels_BCHW = crop_and_flip(pixels_BCHW, offsets_B2, flips_B, self._max_shift_px)
            yield self._normalised(pixels_BCHW, indices_B)

    def _normalised(
        self, pixels_BCHW: Pixels, indices_B: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        images_BCHW = pixels_BCHW.astype(np.float32, order="C")
        if pixels_BCHW.dtype == np.uint8:
            images_BCHW /= 255
        images_BCHW -= self._mean_C11
        images_BCHW /= self._std_C11
        return torch.from_numpy(images_BCHW), torch.from_numpy(self.labels_N[indices_B])


def crop_and_flip(
    pixels_BCHW: Pixels,
    offsets_B2: npt.NDArray[np.int64],
    flips_B: npt.NDArray[np.bool_],
    padding_px: int,
) -> Pixels:
    """Pad every image with black, cut a window of the original size out of it, mirror some.

    Args:
        pixels_BCHW: images.
        offsets_B2: top and left edge of each window in the padded image, 0 to 2 * `padding_px`;
            `padding_px` itself leaves the image where it is.
        flips_B: the images to mirror from left to right, after the cut.
        padding_px: width of the black border.
    """
    border = (padding_px, padding_px)
    padded: Pixels = np.pad(pixels_BCHW, ((0, 0), (0, 0), border, border))
    # A view of every window there is, by image, channel, top and left edge; one of each is copied.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (1, 1, *pixels_BCHW.shape[2:]))
    rows_B, columns_B = offsets_B2.T
    cropped_BCHW: Pixels = windows[np.arange(len(padded)), :, rows_B, columns_B, 0, 0]
    cropped_BCHW[flips_B] = cropped_BCHW[flips_B, ..., ::-1]
    return cropped_BCHW


def resize(pixels_NCHW: Pixels, resolution: int) -> Pixels:
    """Antialiased bilinear resize to `resolution` pixels a side; uint8 stays uint8."""
    if pixels_NCHW.shape[-1] == resolution:
        return pixels_NCHW
    resized: Pixels = torch.nn.functional.interpolate(
        torch.from_numpy(pixels_NCHW),
        size=(resolution, resolution),
        mode="bilinear",
        antialias=True,
    ).numpy()
    return resized
