"""The verdict on one thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``ok``: as it should be. ``warn``: bnnas runs, but something optional is not there, or
    something is outside what was tested. ``missing``: a command will fail until it is mended.
    """

    name: str
    status: Status
    detail: str
    mend: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Plain values for ``json.dumps``."""
        return asdict(self)


def gigabytes(num_bytes: float) -> str:
    """A size for people, in units of 10^9 bytes."""
    return f"{num_bytes / 1e9:.1f} GB"
