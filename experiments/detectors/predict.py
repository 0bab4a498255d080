"""Images in, images with boxes and COCO's results format out.

All images are opened before the detector is loaded, and the folder is there complete or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detection import mmdetection
from detection.coco.annotation_file import first_few, read_annotation_file
from detection.coco.drawing import draw_detections
from experiments.detectors.source import DetectorSource
from experiments.stages.detect import DETECTIONS
from orchestration.store.whole_folder import whole_folder

IMAGE_LIST = "images.json"
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


@dataclass(frozen=True)
class ImageFile:
    """An image: its file, its id in the results, and its size in pixels, upright."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Prediction:
    """What was detected.

    Attributes:
        folder: drawn images, `DETECTIONS` and `IMAGE_LIST`.
        images: in which it was detected.
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
            "images": [{"id": image.id, "file": image.file_name} for image in self.images],
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
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        images = [file for file in inside if file.suffix.lower() in _SUFFIXES]
        if path.is_dir() and not images:
            raise ValueError(f"The folder {path} holds no images: give files, or another folder.")
        files += images or [path]
    ids: Sequence[int] = range(1, len(files) + 1)
    if annotation_file is not None:
        listed = read_annotation_file(annotation_file).images
        names = Counter(Path(image["file_name"]).name for image in listed)
        given = Counter(file.name for file in files)
        ambiguous = [name for name in given if given[name] > 1 or names[name] > 1]
        if ambiguous:
            raise ValueError(
                f"Several images are called {first_few(ambiguous)}, here or in {annotation_file}, "
                "so that their ids cannot be told apart: give them one at a time, or without "
                "--annotations."
            )
        if unknown := [name for name in given if name not in names]:
            raise ValueError(
                f"{annotation_file} does not name {len(unknown)} of the {len(files)} images "
                f"({first_few(unknown)}): leave out --annotations, or give the file of these "
                "images."
            )
        id_of = {Path(image["file_name"]).name: int(image["id"]) for image in listed}
        ids = [id_of[file.name] for file in files]
    return tuple(
        ImageFile(number, str(file), *_size(file)) for number, file in zip(ids, files, strict=True)
    )


def predict_images(
    source: DetectorSource, images: Sequence[ImageFile], output: Path, *, threshold: float
) -> Prediction:
    """Detect objects in images and write them into a new folder; imports MMDetection.

    Args:
        source: the detector.
        images: to detect in.
        output: the folder to make.
        threshold: the lowest score that is drawn; the results have all of them.

    Raises:
        OSError: `output` holds something.
        WeightsError: the detector's weights do not fit.
    """
    from PIL import Image, ImageOps

    names = {int(category["id"]): str(category["name"]) for category in source.categories}
    with mmdetection():
        detector = source.load()
        detections = [
            {
                "image_id": image.id,
                "category_id": source.categories[one["label"]]["id"],
                "bbox": one["bbox"],
                "score": one["score"],
            }
            for image in images
            for one in detector.detect(image.file_name)
        ]
    with whole_folder(output) as folder:
        for image in images:
            its_own = [one for one in detections if one["image_id"] == image.id]
            with Image.open(image.file_name) as picture:
                upright = ImageOps.exif_transpose(picture)
                drawn = draw_detections(upright, its_own, names, threshold=threshold)
            drawn.save(folder / f"{image.id}_{Path(image.file_name).stem}.png")
        (folder / DETECTIONS).write_text(json.dumps(detections) + "\n", encoding="utf-8")
        listed = json.dumps([asdict(image) for image in images], indent=1)
        (folder / IMAGE_LIST).write_text(listed + "\n", encoding="utf-8")
    return Prediction(output, tuple(images), detections, names, threshold)


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
