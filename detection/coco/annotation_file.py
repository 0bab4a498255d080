"""An annotation file in COCO's format: its lists, with every field that is read later on.

MMDetection's CocoDataset and pycocotools read these fields unchecked, and would stop in the middle
of a worker where one is not there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Entries = list[Entry]

_NUMBER = (int, float)
# list → field → its type, and what the message calls it
_FIELDS: dict[str, dict[str, tuple[type | tuple[type, ...], str]]] = {
    "images": {
        "id": (int, "a whole number"),
        "file_name": (str, "a path within the image folder"),
        "height": (_NUMBER, "a number of pixels"),
        "width": (_NUMBER, "a number of pixels"),
    },
    "annotations": {
        "id": (int, "a whole number"),
        "image_id": (int, "the id of an image"),
        "category_id": (int, "the id of a category"),
        "bbox": (list, "[x, y, width, height] in pixels"),
        "area": (_NUMBER, "the object's area in pixels, or its box's width × height"),
        "iscrowd": (int, "0, or 1 for a crowd"),
    },
    "categories": {
        "id": (int, "a whole number"),
        "name": (str, "the name of a class"),
    },
}


class CocoError(ValueError):
    """A data set in COCO's format cannot be used as it is; the message says how to mend it."""


@dataclass(frozen=True)
class AnnotationFile:
    """The content of an annotation file, without outlines of objects."""

    path: Path
    images: Entries
    annotations: Entries
    categories: Entries


def read_annotation_file(path: str | Path) -> AnnotationFile:
    """Read a file and check that its lists are complete in themselves.

    Raises:
        CocoError: no such file, not JSON, a list or field is missing, or an id is there twice.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as stream:
            # Outlines are most of COCO's 450 MB, and are not used here.
            document = json.load(stream, object_hook=_without_outline)
    except FileNotFoundError:
        raise CocoError(
            f"There is no annotation file {path}: give the data set's root, the folder that holds "
            "annotations/, or this file's own path."
        ) from None
    except OSError as error:
        raise CocoError(
            f"The annotation file {path} cannot be read ({error.strerror}): give a file that can."
        ) from error
    except ValueError as error:
        raise CocoError(
            f"{path} is not JSON ({error}): expected an annotation file in COCO's format, and a "
            "whole one: copy or download it again."
        ) from error
    lists = document if isinstance(document, dict) else {}
    missing = [key for key in _FIELDS if not isinstance(lists.get(key), list)]
    if missing:
        raise CocoError(
            f"{path} is not in COCO's format, it has no list of {' or of '.join(missing)}: "
            f"expected an object with the lists {', '.join(_FIELDS)}."
        )
    for key in _FIELDS:
        _check_entries(path, key, lists[key])
    return AnnotationFile(path, *(lists[key] for key in _FIELDS))


def first_few(items: Iterable[object]) -> str:
    """The first three of many, for a message."""
    names = [str(item) for item in items]
    return ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])


def _without_outline(entry: Entry) -> Entry:
    entry.pop("segmentation", None)
    return entry


def _check_entries(path: Path, key: str, entries: Entries) -> None:
    if not entries:
        raise CocoError(
            f"The list of {key} in {path} is empty: expected at least one image with one box of "
            "one category."
        )
    for field, (kind, meaning) in _FIELDS[key].items():
        wrong = [
            index
            for index, entry in enumerate(entries)
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kind)
        ]
        if wrong:
            raise CocoError(
                f"{len(wrong)} of the {len(entries)} {key} in {path} have no usable {field!r} "
                f"(places in the list, from 0: {first_few(wrong)}): expected {meaning}."
            )
    repeated = [name for name, times in Counter(e["id"] for e in entries).items() if times > 1]
    if repeated:
        raise CocoError(
            f"Several {key} in {path} have the same id ({first_few(repeated)}): give each its own."
        )
