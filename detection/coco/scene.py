"""One scene: digits over a background.

Legend: N scans, H height, W width; pixels are 0 (black) to 1 until they become bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

_MAX_DIGITS = 6
_MIN_DIGIT_PX = 16
_MAX_DIGIT_SHARE = 0.7  # of the scene's side
_MAX_COVERED = 0.2  # of the smaller one of two boxes
_TRIES = 20
# A digit ends where its ink falls below this: a box is tight around what can be seen.
INK = 0.25


@dataclass(frozen=True, eq=False)
class Digit:
    """A digit and its place in the scene.

    Attributes:
        label: 0 to 9.
        x: pixels left of it.
        y: pixels above it.
        ink_HW: how much it covers what is behind it, 0 to 1; reaches `INK` on all four sides.
        grey: its colour.
    """

    label: int
    x: int
    y: int
    ink_HW: FloatArray
    grey: float

    @property
    def box(self) -> Box:
        """x, y, width and height, pixels."""
        height, width = self.ink_HW.shape
        return self.x, self.y, width, height


@dataclass(frozen=True, eq=False)
class Scene:
    """A background and the digits on it, the first one undermost."""

    background_HW: FloatArray
    digits: tuple[Digit, ...]

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The picture, [H, W]."""
        canvas_HW = self.background_HW.copy()
        for digit in self.digits:
            x, y, width, height = digit.box
            under_HW = canvas_HW[y : y + height, x : x + width]
            under_HW += digit.ink_HW * (np.float32(digit.grey) - under_HW)
        return np.rint(canvas_HW * 255).astype(np.uint8)


def draw_scene(
    scans_N88: FloatArray, labels_N: npt.NDArray[np.int64], side_px: int, rng: np.random.Generator
) -> Scene:
    """One to six digits of the scans, where they find room.

    Digits are brighter than their background, as they are in the scans that a backbone has seen.
    """
    background_HW = _draw_background(side_px, rng)
    darkest_ink = float(background_HW.max()) + 0.25
    digits: list[Digit] = []
    for _ in range(rng.integers(1, _MAX_DIGITS + 1)):
        scan = int(rng.integers(len(scans_N88)))
        # Even over the logarithm: as many digits between 16 and 32 pixels as between 32 and 64.
        limits_px = (_MIN_DIGIT_PX, _MAX_DIGIT_SHARE * side_px)
        size_px = math.exp(rng.uniform(*np.log(limits_px)))
        ink_HW = _enlarge(scans_N88[scan], size_px, stretch=rng.uniform(0.85, 1.15))
        grey = rng.uniform(darkest_ink, 1.0)
        for _ in range(_TRIES):
            digit = Digit(
                label=int(labels_N[scan]),
                x=int(rng.integers(side_px - ink_HW.shape[1] + 1)),
                y=int(rng.integers(side_px - ink_HW.shape[0] + 1)),
                ink_HW=ink_HW,
                grey=grey,
            )
            if all(covered(digit.box, other.box) <= _MAX_COVERED for other in digits):
                digits.append(digit)
                break
    return Scene(background_HW, tuple(digits))


def covered(one: Box, other: Box) -> float:
    """What two boxes share, as a fraction of the smaller one."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height) / min(one[2] * one[3], other[2] * other[3])


def _enlarge(scan_88: FloatArray, size_px: float, stretch: float) -> FloatArray:
    """A scan's ink with its longer side at about `size_px`, firm edges and nothing around it."""
    scale = size_px / max(_trim(scan_88).shape)
    # With a margin, strokes at the scan's edge end as round as those within.
    scan_HW = np.pad(scan_88, 1)
    height, width = scan_HW.shape
    smooth_HW = _resize(scan_HW, round(height * scale), round(width * scale * stretch))
    return _trim(np.clip((smooth_HW - 0.3) / 0.3, 0, 1).astype(np.float32))


def _trim(ink_HW: FloatArray) -> FloatArray:
    rows, columns = (np.flatnonzero((ink_HW >= INK).any(axis=axis)) for axis in (1, 0))
    return ink_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _draw_background(side_px: int, rng: np.random.Generator) -> FloatArray:
    """One grey, a slope or a smooth texture, with a little noise of a camera; 0 to 0.6."""
    level = rng.uniform(0.1, 0.4)
    kind = rng.integers(3)
    if kind == 0:
        shape_HW: FloatArray = np.zeros((side_px, side_px), dtype=np.float32)
    elif kind == 1:
        angle = rng.uniform(0, 2 * math.pi)
        along = np.linspace(-0.5, 0.5, side_px)
        shape_HW = (math.cos(angle) * along[None, :] + math.sin(angle) * along[:, None]).astype(
            np.float32
        )
    else:
        cells = int(rng.integers(3, 12))
        coarse = rng.uniform(-0.5, 0.5, (cells, cells)).astype(np.float32)
        shape_HW = _resize(coarse, side_px, side_px)
    noise_HW = rng.normal(0, rng.uniform(0, 0.03), (side_px, side_px))
    contrast = rng.uniform(0.1, 0.4)
    return np.clip(level + contrast * shape_HW + noise_HW, 0, 0.6).astype(np.float32)


def _resize(values_HW: FloatArray, height: int, width: int) -> FloatArray:
    from PIL import Image

    resized = Image.fromarray(values_HW).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)
