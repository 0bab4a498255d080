"""What is wrong with a data set in COCO's format, said before any worker starts.

A missing image would stop a worker an hour into its first epoch; classes in another order, or
boxes given by their corners, would not stop it at all and train another detector than meant.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.coco.annotation_file import (
    AnnotationFile,
    CocoError,
    Entry,
    first,
    read_annotation_file,
)

__all__ = ["MAX_BAD_BOXES", "CocoError", "CocoSummary", "check_coco"]

# COCO's own train2017 has 2 boxes of no area among its 860,001 (annotation 918 is one) and is used
# as it is. In a set of fewer than 10,000 boxes, every single one has to be right.
MAX_BAD_BOXES = 1e-4

# Boxes around outlines end on the far edge of a pixel, and are rounded.
_TOLERANCE_PX = 1.0
MIN_SIDE_PX = 32  # smaller images do not train, as in MMDetection's recipes for COCO
_MEDIUM_AREA, _LARGE_AREA = 32**2, 96**2  # where COCO's sizes begin, square pixels


@dataclass(frozen=True)
class CocoSummary:
    """What a data set holds, once it is known to be usable.

    Attributes:
        num_images: images, those without any box included.
        num_trainable: images with a good box and no side below 32 pixels, which are those that
            train.
        num_boxes: good boxes, crowds included.
        num_crowds: those around a group, which no detection is compared with.
        num_bad_boxes: boxes of no area or not in their image, few enough to go on.
        class_names: in the file's order, which is how MMDetection numbers them.
        category_ids: theirs, in the same order.
        boxes_per_class: good boxes of each class, in the same order.
        num_small: good boxes of objects with an area below 32² pixels.
        num_medium: those between.
        num_large: those of 96² pixels and more.
    """

    num_images: int
    num_trainable: int
    num_boxes: int
    num_crowds: int
    num_bad_boxes: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    boxes_per_class: Mapping[str, int]
    num_small: int
    num_medium: int
    num_large: int


def check_coco(
    annotation_file: str | Path,
    image_folder: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    max_bad_boxes: float = MAX_BAD_BOXES,
) -> CocoSummary:
    """Check one split of a data set: the file that describes it, and that its images are there.

    Args:
        annotation_file: such as ``annotations/instances_train2017.json``.
        image_folder: what the ``file_name`` entries of that file are relative to.
        class_names: what the categories must be, in this order; None takes any. For the second
            split give the first one's, so that both number their classes alike.
        max_bad_boxes: the fraction of boxes that may have no area or lie outside their image.

    Raises:
        CocoError: the first thing found to be wrong.
    """
    content = read_annotation_file(annotation_file)
    _check_images(content, Path(image_folder))
    _check_references(content)
    names = _check_categories(content, class_names)
    bad = _check_boxes(content, max_bad_boxes)
    good = [entry for entry in content.annotations if entry["id"] not in bad]
    name_of = {category["id"]: category["name"] for category in content.categories}
    boxes_of = Counter(name_of[entry["category_id"]] for entry in good)
    tiny = {
        image["id"]
        for image in content.images
        if min(image["width"], image["height"]) < MIN_SIDE_PX
    }
    num_small = sum(entry["area"] < _MEDIUM_AREA for entry in good)
    num_large = sum(entry["area"] >= _LARGE_AREA for entry in good)
    return CocoSummary(
        num_images=len(content.images),
        num_trainable=len({entry["image_id"] for entry in good} - tiny),
        num_boxes=len(good),
        num_crowds=sum(bool(entry.get("iscrowd")) for entry in good),
        num_bad_boxes=len(bad),
        class_names=names,
        category_ids=tuple(category["id"] for category in content.categories),
        boxes_per_class={name: boxes_of[name] for name in names},
        num_small=num_small,
        num_medium=len(good) - num_small - num_large,
        num_large=num_large,
    )


def _check_images(content: AnnotationFile, folder: Path) -> None:
    """Every image is there; each folder is listed once, which a network drive can bear."""
    if not folder.is_dir():
        raise CocoError(
            f"There is no image folder {folder}: give the one with the images that {content.path} "
            "names."
        )
    present: dict[str, set[str]] = {}
    missing = []
    for image in content.images:
        inner, name = os.path.split(image["file_name"])
        if inner not in present:
            present[inner] = _file_names(folder / inner)
        if name not in present[inner]:
            missing.append(image["file_name"])
    if missing:
        raise CocoError(
            f"{len(missing)} of the {len(content.images)} images that {content.path} names are not "
            f"in {folder} ({first(missing)}): put them there, or give the folder that holds them."
        )


def _file_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as found:
            return {file.name for file in found if file.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _check_references(content: AnnotationFile) -> None:
    for field, entries in (("image_id", content.images), ("category_id", content.categories)):
        known = {entry["id"] for entry in entries}
        strays = [entry for entry in content.annotations if entry[field] not in known]
        if strays:
            raise CocoError(
                f"{len(strays)} of the {len(content.annotations)} annotations in {content.path} "
                f"have a {field!r} that is in no list (annotation ids "
                f"{first(entry['id'] for entry in strays)}): list what they refer to, or remove "
                "them."
            )


def _check_categories(content: AnnotationFile, expected: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the categories, in the file's order."""
    names = tuple(category["name"] for category in content.categories)
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise CocoError(
            f"Several categories in {content.path} have the same name ({first(twice)}): classes "
            "are told apart by their names, so give each its own."
        )
    if expected is None or names == tuple(expected):
        return names
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if not missing and not extra:
        raise CocoError(
            f"The categories in {content.path} are the expected classes in another order "
            f"({first(names)} instead of {first(expected)}): MMDetection numbers classes in the "
            "file's order, so use one order everywhere."
        )
    differences = (("it has no", missing), ("not expected are", extra))
    said = [f"{what} {first(which)}" for what, which in differences if which]
    raise CocoError(
        f"The categories in {content.path} are not the {len(expected)} expected classes "
        f"({'; '.join(said)}): name the same classes in every file."
    )


def _check_boxes(content: AnnotationFile, max_bad: float) -> set[int]:
    """The ids of annotations with bad boxes, where these are few enough."""
    image_of = {image["id"]: image for image in content.images}
    flat, outside, fractions = [], [], []
    for entry in content.annotations:
        if not _has_area(entry):
            flat.append(entry["id"])
        elif not _is_inside(entry["bbox"], image_of[entry["image_id"]]):
            outside.append(entry["id"])
        elif _looks_like_fractions(entry["bbox"]):
            fractions.append(entry["id"])
    bad = {*flat, *outside, *fractions}
    if len(bad) > max_bad * len(content.annotations):
        found = (
            ("have no area", flat),
            ("reach outside their image", outside),
            ("lie within the first pixel", fractions),
        )
        said = [f"{len(ids)} {what} (annotation ids {first(ids)})" for what, ids in found if ids]
        raise CocoError(
            f"Of the {len(content.annotations)} boxes in {content.path}, {' and '.join(said)}: "
            "expected [x, y, width, height] in pixels, neither corners nor fractions; correct or "
            "remove them."
        )
    return bad


def _has_area(entry: Entry) -> bool:
    measures = [*entry["bbox"], entry["area"]]
    return (
        len(measures) == 5
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in measures)
        and min(measures[2:]) > 0
    )


def _is_inside(box: list[float], image: Entry) -> bool:
    x, y, width, height = box
    return (
        min(x, y) >= -_TOLERANCE_PX
        and x + width <= image["width"] + _TOLERANCE_PX
        and y + height <= image["height"] + _TOLERANCE_PX
    )


def _looks_like_fractions(box: list[float]) -> bool:
    """A box given in fractions of its image would all be in the image's first pixel."""
    x, y, width, height = box
    return max(x + width, y + height) <= 1
