"""Whether a data set in COCO's format can be trained on, before any worker starts.

A missing image would stop a worker an hour into its first epoch; classes in another order, or
boxes given by their corners, would not stop it at all and train another detector than meant.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.coco.annotation_file import (
    AnnotationFile,
    CocoError,
    Entry,
    first_few,
    read_annotation_file,
)

# COCO's own train2017 has 2 boxes of no area among its 860,001 (annotation 918 is one) and is used
# as it is. In a set of fewer than 10,000 boxes, every single one has to be right.
_MAX_BAD_BOXES = 1e-4
_TOLERANCE_PX = 1.0  # boxes around outlines end on the far edge of a pixel, and are rounded
_MIN_SIDE_PX = 32  # smaller images do not train, as in MMDetection's recipes for COCO


@dataclass(frozen=True)
class CocoSummary:
    """What a data set holds, once it is known to be usable.

    Attributes:
        num_images: images, those without any box included.
        num_trainable: images with a good box and no side below 32 pixels, which are those that
            train.
        num_objects: good boxes but for those around a crowd, which no detection is compared with.
        class_names: in the file's order, which is how MMDetection numbers them.
        category_ids: in the same order.
    """

    num_images: int
    num_trainable: int
    num_objects: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def check_coco(
    annotation_file: str | Path,
    image_folder: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    max_bad_boxes: float = _MAX_BAD_BOXES,
) -> CocoSummary:
    """Check one split of a data set: the file that describes it, and that its images are there.

    Args:
        annotation_file: such as ``annotations/instances_train2017.json``.
        image_folder: what the ``file_name`` entries of that file are relative to.
        class_names: what the categories must be, in this order; None takes any. For the second
            split give the first one's, so that both number their classes alike.
        max_bad_boxes: the fraction of boxes that may have no area or lie outside their image.

    Raises:
        CocoError: the first thing that is wrong.
    """
    content = read_annotation_file(annotation_file)
    _check_images(content, Path(image_folder))
    _check_references(content)
    names = _check_categories(content, class_names)
    good = _good_boxes(content, max_bad_boxes)
    too_small = {
        image["id"]
        for image in content.images
        if min(image["width"], image["height"]) < _MIN_SIDE_PX
    }
    return CocoSummary(
        num_images=len(content.images),
        num_trainable=len({entry["image_id"] for entry in good} - too_small),
        num_objects=sum(not entry["iscrowd"] for entry in good),
        class_names=names,
        category_ids=tuple(category["id"] for category in content.categories),
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
        subfolder, name = os.path.split(image["file_name"])
        if subfolder not in present:
            try:
                with os.scandir(folder / subfolder) as entries:
                    present[subfolder] = {entry.name for entry in entries if entry.is_file()}
            except (FileNotFoundError, NotADirectoryError):
                present[subfolder] = set()
        if name not in present[subfolder]:
            missing.append(image["file_name"])
    if missing:
        raise CocoError(
            f"{len(missing)} of the {len(content.images)} images that {content.path} names are not "
            f"in {folder} ({first_few(missing)}): put them there, or give the folder that holds "
            "them."
        )


def _check_references(content: AnnotationFile) -> None:
    for field, entries in (("image_id", content.images), ("category_id", content.categories)):
        known = {entry["id"] for entry in entries}
        unknown = [entry["id"] for entry in content.annotations if entry[field] not in known]
        if unknown:
            raise CocoError(
                f"{len(unknown)} of the {len(content.annotations)} annotations in {content.path} "
                f"have a {field!r} that is in no list (annotation ids {first_few(unknown)}): list "
                "what they refer to, or remove them."
            )


def _check_categories(content: AnnotationFile, expected: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the categories, in the file's order."""
    names = tuple(category["name"] for category in content.categories)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise CocoError(
            f"Several categories in {content.path} have the same name ({first_few(repeated)}): "
            "classes are told apart by their names, so give each its own."
        )
    if expected is None or names == tuple(expected):
        return names
    differences = (
        ("it has no", [name for name in expected if name not in names]),
        ("not expected are", [name for name in names if name not in expected]),
    )
    phrases = [f"{what} {first_few(which)}" for what, which in differences if which]
    if not phrases:
        raise CocoError(
            f"The categories in {content.path} are the expected classes in another order "
            f"({first_few(names)} instead of {first_few(expected)}): MMDetection numbers classes "
            "in the file's order, so use one order everywhere."
        )
    raise CocoError(
        f"The categories in {content.path} are not the {len(expected)} expected classes "
        f"({'; '.join(phrases)}): name the same classes in every file."
    )


def _good_boxes(content: AnnotationFile, max_bad: float) -> list[Entry]:
    """The annotations with good boxes, where nearly all are good."""
    image_of = {image["id"]: image for image in content.images}
    good: list[Entry] = []
    bad: dict[str, list[int]] = {}
    for entry in content.annotations:
        problem = _box_problem(entry, image_of[entry["image_id"]])
        if problem is None:
            good.append(entry)
        else:
            bad.setdefault(problem, []).append(entry["id"])
    if len(content.annotations) - len(good) > max_bad * len(content.annotations):
        phrases = [
            f"{len(ids)} {problem} (annotation ids {first_few(ids)})"
            for problem, ids in sorted(bad.items())
        ]
        raise CocoError(
            f"Of the {len(content.annotations)} boxes in {content.path}, {' and '.join(phrases)}: "
            "expected [x, y, width, height] in pixels, neither corners nor fractions; correct or "
            "remove them."
        )
    return good


def _box_problem(entry: Entry, image: Entry) -> str | None:
    numbers = [*entry["bbox"], entry["area"]]
    if (
        len(numbers) != 5
        or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
        or min(numbers[2:]) <= 0
    ):
        return "have no area"
    x, y, width, height = entry["bbox"]
    if (
        min(x, y) < -_TOLERANCE_PX
        or x + width > image["width"] + _TOLERANCE_PX
        or y + height > image["height"] + _TOLERANCE_PX
    ):
        return "reach outside their image"
    if max(x + width, y + height) <= 1:  # all of them, if boxes are given in fractions
        return "lie within the first pixel"
    return None
