"""Search spaces as data, and the encoding of architectures.

A search space is the ordered list of layers with their candidate operations, plus what does not
vary: stem, first block, head and the layers that are fixed to the identity. Every built-in space is
a YAML file under `nas/spaces/`; a user's own space is one more such file, and nothing else in the
project tells the two apart.

An architecture is one choice per layer: an immutable tuple of ints, −1 for a fixed identity. The
encoding is the one that the authors of BN-NAS published: kernel × expansion, the expansion running
fastest, so for kernels 3, 5, 7 and expansions 3, 6

    0 = k3 e3   1 = k3 e6   2 = k5 e3   3 = k5 e6   4 = k7 e3   5 = k7 e6

Shape legend: L layers, N candidate operations (the largest number of any layer).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

IDENTITY = -1

Architecture = tuple[int, ...]

_SPACES_FOLDER = Path(__file__).parent / "spaces"


@dataclass(frozen=True)
class Candidate:
    """One candidate operation: an MBConv with this depthwise kernel and expansion ratio."""

    kernel: int
    expansion: int

    def __str__(self) -> str:
        return f"k{self.kernel}e{self.expansion}"


@dataclass(frozen=True)
class Layer:
    """One searched position. `resolution` is the side of its input in pixels."""

    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    candidates: tuple[Candidate, ...]
    fixed_identity: bool = False

    @property
    def keeps_shape(self) -> bool:
        """Whether output and input have the same shape, so that a residual can be added."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def out_resolution(self) -> int:
        """Side of the output in pixels (odd kernels with 'same' padding)."""
        return downsampled(self.resolution, self.stride)


@dataclass(frozen=True)
class LayerGroup:
    """A run of layers with the same output channels; the first of them has the stride."""

    channels: int
    num_layers: int
    stride: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class SearchSpace:
    """A frozen search space; see the module's docstring.

    `in_channels`, `resolution` (pixels) and `num_classes` describe the images that the networks are
    built for; `for_images` adapts them to a data set and leaves the search space itself alone.
    """

    name: str
    in_channels: int
    resolution: int
    num_classes: int
    stem_channels: int
    stem_stride: int
    first_channels: int
    first_kernel: int
    first_stride: int
    groups: tuple[LayerGroup, ...]
    head_channels: int
    fixed_identities: tuple[int, ...] = ()
    se: bool = False

    def __post_init__(self) -> None:
        for index in self.fixed_identities:
            if not 0 <= index < len(self.layers):
                raise ValueError(
                    f"space {self.name!r}: fixed_identity names layer {index}, but the layers are "
                    f"numbered 0 to {len(self.layers) - 1}."
                )
            if not self.layers[index].keeps_shape:
                raise ValueError(
                    f"space {self.name!r}: layer {index} cannot be fixed to the identity, "
                    f"{_shape_change(self.layers[index])}."
                )

    def for_images(
        self,
        *,
        in_channels: int | None = None,
        resolution: int | None = None,
        num_classes: int | None = None,
    ) -> SearchSpace:
        """The same space for images of another shape or number of classes."""
        return replace(
            self,
            in_channels=self.in_channels if in_channels is None else in_channels,
            resolution=self.resolution if resolution is None else resolution,
            num_classes=self.num_classes if num_classes is None else num_classes,
        )

    @cached_property
    def first_resolution(self) -> int:
        """Side of the first block's input in pixels."""
        return downsampled(self.resolution, self.stem_stride)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The L searched layers in order, fixed identities included."""
        layers: list[Layer] = []
        channels = self.first_channels
        resolution = downsampled(self.first_resolution, self.first_stride)
        for group in self.groups:
            for position in range(group.num_layers):
                layer = Layer(
                    in_channels=channels,
                    out_channels=group.channels,
                    stride=group.stride if position == 0 else 1,
                    resolution=resolution,
                    candidates=group.candidates,
                    fixed_identity=len(layers) in self.fixed_identities,
                )
                layers.append(layer)
                channels, resolution = layer.out_channels, layer.out_resolution
        return tuple(layers)

    @cached_property
    def searched_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have a choice."""
        return tuple(i for i, layer in enumerate(self.layers) if not layer.fixed_identity)

    @cached_property
    def num_candidates(self) -> int:
        """N: the largest number of candidate operations of any layer."""
        return max(len(group.candidates) for group in self.groups)

    @cached_property
    def num_architectures(self) -> int:
        """Size of the space (exact, arbitrarily large)."""
        return math.prod(len(self.layers[index].candidates) for index in self.searched_layers)

    def validate(self, arch: Architecture) -> None:
        """Raise ValueError unless `arch` is an architecture of this space."""
        if len(arch) != len(self.layers):
            raise ValueError(
                f"the architecture has {len(arch)} choices, but space {self.name!r} has "
                f"{len(self.layers)} layers: give one index per layer, {IDENTITY} for a layer "
                f"fixed to the identity."
            )
        for index, (choice, layer) in enumerate(zip(arch, self.layers, strict=True)):
            num_choices = len(layer.candidates)
            if layer.fixed_identity and choice != IDENTITY:
                raise ValueError(
                    f"layer {index} of space {self.name!r} is fixed to the identity: "
                    f"expected {IDENTITY}, got {choice}."
                )
            if choice == IDENTITY and not layer.fixed_identity:
                reason = (
                    "the space does not fix it to the identity"
                    if layer.keeps_shape
                    else _shape_change(layer)
                )
                raise ValueError(
                    f"layer {index} of space {self.name!r} cannot be the identity ({IDENTITY}), "
                    f"{reason}: give an index from 0 to {num_choices - 1}."
                )
            if not layer.fixed_identity and not 0 <= choice < num_choices:
                raise ValueError(
                    f"layer {index} of space {self.name!r}: index {choice} is out of range, "
                    f"its candidate operations are numbered 0 to {num_choices - 1}."
                )

    def random_architecture(self, rng: np.random.Generator) -> Architecture:
        """One architecture, uniform over the space, without regard to any budget."""
        return tuple(
            IDENTITY if layer.fixed_identity else int(rng.integers(len(layer.candidates)))
            for layer in self.layers
        )

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data that `space_from_dict` reads back; what a fingerprint hashes."""
        return {
            "name": self.name,
            "input": {
                "channels": self.in_channels,
                "resolution": self.resolution,
                "num_classes": self.num_classes,
            },
            "stem": {"channels": self.stem_channels, "stride": self.stem_stride},
            "first_block": {
                "channels": self.first_channels,
                "kernel": self.first_kernel,
                "stride": self.first_stride,
            },
            "stages": [
                {
                    "channels": group.channels,
                    "layers": group.num_layers,
                    "stride": group.stride,
                    "candidates": [[c.kernel, c.expansion] for c in group.candidates],
                }
                for group in self.groups
            ],
            "head": {"channels": self.head_channels},
            "fixed_identity": list(self.fixed_identities),
            "se": self.se,
        }


def downsampled(resolution: int, stride: int) -> int:
    """Side in pixels after a 'same'-padded convolution of this stride."""
    return -(-resolution // stride)


def parse_architecture(text: str) -> Architecture:
    """Read an architecture in its published form: ints between spaces or commas.

    Brackets around the list are allowed, so `3 -1 0`, `3,-1,0` and `[3, -1, 0]` are the same.
    Raises ValueError on anything else.
    """
    words = re.split(r"[\s,]+", text.strip().strip("()[]").strip())
    words = [word for word in words if word]
    if not words:
        raise ValueError(
            "the architecture is empty: expected one index per layer, such as '3 -1 0'."
        )
    arch = []
    for word in words:
        if not re.fullmatch(r"[+-]?\d+", word):
            raise ValueError(
                f"{word!r} in the architecture {text!r} is not a whole number: expected one index "
                f"per layer between spaces or commas, such as '3 -1 0'."
            )
        arch.append(int(word))
    return tuple(arch)


def format_architecture(arch: Architecture) -> str:
    """The published form, which `parse_architecture` reads back."""
    return " ".join(str(choice) for choice in arch)


def built_in_spaces() -> tuple[str, ...]:
    """Names of the spaces that come with the project."""
    return tuple(sorted(path.stem for path in _SPACES_FOLDER.glob("*.yaml")))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A built-in space by name, or a user's space by the path of its YAML file.

    Raises ValueError when there is no such space or the file does not describe one.
    """
    return space_from_dict(_read_space(str(name_or_path)))


def _read_space(name_or_path: str, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A space's plain data with what it extends merged in; `children` extend this one."""
    import yaml

    known = built_in_spaces()
    if name_or_path in known:
        path = _SPACES_FOLDER / f"{name_or_path}.yaml"
    elif name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise ValueError(
                f"there is no space file {name_or_path!r}: give the path of a YAML file, "
                f"or one of the built-in spaces {', '.join(known)}."
            )
    else:
        near = difflib.get_close_matches(name_or_path, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown space {name_or_path!r}: the built-in spaces are {', '.join(known)}; an own "
            f"space is given as the path of a YAML file.{hint}"
        )
    if path.resolve() in children:
        raise ValueError(f"space file {path}: extends itself; remove one 'extends' of the circle.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"space file {path}: not valid YAML ({error}).") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"space file {path}: expected a mapping, got {type(data).__name__}; "
            f"nas/spaces/spos.yaml shows the form."
        )
    data.setdefault("name", path.stem)
    if "extends" in data:
        parent = str(data.pop("extends"))
        beside = path.parent / parent
        source = str(beside) if beside.is_file() else parent
        data = {**_read_space(source, (*children, path.resolve())), **data}
    return data


def space_from_dict(data: Mapping[str, Any]) -> SearchSpace:
    """Build a space from plain data, the content of a space's YAML file.

    Keys: name (optional); input {channels, resolution, num_classes}; stem {channels, stride};
    first_block {channels, kernel, stride}; candidates {kernels, expansions} or a list of [kernel,
    expansion]; stages, a list of layer groups {channels, layers, stride, candidates (optional)};
    head {channels}; fixed_identity (optional list of layer indices); se (optional,
    squeeze-and-excitation).
    Raises ValueError naming the key that is unknown, missing or of the wrong type.
    """
    fields = _Fields(dict(data), "space")
    name = fields.checked(
        "name", "a name", lambda value: isinstance(value, str) and value != "", "unnamed"
    )
    where = f"space {name!r}"
    fields.where = where
    image, stem, first, head = sections = [
        _Fields(fields.take(key), f"{where}: {key}")
        for key in ("input", "stem", "first_block", "head")
    ]
    shared = fields.take("candidates", None)
    entries = fields.checked(
        "stages",
        "a list with at least one layer group",
        lambda value: isinstance(value, list) and len(value) > 0,
    )
    groups = []
    for index, entry in enumerate(entries):
        group = _Fields(entry, f"{where}: stages[{index}]")
        groups.append(
            LayerGroup(
                channels=group.positive("channels"),
                num_layers=group.positive("layers"),
                stride=group.stride(),
                candidates=_candidates(group.take("candidates", shared), group.where),
            )
        )
        sections.append(group)
    fixed = fields.checked(
        "fixed_identity",
        "a list of 0-based layer indices",
        lambda value: isinstance(value, list) and all(type(index) is int for index in value),
        [],
    )
    se = fields.checked("se", "true or false", lambda value: isinstance(value, bool), False)
    space = SearchSpace(
        name=name,
        in_channels=image.positive("channels"),
        resolution=image.positive("resolution"),
        num_classes=image.positive("num_classes"),
        stem_channels=stem.positive("channels"),
        stem_stride=stem.stride(),
        first_channels=first.positive("channels"),
        first_kernel=first.checked(
            "kernel",
            "an odd number",
            lambda value: type(value) is int and value > 0 and value % 2 == 1,
        ),
        first_stride=first.stride(),
        groups=tuple(groups),
        head_channels=head.positive("channels"),
        fixed_identities=tuple(sorted(set(fixed))),
        se=se,
    )
    for section in (fields, *sections):
        section.close()
    return space


def _candidates(value: Any, where: str) -> tuple[Candidate, ...]:
    """From {kernels, expansions} (their product, expansions fastest) or a list of pairs."""
    if isinstance(value, dict):
        fields = _Fields(value, f"{where}: candidates")
        kernels, expansions = (
            fields.checked(key, "a list of ints", lambda value: isinstance(value, list))
            for key in ("kernels", "expansions")
        )
        fields.close()
        pairs = [[kernel, expansion] for kernel in kernels for expansion in expansions]
    elif isinstance(value, list):
        pairs = value
    else:
        raise ValueError(
            f"{where}: candidates are missing; give {{kernels: [3, 5, 7], expansions: [3, 6]}} "
            f"for the whole space or for this one."
        )
    if not pairs:
        raise ValueError(f"{where}: candidates must name at least one operation.")
    candidates = []
    for pair in pairs:
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(number) is int and number > 0 for number in pair)
            and pair[0] % 2 == 1
        ):
            raise ValueError(
                f"{where}: candidate {pair!r} must be [kernel, expansion] with an odd kernel and "
                f"an expansion of at least 1."
            )
        candidates.append(Candidate(kernel=pair[0], expansion=pair[1]))
    if len(set(candidates)) != len(candidates):
        raise ValueError(f"{where}: the same candidate operation is listed twice.")
    return tuple(candidates)


def _shape_change(layer: Layer) -> str:
    return (
        f"it changes the shape ({layer.in_channels} to {layer.out_channels} channels, "
        f"stride {layer.stride})"
    )


_REQUIRED: Any = object()


class _Fields:
    """Takes checked values out of a mapping; `close` refuses what is left over."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be a mapping, got {data!r}.")
        self.data = dict(data)
        self.where = where
        self.known: list[str] = []

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        self.known.append(key)
        if key in self.data:
            return self.data.pop(key)
        if default is _REQUIRED:
            near = difflib.get_close_matches(key, map(str, self.data), n=1)
            hint = f"; is {near[0]!r} meant to be it?" if near else "."
            raise ValueError(f"{self.where}: the key {key!r} is missing{hint}")
        return default

    def checked(
        self, key: str, expected: str, valid: Callable[[Any], bool], default: Any = _REQUIRED
    ) -> Any:
        value = self.take(key, default)
        if not valid(value):
            raise ValueError(f"{self.where}: {key} must be {expected}, got {value!r}.")
        return value

    def positive(self, key: str) -> int:
        number: int = self.checked(
            key, "a whole number above 0", lambda value: type(value) is int and value > 0
        )
        return number

    def stride(self) -> int:
        stride: int = self.checked(
            "stride", "1 or 2", lambda value: type(value) is int and value in (1, 2)
        )
        return stride

    def close(self) -> None:
        if self.data:
            raise ValueError(
                f"{self.where}: unknown key {next(iter(self.data))!r}; "
                f"the known keys are {', '.join(self.known)}."
            )
