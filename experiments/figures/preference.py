"""What the BN indicator prefers: its score by kernel, by expansion and by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from experiments.figures.numbers import Mean
from experiments.figures.style import COLORS, SERIES, in_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"all": COLORS["accuracy"], "bn": COLORS["bn"], "last_bn": COLORS["random"]}
_MARKERS = {"all": "s", "bn": "o", "last_bn": "^"}
_APART = 0.14  # between the marks of one place, in units of its axis

# Trainable → kernel, expansion or layer → mean.
Means: TypeAlias = Mapping[str, Mapping[int, Mean]]


@in_style
def preference_figure(kernel: Means, expansion: Means, layer: Means) -> Figure:
    """Three panels, with a mark for each trainable; bars are the standard deviation over seeds.

    Of kernels and expansions they show shares of the layer's mean, of layers the score.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.6, 5.6)  # narrow, to be read on a phone
    axes = figure.subplot_mosaic([["kernel", "expansion"], ["layer", "layer"]])
    axes["expansion"].sharey(axes["kernel"])
    for name, by_trainable in (("kernel", kernel), ("expansion", expansion), ("layer", layer)):
        panel, is_layer = axes[name], name == "layer"
        places = sorted({place for means in by_trainable.values() for place in means})
        scale = 1 if is_layer else 100
        if not is_layer:
            panel.axhline(0, color=COLORS["front"], linewidth=0.8)
        for number, (trainable, means) in enumerate(by_trainable.items()):
            offset = _APART * (number - (len(by_trainable) - 1) / 2)
            panel.errorbar(
                list(means) if is_layer else [places.index(place) + offset for place in means],
                [scale * mean.value for mean in means.values()],
                yerr=[scale * mean.spread for mean in means.values()],
                marker=_MARKERS.get(trainable, "D"),
                markersize=6,
                linestyle="-" if is_layer else "",
                capsize=2.5,
                color=_COLORS.get(trainable, SERIES[2]),
                label=trainable,
            )
        panel.set_xlabel(name)
        if is_layer:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            panel.set_xticks(range(len(places)), [str(place) for place in places])
            panel.set_xlim(-0.5, len(places) - 0.5)
    axes["kernel"].set_ylabel("from the layer's mean (%)")
    axes["layer"].set_ylabel("mean |γ|")
    handles, labels = axes["layer"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, title="supernet trains")
    return figure
