"""Images in, images with boxes and COCO's results format out.

All images are looked at before the detector is loaded, and the folder is there complete or not at
all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.coco.annotation_file import first, read_annotation_file
from detection.coco.drawing import draw_detections
from detection.quiet import quiet
from experiments.detectors.source import DetectorSource
from experiments.stages.detect import DETECTIONS
from orchestration.store.whole_folder import whole_folder

IMAGE_LIST = "images.json"
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


@dataclass(frozen=True)
class ImageFile:
    """An image to look at.

    Attributes:
        path: of the file.
        id: what the results call it.
        width: pixels.
        height: pixels.
    """

    path: Path
    id: int
    width: int
    height: int


@dataclass(frozen=True)
class Prediction:
    """What was detected.

    Attributes:
        folder: drawn images, `DETECTIONS` and `IMAGE_LIST`.
        images: what was looked at.
        detections: one ``{"image_id", "category_id", "bbox", "score"}`` for each.
        class_names: category id → name.
        threshold: the lowest score that was drawn.
    """

    folder: Path
    images: tuple[ImageFile, ...]
    detections: list[dict[str, Any]]
    class_names: dict[int, str]
    threshold: float

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """The detections that were drawn."""
        return [one for one in self.detections if one["score"] >= self.threshold]

    def to_json(self) -> dict[str, Any]:
        """What `bnnas detect predict --json` prints."""
        return {
            "status": "done",
            "folder": str(self.folder),
            "images": [{"id": image.id, "file": str(image.path)} for image in self.images],
            "num_detections": len(self.detections),
            "num_drawn": len(self.drawn),
            "detections": str(self.folder / DETECTIONS),
        }


def image_files(
    paths: Sequence[Path], annotation_file: Path | None = None
) -> tuple[ImageFile, ...]:
    """The images of files and folders, numbered from 1, or as an annotation file numbers them.

    Raises:
        ValueError: there is no such file, it is no image, or the annotation file does not name it.
    """
    files = list(_expand(paths))
    ids = None
    if annotation_file is not None:
        content = read_annotation_file(annotation_file)
        named = Counter(Path(image["file_name"]).name for image in content.images)
        given = Counter(file.name for file in files)
        twice = [name for name in given if given[name] > 1 or named[name] > 1]
        if twice:
            raise ValueError(
                f"Several images are called {first(twice)}, here or in {annotation_file}, so that "
                "their ids cannot be told apart: give them one at a time, or without --annotations."
            )
        ids = {Path(image["file_name"]).name: int(image["id"]) for image in content.images}
        if unknown := [file.name for file in files if file.name not in ids]:
            raise ValueError(
                f"{annotation_file} does not name {len(unknown)} of the {len(files)} images "
                f"({first(unknown)}): leave out --annotations, or give the file of these images."
            )
    found = []
    for number, file in enumerate(files, start=1):
        width, height = _size(file)
        found.append(ImageFile(file, number if ids is None else ids[file.name], width, height))
    return tuple(found)


def predict_images(
    source: DetectorSource, images: Sequence[ImageFile], output: Path, *, threshold: float
) -> Prediction:
    """Detect objects in images and write what was found into a new folder; imports MMDetection.

    Args:
        source: the detector.
        images: what is looked at.
        output: the folder to make.
        threshold: the lowest score that is drawn; the results have all of them.

    Raises:
        OSError: `output` holds something.
        WeightsError: the detector's weights do not fit.
    """
    from PIL import Image, ImageOps

    names = {int(category["id"]): str(category["name"]) for category in source.categories}
    with quiet():
        detector = source.load()
        found = [
            {
                "image_id": image.id,
                "category_id": source.categories[one["label"]]["id"],
                "bbox": one["bbox"],
                "score": one["score"],
            }
            for image in images
            for one in detector.detect(image.path)
        ]
    with whole_folder(output) as folder:
        for image in images:
            ours = [one for one in found if one["image_id"] == image.id]
            with Image.open(image.path) as picture:
                upright = ImageOps.exif_transpose(picture)
                drawn = draw_detections(upright, ours, names, threshold=threshold)
            drawn.save(folder / f"{image.id}_{image.path.stem}.png")
        (folder / DETECTIONS).write_text(json.dumps(found) + "\n", encoding="utf-8")
        listed = [
            {
                "id": image.id,
                "file_name": str(image.path),
                "width": image.width,
                "height": image.height,
            }
            for image in images
        ]
        (folder / IMAGE_LIST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return Prediction(output, tuple(images), found, names, threshold)


def _expand(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise ValueError(f"The folder {path} holds no images: give files, or another folder.")
        yield from files


def _size(file: Path) -> tuple[int, int]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image).size  # as the detector turns it, too
    except FileNotFoundError:
        raise ValueError(
            f"There is no image {file}: give the path of a file or a folder."
        ) from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image ({error}): leave it out.") from None
