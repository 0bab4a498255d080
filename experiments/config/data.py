"""The `data` section: which images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from experiments.config.section import Section, one_of
from nas.data import DATASETS


class DataConfig(Section):
    """Which images; `root` and `num_workers` are places and speeds, the rest decides results."""

    name: Annotated[str, one_of("data set", tuple(DATASETS))] = Field(
        description=f"Data set: {', '.join(DATASETS)}."
    )
    root: str | None = Field(None, description="Folder of its files, where it is not embedded.")
    resolution: PositiveInt | None = Field(
        None, description="Image side in pixels; the data set's own if not given."
    )
    search_val_fraction: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="Share of the training images that search validates on, stratified."
    )
    augment: bool = Field(True, description="Whether training images are augmented.")
    max_train_images: PositiveInt | None = Field(
        None, description="Train on no more images than these."
    )
    split_seed: NonNegativeInt = Field(0, description="Seed of the split into train and search.")
    skip_unreadable: bool = Field(
        False, description="Leave out images that cannot be decoded, instead of failing."
    )
    num_workers: NonNegativeInt = Field(
        0, description="Processes that load images, for every worker."
    )
