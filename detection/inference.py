"""A trained detector, applied to images."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.registry import MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.registry import DefaultScope

from detection.weights import load_weights


class Detector:
    """A detector with its weights, in evaluation mode.

    Args:
        config: MMDetection's, as `detection.recipe.detector_config` makes it.
        weights: file with the state dict of the whole detector; every key has to fit.
        device: where to compute; a GPU where there is one, if not given.

    Raises:
        WeightsError: the weights cannot be read or do not fit.
    """

    def __init__(self, config: Config, weights: str | Path, device: str | None = None) -> None:
        with DefaultScope.overwrite_default_scope("mmdet"):
            self.network: Any = MODELS.build(deepcopy(config.model))  # it writes into it
        load_weights(self.network, weights)
        self.network.cfg = config
        self.network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()

    def detect(self, image: str | Path | npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
        """The objects in an image file, or in an RGB image [H, W, 3], the highest score first.

        Returns:
            ``{"label", "bbox": [x, y, width, height], "score"}`` for each: the class's number,
            counted from 0, and the box in the image's pixels.
        """
        with DefaultScope.overwrite_default_scope("mmdet"):
            if isinstance(image, np.ndarray):
                is_grey = len(self.network.data_preprocessor.mean) == 1
                order = cv2.COLOR_RGB2GRAY if is_grey else cv2.COLOR_RGB2BGR
                # A pipeline of its own: MMDetection would change the config for good.
                steps = deepcopy(get_test_pipeline_cfg(self.network.cfg))
                steps[0].type = "LoadImageFromNDArray"
                found = inference_detector(self.network, cv2.cvtColor(image, order), Compose(steps))
            else:
                found = inference_detector(self.network, str(image))
            instances = found.pred_instances.cpu()
        return [
            {"label": label, "bbox": [x, y, right - x, bottom - y], "score": score}
            for label, (x, y, right, bottom), score in zip(
                instances.labels.tolist(),
                instances.bboxes.tolist(),
                instances.scores.tolist(),
                strict=True,
            )
        ]

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """The state dict of the backbone alone; `SearchedBackbone` takes one as `checkpoint`."""
        state: dict[str, torch.Tensor] = self.network.backbone.state_dict()
        return state
