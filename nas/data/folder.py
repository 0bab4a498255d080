"""Large data sets: image files decoded, augmented and batched as they are needed.

Augmentation is what SPOS trains ImageNet with: random resized crop, colour jitter, flip
(Guo et al., "Single Path One-Shot Neural Architecture Search", 2020, the code of the paper).

Legend: N images of the split, B of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.image_set import AUGMENT_STREAM, ImageSet
from nas.data.request import UnreadableImageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_JITTER = 0.4
# ImageNet's customary evaluation: resize the shorter side to 256, cut out the central 224.
_RESIZE_RATIO = 256 / 224
# Errors of the file itself; None is the decoder's own error. With any other errno (a stale handle,
# an I/O error) the storage failed, and another rank may succeed: leaving the image out would then
# make the ranks disagree.
_FILE_ERRNOS = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)
_DECODER_ERRORS = (
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)

_PROBE_BATCH_SIZE = 64

Batch = TypeVar("Batch")
Transform = Callable[[Image.Image], Tensor]


class FolderImageSet(ImageSet):
    """An `ImageSet` over image files.

    Args:
        paths_N: file names, as bytes.
        labels_N: class indices.
        resolution: side in pixels of the images in a batch.
        augment: augment training batches.
        num_workers: processes that decode; 0 decodes in this process.
        num_skipped: how many images the caller left out of `paths_N`.
    """

    def __init__(
        self,
        paths_N: npt.NDArray[np.bytes_],
        labels_N: npt.NDArray[np.int64],
        *,
        resolution: int,
        augment: bool,
        num_workers: int = 0,
        num_skipped: int = 0,
    ) -> None:
        assert len(paths_N) == len(labels_N)
        self.labels_N = labels_N
        self.mean = IMAGENET_MEAN
        self.std = IMAGENET_STD
        self.num_skipped = num_skipped
        self._paths_N = paths_N
        self._resolution = resolution
        self._augment = augment
        self._num_workers = num_workers

    def _load(
        self, plan: list[npt.NDArray[np.int64]], draw: tuple[int, int] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if draw is not None and self._augment:
            images = _Images(self._paths_N, train_transform(self._resolution), draw)
        else:
            images = _Images(self._paths_N, eval_transform(self._resolution), None)
        loader = _loader(images, plan, self._num_workers, _stack)
        for indices_B, images_BCHW in zip(plan, loader, strict=True):
            if isinstance(images_BCHW, UnreadableImageError):
                raise images_BCHW
            shape = (len(indices_B), 3, self._resolution, self._resolution)
            yield images_BCHW.view(shape), torch.from_numpy(self.labels_N[indices_B])


@dataclass(frozen=True)
class _Images(Dataset["Tensor | UnreadableImageError"]):
    """Decoded and transformed images by index, randomness by (seed, epoch, index).

    An unreadable image is returned, not raised: an exception that crosses from a worker process
    comes out with its traceback inside its message.
    """

    paths_N: npt.NDArray[np.bytes_]
    transform: Transform
    seed_epoch: tuple[int, int] | None

    def __getitem__(self, index: int) -> Tensor | UnreadableImageError:
        try:
            image = decode_image(os.fsdecode(self.paths_N[index]))
        except UnreadableImageError as error:
            return error
        if self.seed_epoch is None:
            return self.transform(image)
        entropy = np.random.SeedSequence((AUGMENT_STREAM, *self.seed_epoch, index))
        # torchvision's transforms draw from torch's CPU generator and accept no other: it is lent
        # to them with a state of this image's own, and comes back as it was. Seeded directly,
        # because torch.manual_seed would reseed the GPUs too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
            return self.transform(image)


def decode_image(path: str) -> Image.Image:
    """The image in a file, as RGB.

    Raises:
        UnreadableImageError: the file cannot be opened or decoded.
        OSError: the storage failed, which says nothing about the image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        if error.errno not in _FILE_ERRNOS:
            raise
        raise _unreadable(path, error) from error
    except _DECODER_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(
        f"cannot read the image {path} ({error}); replace or remove it, or choose "
        "skip_unreadable to leave such images out."
    )


def find_unreadable(paths_N: npt.NDArray[np.bytes_], *, num_workers: int) -> npt.NDArray[np.bool_]:
    """Which images cannot be decoded, by decoding each one: a header is not enough.

    Costs about what one epoch of evaluation without a network would.
    """
    images = _Images(paths_N, _discard, None)
    plan = np.array_split(np.arange(len(paths_N)), -(-len(paths_N) // _PROBE_BATCH_SIZE))
    return np.concatenate(list(_loader(images, plan, num_workers, _flag_unreadable)))


def _discard(_image: Image.Image) -> Tensor:
    return torch.empty(0)


def _stack(items: list[Tensor | UnreadableImageError]) -> Tensor | UnreadableImageError:
    """One batch, empty where there is no item, or the first of its images' errors."""
    images = []
    for item in items:
        if isinstance(item, UnreadableImageError):
            return item
        images.append(item)
    return torch.stack(images) if images else torch.empty(0)


def _flag_unreadable(items: list[Tensor | UnreadableImageError]) -> npt.NDArray[np.bool_]:
    return np.array([isinstance(item, UnreadableImageError) for item in items], dtype=np.bool_)


def _loader(
    images: _Images,
    plan: list[npt.NDArray[np.int64]],
    num_workers: int,
    collate: Callable[[list[Tensor | UnreadableImageError]], Batch],
) -> Iterable[Batch]:
    """`collate` of every batch of the plan, in order; it runs where the images are decoded."""
    return DataLoader(
        images,
        batch_sampler=[indices.tolist() for indices in plan],
        num_workers=num_workers,
        collate_fn=collate,
        # Its workers' seeds are not used, but without a generator it draws from the global one.
        generator=torch.Generator(),
    )


def train_transform(resolution: int) -> Transform:
    """Random resized crop, colour jitter, flip, normalisation: PIL image to float32 CHW."""
    from torchvision.transforms import v2

    return _compose(
        v2.RandomResizedCrop(resolution, antialias=True),
        v2.ColorJitter(brightness=_JITTER, contrast=_JITTER, saturation=_JITTER),
        v2.RandomHorizontalFlip(),
    )


def eval_transform(resolution: int) -> Transform:
    """Resize, central crop, normalisation: PIL image to float32 CHW."""
    from torchvision.transforms import v2

    return _compose(
        v2.Resize(round(resolution * _RESIZE_RATIO), antialias=True), v2.CenterCrop(resolution)
    )


def _compose(*steps: Callable[[Image.Image], Image.Image]) -> Transform:
    from torchvision.transforms import v2

    transform: Transform = v2.Compose(
        [
            *steps,
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return transform
