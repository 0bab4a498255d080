"""What the BN indicator prefers: its score by kernel, by expansion and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments.figures.style import COLORS, SERIES, in_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {"all": COLORS["accuracy"], "bn": COLORS["bn"], "last_bn": COLORS["random"]}
_MARKERS = {"all": "s", "bn": "o", "last_bn": "^"}
_APART = 0.14  # between the marks of one place, in units of its axis


class Spread(NamedTuple):
    """A mean over seeds and its standard deviation, 0 for a single seed."""

    mean: float
    std: float


class Preference(NamedTuple):
    """Of one trainable: shares of the layer's mean by kernel and expansion, scores by layer."""

    by_kernel: Mapping[int, Spread]
    by_expansion: Mapping[int, Spread]
    by_layer: Mapping[int, Spread]


@in_style
def preference_figure(preferences: Mapping[str, Preference]) -> Figure:
    """Three panels, with a mark for each trainable; bars are the standard deviation over seeds."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.6, 5.6)  # narrow, to be read on a phone
    axes = figure.subplot_mosaic([["kernel", "expansion"], ["layer", "layer"]])
    axes["expansion"].sharey(axes["kernel"])
    trainables = list(preferences)
    for name, field in (("kernel", "by_kernel"), ("expansion", "by_expansion")):
        panel = axes[name]
        panel.axhline(0, color=COLORS["front"], linewidth=0.8)
        places = sorted({key for each in preferences.values() for key in getattr(each, field)})
        for number, trainable in enumerate(trainables):
            spreads = getattr(preferences[trainable], field)
            offset = _APART * (number - (len(trainables) - 1) / 2)
            mine = [place for place in places if place in spreads]
            _draw(
                panel,
                [places.index(place) + offset for place in mine],
                [Spread(*(100 * value for value in spreads[place])) for place in mine],
                trainable,
                line="",
            )
        panel.set_xticks(range(len(places)), [str(place) for place in places])
        panel.set_xlim(-0.5, len(places) - 0.5)
        panel.set_xlabel(name)
    axes["kernel"].set_ylabel("from the layer's mean (%)")
    for trainable in trainables:
        spreads = preferences[trainable].by_layer
        _draw(axes["layer"], list(spreads), list(spreads.values()), trainable, line="-")
    axes["layer"].set_xlabel("layer")
    axes["layer"].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes["layer"].set_ylabel("mean |γ|")
    handles, labels = axes["layer"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, title="supernet trains")
    return figure


def _draw(
    axes: Axes, x: Sequence[float], spreads: Sequence[Spread], trainable: str, *, line: str
) -> None:
    axes.errorbar(
        x,
        [spread.mean for spread in spreads],
        yerr=[spread.std for spread in spreads],
        marker=_MARKERS.get(trainable, "D"),
        markersize=6,
        linestyle=line,
        capsize=2.5,
        color=_COLORS.get(trainable, SERIES[2]),
        label=trainable,
    )
