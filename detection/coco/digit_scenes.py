"""A small data set in COCO's format, made on the spot of real digit scans.

It shows a detector work in minutes, without a download: scenes with digits of varied size and
place, partly over each other, on varied backgrounds. Everything lies where COCO's own files do,
so one ``data_root`` serves for either. Training scenes hold scans of the ``digits`` data set's
training images, validation scenes those of its test images: what a backbone was trained on is never
what its detector is judged by.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detection.coco.annotation_file import CocoError
from detection.coco.scene import Scene, draw_scene

_MADE_WITH = "scenes.json"  # what a folder was made with
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
    lowest = {"num_train": 1, "num_val": 1, "image_size": _MIN_IMAGE_PX, "seed": 0}
    for name, least in lowest.items():
        if parameters[name] < least:
            raise CocoError(
                f"{name} of the digit scenes is {parameters[name]}: give at least {least}."
            )
    if _is_made(root, parameters):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{root.name}-", dir=root.parent, ignore_cleanup_errors=True
        ) as part:
            Path(part).chmod(0o755)
            _write(Path(part), parameters)
            Path(part).rename(root)  # in one step: complete or not at all
    except OSError as error:
        if _is_made(root, parameters):
            return root  # somebody else was quicker
        raise CocoError(
            f"The digit scenes cannot be written to {root} ({error.strerror}): give another folder."
        ) from error
    return root


def _is_made(root: Path, parameters: dict[str, int]) -> bool:
    """Whether `root` is the set that the parameters describe; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        present = json.loads((root / _MADE_WITH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CocoError(
            f"{root} holds something else than digit scenes: give a folder that is empty or does "
            "not exist."
        ) from None
    if present != parameters:
        raise CocoError(
            f"{root} holds digit scenes made with {_said(present)}, not with {_said(parameters)}: "
            "ask for the same ones, delete the folder or give another one."
        )
    return True


def _said(parameters: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


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
    (folder / _MADE_WITH).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")


def _write_split(
    folder: Path, split: str, scenes: list[Scene], class_names: tuple[str, ...]
) -> None:
    (folder / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes, start=1):
        file_name = f"{image_id:012d}.png"
        pixels_HW = scene.pixels()
        _save(folder / split / file_name, pixels_HW)
        height, width = pixels_HW.shape
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for digit in scene.digits:
            x, y, digit_width, digit_height = digit.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": digit.label + 1,
                    "bbox": [x, y, digit_width, digit_height],
                    "area": digit_width * digit_height,
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


def _save(path: Path, pixels_HW: npt.NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(pixels_HW).save(path)
