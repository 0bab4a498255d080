"""What loads a retrained network inside an MLflow model, where this project is not installed.

This file travels in the model's folder with the few modules of `nas` that a network consists of,
so it imports nothing else of the project, and nothing that the model's requirements do not name.
MLflow calls `_load_pyfunc`, and its users the `predict` of what that returns.

Shape legend: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nas.network import Subnet
from nas.space import parse_architecture, space_from_dict


class SubnetModel:
    """A retrained network and what it was trained on.

    Attributes:
        network: the PyTorch module, in evaluation mode; move it where it shall compute.
        class_names: by the index of the logits.
        mean: per channel; `network` wants (pixels in 0..1 − mean) / std.
        std: per channel.
    """

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.class_names: tuple[str, ...] = tuple(described["class_names"])
        self.mean: tuple[float, ...] = tuple(described["mean"])
        self.std: tuple[float, ...] = tuple(described["std"])
        self.network = Subnet(
            space_from_dict(described["space"]), parse_architecture(described["arch"]), seed=0
        )
        weights = torch.load(folder / "network.pt", map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights, strict=True)
        self.network.eval()

    def predict(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits [B, K] of normalised images."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            logits_BK = self.network(torch.from_numpy(images_BCHW).to(device))
        logits: npt.NDArray[np.float32] = logits_BK.cpu().numpy()
        return logits

    def get_raw_model(self) -> SubnetModel:
        """This object, which MLflow's wrapper hides."""
        return self


def _load_pyfunc(path: str) -> SubnetModel:
    return SubnetModel(Path(path))
