"""What a detector is trained on: its identity, its place, and whether it is usable.

All of it happens in the process that starts the job, without torch or MMDetection. Arguments called
`data` have the fields of a config's `detect.data` section.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.coco.annotation_file import CocoError
from detection.coco.check import CocoSummary, check_coco
from detection.coco.digit_scenes import FORMAT, PARAMETERS, make_digit_scenes

_LAYOUT = (
    "detect.data.root has to be a folder in COCO's layout, with "
    "annotations/instances_train2017.json and instances_val2017.json."
)


def annotation_file(root: str | Path, split: str) -> Path:
    """Where COCO's layout has the annotations of a split, ``train`` or ``val``."""
    return Path(root) / "annotations" / f"instances_{split}2017.json"


def image_folder(root: str | Path, split: str) -> Path:
    """Where it has the images."""
    return Path(root) / f"{split}2017"


def data_identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """What of the data decides a detector's result, wherever they lie.

    Raises:
        CocoError: an annotation file cannot be read.
    """
    if data["name"] == "digit_scenes":
        return {"name": data["name"], "format": FORMAT, **scene_parameters(data)}
    files = {
        split: annotation_file(Path(data["root"]).expanduser(), split) for split in ("train", "val")
    }
    return {
        "name": data["name"],
        "annotations": {split: file_digest(file, _LAYOUT) for split, file in files.items()},
    }


def scene_parameters(data: Mapping[str, Any]) -> dict[str, int]:
    """The arguments of `make_digit_scenes` among a section's fields."""
    return {name: data[name] for name in PARAMETERS}


def data_root(data: Mapping[str, Any], results: Path) -> Path:
    """The folder of a data set; scenes lie beside the results if not said otherwise."""
    if data["root"] is not None:
        return Path(data["root"]).expanduser().absolute()
    parameters = "-".join(str(value) for value in scene_parameters(data).values())
    return results / f"digit-scenes-{parameters}"


@dataclass(frozen=True)
class DetectionImages:
    """A data set that was checked and is usable: its folder, and what its two splits hold."""

    root: Path
    train: CocoSummary
    val: CocoSummary

    @property
    def categories(self) -> list[dict[str, Any]]:
        """Id and name of every class, in the order in which the detector numbers them."""
        pairs = zip(self.val.category_ids, self.val.class_names, strict=True)
        return [{"id": number, "name": name} for number, name in pairs]


def prepare_images(data: Mapping[str, Any], batch_size: int, results: Path) -> DetectionImages:
    """Check both splits of a data set, digit scenes being made first where they are not there.

    Raises:
        CocoError: what is wrong, in one sentence; also when a batch is larger than the set.
    """
    root = data_root(data, results)
    if data["name"] == "digit_scenes":
        make_digit_scenes(root, **scene_parameters(data))
    train = check_coco(annotation_file(root, "train"), image_folder(root, "train"))
    val = check_coco(annotation_file(root, "val"), image_folder(root, "val"), train.class_names)
    if batch_size > train.num_trainable:
        raise CocoError(
            f"detect.batch_size is {batch_size}, but only {train.num_trainable} images in "
            f"{annotation_file(root, 'train')} have boxes to train on: give at most that."
        )
    if val.num_objects == 0:
        raise CocoError(
            f"{annotation_file(root, 'val')} has no object to find, so that there is nothing to "
            "evaluate: annotate single objects (iscrowd 0) in the validation images."
        )
    return DetectionImages(root, train, val)


def file_digest(path: Path, remedy: str) -> str:
    """SHA-256 of a file's content.

    Raises:
        CocoError: it cannot be read; the sentence ends with `remedy`.
    """
    try:
        stat = path.stat()
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise CocoError(f"{path} cannot be read ({error.strerror}): {remedy}") from error


@functools.lru_cache  # every cell of a sweep asks
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
