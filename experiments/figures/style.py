"""How figures look: one palette that colour-blind readers can tell apart, quiet axes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_P = ParamSpec("_P")
_T = TypeVar("_T")

# Okabe & Ito's palette, by the role that a colour has in every figure.
COLORS = {
    "exact": "#D55E00",
    "evolution": "#0072B2",
    "random": "#009E73",
    "train": "#999999",
    "val": "#0072B2",
    "test": "#D55E00",
    "front": "#333333",
    "bn": "#0072B2",
    "accuracy": "#E69F00",
}
# For what has no role of its own.
SERIES = ("#56B4E9", "#009E73", "#CC79A7", "#F0E442")
MARKERS = {"exact": "*", "evolution": "o", "random": "s"}

_RC: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
}


# Matplotlib's settings are global: one thread draws at a time.
_DRAWING = threading.Lock()


def in_style(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Run `draw` with this style; nothing of matplotlib's global state changes outside of it."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import matplotlib as mpl  # only who draws waits for it

        with _DRAWING, mpl.rc_context(_RC):
            return draw(*args, **kwargs)

    return styled


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that belongs to no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


# Neither the time of day nor a version is written, so that equal data give equal files.
_METADATA: dict[str, Any] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


@in_style
def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG or PDF, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata=_METADATA[path.suffix])
    return path
