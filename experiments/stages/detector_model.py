"""What loads a trained detector inside an MLflow model, where this project is not installed.

This file travels in the model's folder with the packages `detection` and `nas`, and imports nothing
else of the project. MLflow calls `_load_pyfunc`, and its users the `predict` of what that returns.

Shape legend: B images, H height, W width.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from detection import mmdetection


class DetectorModel:
    """A trained detector, in evaluation mode.

    Attributes:
        class_names: by the number of the label.
    """

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.class_names: tuple[str, ...] = tuple(described["class_names"])
        with mmdetection():
            from detection.inference import Detector
            from detection.recipe import detector_config

            config = detector_config(**described, data_root="data/coco")
            self._detector = Detector(config, folder / "detector.pt")

    def predict(self, images_BHWC: npt.NDArray[np.uint8]) -> pd.DataFrame:
        """The objects in RGB images [B, H, W, 3] of one size.

        Returns:
            A row for each object, the highest score of an image first: `image` (its number), `x`,
            `y`, `width`, `height` (pixels), `label`, `class_name`, `score`.
        """
        with mmdetection():
            rows = [
                {
                    "image": number,
                    **dict(zip(("x", "y", "width", "height"), found["bbox"], strict=True)),
                    "label": found["label"],
                    "class_name": self.class_names[found["label"]],
                    "score": found["score"],
                }
                for number, image_HWC in enumerate(images_BHWC)
                for found in self._detector.detect(image_HWC)
            ]
        columns = ["image", "x", "y", "width", "height", "label", "class_name", "score"]
        return pd.DataFrame(rows, columns=columns)


def _load_pyfunc(path: str) -> DetectorModel:
    return DetectorModel(Path(path))
