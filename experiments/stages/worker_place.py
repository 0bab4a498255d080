"""Where workers find what their stage reads, and the names of the files that they leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from experiments.config.data import DataConfig
from experiments.config.experiment import AnyConfig

if TYPE_CHECKING:
    from nas.data import DataSplits


# The network's state_dict in a checkpoint and among a stage's files.
WEIGHTS = "network.pt"
# What a network is fed, beside the weights of a retrained one: one normalised search-validation
# image [1, C, H, W], and its data set's class names and normalisation.
EXAMPLE = "example.npy"
IMAGES = "images.json"


@dataclass(frozen=True)
class WorkerPlace:
    """What the workers of a stage must know and what cannot change its result; plain values.

    Attributes:
        storage_path: where stages lie.
        data_root: folder of the images.
        num_loaders: processes that load images, for every worker.
        supernet: fingerprint of the one whose weights are scored.
        checkpoint_minutes: how much of a training an interruption may cost at most.
    """

    storage_path: str
    data_root: str | None = None
    num_loaders: int = 0
    supernet: str | None = None
    checkpoint_minutes: float = 10.0

    @classmethod
    def of(cls, config: AnyConfig) -> WorkerPlace:
        """That of an experiment, whose paths are resolved where workers stand elsewhere."""
        place = cls(config.storage.path, checkpoint_minutes=config.cluster.checkpoint_minutes)
        if config.data is None:
            return place
        return replace(place, data_root=config.data.root, num_loaders=config.data.num_workers)


def load_images(data: DataConfig, place: WorkerPlace) -> DataSplits:
    """The images of a stage: what they are is in its content, where they lie is not."""
    from nas.data import load_data

    places = {"root": place.data_root, "num_workers": place.num_loaders}
    return load_data(**{**data.model_dump(), **places})
