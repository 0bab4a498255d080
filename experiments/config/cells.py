"""Experiments that belong together: they share all sections that their settings do not vary."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.config.cell import Config, StorageConfig, TrackingConfig


@dataclass(frozen=True)
class Cells:
    """Experiments that are made together.

    Attributes:
        cells: at least one, in the order in which they start.
    """

    cells: tuple[Config, ...]

    @property
    def shared(self) -> Config:
        """A cell, for the sections that all cells share: data, retrain, storage, cluster, …."""
        return self.cells[0]

    @property
    def storage(self) -> StorageConfig:
        """Where results lie."""
        return self.shared.storage

    @property
    def tracking(self) -> TrackingConfig:
        """Where they are shown."""
        return self.shared.tracking
