"""Detections drawn on their image: a box, the class's name and the score."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

_GOLDEN_RATIO = (5**0.5 - 1) / 2


def draw_detections(
    image: Image.Image,
    detections: Iterable[Mapping[str, Any]],
    class_names: Mapping[int, str],
    *,
    threshold: float = 0.3,
    min_side_px: int = 512,
) -> Image.Image:
    """A copy of an image with its detections on it, those with the highest scores on top.

    Args:
        image: of any mode; stays as it is.
        detections: of this image, as in COCO's results: ``bbox`` [x, y, width, height] in pixels,
            ``category_id`` and ``score``.
        class_names: category id → name.
        threshold: the lowest score that is drawn.
        min_side_px: smaller images are enlarged by a whole number, so that text can be read.

    Returns:
        An RGB image.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = max(1, -(-min_side_px // min(image.size)))
    enlarged = (image.width * scale, image.height * scale)
    canvas = image.convert("RGB").resize(enlarged, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    line_px = max(2, min(enlarged) // 256)
    font = ImageFont.load_default(size=max(12, min(enlarged) // 32))
    shown = [detection for detection in detections if detection["score"] >= threshold]
    for detection in sorted(shown, key=lambda detection: float(detection["score"])):
        category = detection["category_id"]
        colour = class_colour(category)
        x, y, width, height = (scale * value for value in detection["bbox"])
        # The pixels that the box covers: the last ones lie before its far edges.
        draw.rectangle(
            (x, y, max(x, x + width - 1), max(y, y + height - 1)), outline=colour, width=line_px
        )
        text = f"{class_names.get(category, f'category {category}')} {detection['score']:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        text_width, text_height = right - left + 2 * line_px, bottom - top + 2 * line_px
        # Above the box where there is room, and within the image in any case.
        text_x = max(0, min(x, canvas.width - text_width))
        text_y = y - text_height if y >= text_height else max(0, y)
        draw.rectangle(
            (text_x, text_y, text_x + text_width - 1, text_y + text_height - 1), fill=colour
        )
        red, green, blue = colour  # black or white text: weights of ITU-R BT.601
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
        draw.text((text_x + line_px - left, text_y + line_px - top), text, font=font, fill=ink)
    return canvas


def class_colour(category_id: int) -> tuple[int, int, int]:
    """A bright colour for a category, far from those of its neighbours and always the same."""
    hue = category_id * _GOLDEN_RATIO % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
