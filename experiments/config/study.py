"""What `bnnas correlate` is asked for: the experiment of one cell, once for every seed."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.config.cells import Cells


@dataclass(frozen=True)
class Correlation(Cells):
    """A correlation study; its cells differ in the seed alone."""

    @property
    def name(self) -> str:
        """What the study is called."""
        return self.shared.name
