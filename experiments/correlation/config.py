"""What `bnnas correlate` is asked for: the experiment of one cell, once for every seed."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.config import Config, StorageConfig, TrackingConfig


@dataclass(frozen=True)
class Correlation:
    """A correlation study.

    Attributes:
        cells: the experiment with each seed; they differ in nothing else.
    """

    cells: tuple[Config, ...]

    @property
    def shared(self) -> Config:
        """The experiment with the first seed."""
        return self.cells[0]

    @property
    def name(self) -> str:
        """What the study is called."""
        return self.shared.name

    @property
    def storage(self) -> StorageConfig:
        """Where results lie."""
        return self.shared.storage

    @property
    def tracking(self) -> TrackingConfig:
        """Where they are shown."""
        return self.shared.tracking
