"""A small data set in COCO's format, made on the spot of real digit scans.

It shows a detector work in minutes, without a download: scenes with digits of varied size and
place, partly over each other, on varied backgrounds. Everything lies where COCO's own files do,
so one ``data_root`` serves for either. Training scenes hold scans of the ``digits`` data set's
training images, validation scenes those of its test images: what a backbone was trained on is never
what its detector is judged by.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from detection.coco.annotation_file import CocoError
from detection.coco.scene import Scene, draw_scene

_PARAMETERS_FILE = "scenes.json"
PARAMETERS = ("num_train", "num_val", "image_size", "seed")  # of `make_digit_scenes`
FORMAT = 1  # counts up when equal parameters give other scenes
_MIN_IMAGE_PX = 32


def make_digit_scenes(
    root: str | Path,
    *,
    num_train: int = 200,
    num_val: int = 50,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Make the data set under `root`, complete or not at all; one that is there is used again.

    Scene i of a split is a function of (seed, i) and `image_size`: a larger set begins with the
    smaller one's scenes. Categories are "0" to "9" with the ids 1 to 10.

    Args:
        root: the folder to make, with ``annotations/instances_{train,val}2017.json`` and the grey
            images in ``train2017/`` and ``val2017/``.
        num_train: training scenes.
        num_val: validation scenes.
        image_size: height and width of a scene, pixels.
        seed: of everything that is random.

    Returns:
        The folder.

    Raises:
        CocoError: an argument is out of range, or `root` holds something else or cannot be written.
    """
    root = Path(root).expanduser().absolute()
    parameters = {
        "format": FORMAT,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": image_size,
        "seed": seed,
    }
    minima = {"num_train": 1, "num_val": 1, "image_size": _MIN_IMAGE_PX, "seed": 0}
    for name, least in minima.items():
        if parameters[name] < least:
            raise CocoError(
                f"{name} of the digit scenes is {parameters[name]}: give at least {least}."
            )
    if _is_complete(root, parameters):
        return root
    part = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
        _write(part, parameters)
        part.rename(root)  # in one step: complete or not at all
    except OSError as error:
        if _is_complete(root, parameters):
            return root  # another process was faster
        raise CocoError(
            f"The digit scenes cannot be written to {root} ({error.strerror}): give another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def _is_complete(root: Path, parameters: dict[str, int]) -> bool:
    """Whether `root` is the set that the parameters describe; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        present = json.loads((root / _PARAMETERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CocoError(
            f"{root} holds something else than digit scenes: give a folder that is empty or does "
            "not exist."
        ) from None
    if present != parameters:
        theirs, ours = (
            ", ".join(f"{name}={value}" for name, value in each.items())
            for each in (present, parameters)
        )
        raise CocoError(
            f"{root} holds digit scenes made with {theirs}, not with {ours}: ask for the same "
            "ones, delete the folder or give another one."
        )
    return True


def _write(folder: Path, parameters: dict[str, int]) -> None:
    from nas.data.digits import read_digits

    digits = read_digits()
    (folder / "annotations").mkdir()
    splits = (
        ("train2017", digits.train_NCHW, digits.train_labels_N, parameters["num_train"]),
        ("val2017", digits.test_NCHW, digits.test_labels_N, parameters["num_val"]),
    )
    for stream, (split, scans_NCHW, labels_N, num_scenes) in enumerate(splits):
        scans_N88 = scans_NCHW[:, 0].astype(np.float32)
        scenes = [
            draw_scene(
                scans_N88,
                labels_N,
                parameters["image_size"],
                np.random.default_rng((stream, parameters["seed"], number)),
            )
            for number in range(num_scenes)
        ]
        _write_split(folder, split, scenes, digits.class_names)
    (folder / _PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1) + "\n", "utf-8")


def _write_split(
    folder: Path, split: str, scenes: list[Scene], class_names: tuple[str, ...]
) -> None:
    from PIL import Image

    (folder / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes, start=1):
        file_name = f"{image_id:012d}.png"
        image = Image.fromarray(scene.pixels())
        image.save(folder / split / file_name)
        images.append(
            {"id": image_id, "file_name": file_name, "height": image.height, "width": image.width}
        )
        for digit in scene.digits:
            x, y, width, height = digit.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": digit.label + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {"description": "Scenes of scikit-learn's digit scans"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(class_names)],
    }
    target = folder / "annotations" / f"instances_{split}.json"
    target.write_text(json.dumps(document) + "\n", encoding="utf-8")
