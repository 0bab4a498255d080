"""What a detector found, drawn into its images: a sheet of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from experiments.figures.style import in_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS, _SIDE_IN = 4, 1.6


@in_style
def detections_figure(images: Sequence[bytes]) -> Figure:
    """PNGs in rows of four."""
    num_rows = math.ceil(len(images) / _COLUMNS)
    figure = new_figure(_SIDE_IN * _COLUMNS, _SIDE_IN * num_rows)
    panels = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, image in zip(panels, images, strict=False):
        with PIL.Image.open(io.BytesIO(image)) as opened:
            axes.imshow(np.asarray(opened.convert("RGB")), interpolation="antialiased")
    return figure
