"""Configs with what every field means: the resolved one of a file, and `docs/config.md`.

python -m experiments.config.describe > docs/config.md
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from experiments.config.experiment import CellConfig, DetectorConfig, Experiment
from experiments.config.load import AXES

_WIDTH = 100
_INTRO = """\
# Fields of a config

Made from the descriptions in [`experiments/config/`](../experiments/config) by `python -m
experiments.config.describe > docs/config.md`. `bnnas config CONFIG` prints the resolved config of a
file with the same words.

A config is a YAML file. What it is, its sections say: with a `grid` it is a sweep, with `detect`
and no `supernet` a detector, with `correlate` a correlation study, and any other is a cell. Beside
the fields below, a file may have:

- `extends`: another config file, relative to this one, of which this is the difference. Sections
  are merged, any other value is replaced, and `null` takes a key back to its default.
- `grid`, of a sweep: axes with their values. `trainable`, `indicator` and `epochs` stand for
  `supernet.trainable`, `search.indicator` and `supernet.epochs`; any other axis is a path such as
  `supernet.lr`.
- `seeds`, of a sweep or a correlation study: everything is done once with each.
"""


def resolved_values(experiment: Experiment) -> dict[str, Any]:
    """The plain values that are read back to an equal experiment, with all defaults in them."""
    config = experiment.shared
    values = config.model_dump(mode="json")
    values["name"] = experiment.name
    if not experiment.is_study:
        values.pop("correlate", None)  # by which the file would be a study's
    if len({cell.search.searcher for cell in experiment.cells}) > 1:
        del values["search"]["searcher"]  # follows from each cell's indicator
    if experiment.axes:
        short = {path: name for name, path in AXES.items()}
        values["grid"] = {
            short.get(path, path): list(axis) for path, axis in experiment.axes.items()
        }
    seeds = list(dict.fromkeys(cell.seed for cell in experiment.cells))
    if experiment.is_study or len(seeds) > 1:
        values["seeds"] = seeds
    return values


def commented_yaml(experiment: Experiment) -> str:
    """The same as YAML, with what each field means."""
    model = CellConfig if experiment.cells else DetectorConfig
    return "\n".join([*_commented(model, resolved_values(experiment), ""), ""])


def _commented(model: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is not None and field.description:
            yield from _comment(field.description, indent)
        section = None if field is None else _section(field.annotation)
        if section is not None and isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _commented(section, value, indent + "  ")
        else:
            yield f"{indent}{name}: {_plain(value)}"


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - len(indent) - 2):
        yield f"{indent}# {line}"


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it is one."""
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def document() -> str:
    """`docs/config.md`."""
    parts = [_INTRO]
    parts += _documented("An experiment with a search", CellConfig, "", set())
    seen = {CellConfig.model_fields[name].annotation for name in CellConfig.model_fields}
    parts += _documented("A detector alone", DetectorConfig, "", seen)
    return "\n".join(parts)


def _documented(title: str, model: type[BaseModel], path: str, seen: set[Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{' '.join((model.__doc__ or '').split())}\n"
    yield "| field | default | meaning |\n|---|---|---|"
    sections = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        section = _section(field.annotation)
        if section is not None:
            shown = "" if default is not None else "null"
            sections.append((name, section, field.annotation))
        else:
            shown = "required" if default is PydanticUndefined else f"`{_plain(default)}`"
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{name}` | {shown} | {meaning} |"
    yield ""
    for name, section, annotation in sections:
        if annotation not in seen:
            yield from _documented(f"`{path}{name}`", section, f"{path}{name}.", seen)


def _plain(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, tuple):
        value = list(value)
    dumped: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return dumped.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    sys.stdout.write(document())
