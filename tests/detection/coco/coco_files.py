"""A data set of two images and three boxes, written by hand, and what tests break in it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 10, "file_name": "a.png", "width": 200, "height": 100},
        {"id": 20, "file_name": "inner/b.png", "width": 50, "height": 50},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 10,
            "category_id": 7,
            "bbox": [0, 0, 100, 100],
            "area": 10000,
            "iscrowd": 0,
            "segmentation": [[0, 0, 100, 0, 100, 100]],
        },
        {
            "id": 2,
            "image_id": 10,
            "category_id": 3,
            "bbox": [150, 50, 50.5, 50],
            "area": 2500.5,
            "iscrowd": 1,
        },
        {
            "id": 3,
            "image_id": 20,
            "category_id": 7,
            "bbox": [10, 10, 20, 20],
            "area": 400,
            "iscrowd": 0,
        },
    ],
    # Ids neither from 1 nor in order: the order of the list is what counts.
    "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}],
}


def document() -> dict[str, Any]:
    """A copy to be changed."""
    return copy.deepcopy(DOCUMENT)


def write_coco(folder: Path, content: Any) -> tuple[Path, Path]:
    """The annotation file and the image folder of a data set whose two images are there."""
    file = folder / "annotations.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    images = folder / "images"
    (images / "inner").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "inner/b.png"):
        (images / name).touch()
    return file, images
