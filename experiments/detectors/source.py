"""A trained detector, wherever it lies: a detect stage in the storage, or an exported folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.places import StorageConfig
from experiments.config.section import ConfigError
from experiments.plan.find_stage import FINGERPRINT, find_stage
from experiments.stages.detect import DETECTOR, network_arguments
from orchestration.store.stage_store import StageRecord, StageStore

if TYPE_CHECKING:
    from detection.inference import Detector

CARD = "model_card.json"


@dataclass(frozen=True)
class DetectorSource:
    """What a trained detector consists of.

    Attributes:
        stage: the config of its detect stage.
        categories: id and name of every class, in the order in which the detector numbers them.
        pixels: mean and standard deviation of what the backbone is fed.
        weights: file with the state dict.
    """

    stage: Mapping[str, Any]
    categories: Sequence[Mapping[str, Any]]
    pixels: Mapping[str, list[float]]
    weights: Path

    @classmethod
    def of_stage(cls, record: StageRecord, storage: str, folder: Path) -> DetectorSource:
        """The detector of a stage, with its weights fetched into a folder."""
        weights = StageStore(storage).fetch(record, DETECTOR, folder / DETECTOR)
        return cls(record.config, record.result["categories"], record.result["pixels"], weights)

    def runner_config(self) -> Any:
        """MMDetection's config, with COCO's customary folder as its data root; imports it."""
        from detection.recipe import detector_config

        arguments = network_arguments(self.stage, self.categories, self.pixels)
        return detector_config(**arguments, data_root="data/coco")

    def load(self) -> Detector:
        """The network; imports MMDetection. Raises WeightsError where the weights do not fit."""
        from detection.inference import Detector

        return Detector(self.runner_config(), self.weights)


@contextmanager
def open_source(checkpoint: str, storage: str | None) -> Iterator[DetectorSource]:
    """Find a detector.

    Args:
        checkpoint: fingerprint of a detect stage, or the first 8 digits of it or more; or a folder
            that `bnnas detect export` has written.
        storage: where stages lie.

    Raises:
        ConfigError: there is no such detector.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        storage = storage or StorageConfig().path
        record = find_detector(checkpoint, storage)
        with tempfile.TemporaryDirectory(prefix="detector-") as temporary:
            yield DetectorSource.of_stage(record, storage, Path(temporary))
        return
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        source = DetectorSource(
            card["stage"], card["categories"], card["pixels"], folder / DETECTOR
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The folder {folder} has no {CARD} that says what detector is in it: give what 'bnnas "
            "detect export' has written."
        ) from error
    yield source


def find_detector(checkpoint: str, storage: str) -> StageRecord:
    """The detect stage with a fingerprint; raises ConfigError where there is none."""
    if not FINGERPRINT.fullmatch(checkpoint):
        raise ConfigError(
            f"The checkpoint is {checkpoint!r}, and there is no such folder: give what 'bnnas "
            "detect export' has written, or at least 8 digits of the fingerprint of a detect stage."
        )
    return find_stage(checkpoint, "detect", storage)
