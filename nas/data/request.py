"""What a user asks of a data set, as one checked value, and what can be wrong with its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIN_RESOLUTION_PX = 4


class MissingDataError(ValueError):
    """Files of a data set are not there; the message says which, where, and how to get them."""


class UnreadableImageError(ValueError):
    """An image file exists in the tree but cannot be decoded; the message names it."""


@dataclass(frozen=True)
class DataRequest:
    """Arguments of `load_data`, checked; see there for what each one means."""

    name: str
    root: str | None = None
    resolution: int | None = None
    search_val_fraction: float = 0.1
    augment: bool = True
    max_train_images: int | None = None
    split_seed: int = 0
    skip_unreadable: bool = False
    num_workers: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.search_val_fraction <= 0.5:
            raise ValueError(
                f"search_val_fraction is {self.search_val_fraction}; it must be above 0 and at "
                "most 0.5, the share of the training images that search is judged on."
            )
        if self.resolution is not None and self.resolution < MIN_RESOLUTION_PX:
            raise ValueError(
                f"resolution is {self.resolution} pixels; it must be at least {MIN_RESOLUTION_PX}, "
                "or left out for the data set's own."
            )
        if self.max_train_images is not None and self.max_train_images < 1:
            raise ValueError(
                f"max_train_images is {self.max_train_images}; it must be at least 1, or left out "
                "for all."
            )
        if self.split_seed < 0:
            raise ValueError(f"split_seed is {self.split_seed}; it must be 0 or more.")
        if self.num_workers < 0:
            raise ValueError(
                f"num_workers is {self.num_workers}; it must be 0 (decode in this process) or more."
            )

    @property
    def root_path(self) -> Path | None:
        """`root` as a path with `~` expanded, None where it was not given."""
        return None if self.root is None else Path(self.root).expanduser()
