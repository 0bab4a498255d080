"""Reading a config file: YAML, what it extends, overrides, and one sentence for what is wrong.

An unknown key, a wrong type or an impossible combination names the field, before any cluster is
touched. What a file is, its sections say: one with a `grid` is a sweep, one with `detect` and no
`supernet` a detector, one with `correlate` a correlation study, and any other a cell.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from experiments.config.experiment import AnyConfig, CellConfig, DetectorConfig, Experiment
from experiments.config.section import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)
# The short names of a grid's axes; any other axis is a config path.
AXES = {
    "trainable": "supernet.trainable",
    "indicator": "search.indicator",
    "epochs": "supernet.epochs",
}
# What changes no result, or is an axis in another way (`seeds`, `name`), cannot be swept.
_NO_AXES = ("name", "seed", "storage", "tracking", "cluster", "detect", "correlate")


def load_experiment(
    path: str | Path, overrides: Sequence[str] = (), *, as_study: bool = False
) -> Experiment:
    """Read a YAML file, apply `key.path=value` overrides, and validate.

    A `space` that is a path is taken relative to the file. With `as_study`, the file of one cell is
    the correlation study of its supernet. Raises ConfigError with one sentence.
    """
    values = read_values(path, overrides)
    if "grid" in values:
        if as_study:
            raise ConfigError(
                f"{path} has a grid, and a correlation study asks about one supernet: give the "
                "file of one cell."
            )
        return _sweep(path, values)
    if "detect" in values and "supernet" not in values:
        return _detector(path, values)
    if as_study or "correlate" in values:
        return _study(path, values)
    return _single_cell(path, values)


def load_detector(
    path: str | Path | None, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Experiment:
    """The config of a detector, or without a file what `given` and the overrides say.

    `given` are values of the command line's own options; they replace those of the file.
    """
    values = {} if path is None else _read_file(Path(path), ())
    if "supernet" in values:
        raise ConfigError(
            f"{path} is an experiment with a search, which ends in detection where it has a detect "
            "section: 'bnnas run' starts it. For a detector alone, name its backbone: space and "
            "arch, or the checkpoint of its retrain stage."
        )
    _override(values, overrides, None if path is None else Path(path))
    return _detector(path or "bnnas detect", values | dict(given or {}))


def dump_config(config: AnyConfig) -> str:
    """The resolved config as YAML that is read back to an equal value.

    A `correlate` section that nobody gave is left out, because the file of a cell would become that
    of a study by it.
    """
    left_out = {"correlate"} - config.model_fields_set
    return yaml.safe_dump(config.model_dump(mode="json", exclude=left_out), sort_keys=False)


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a file on top of those that it extends, with overrides; not validated yet."""
    values = _read_file(Path(path), ())
    _override(values, overrides, Path(path))
    return values


def _override(values: dict[str, Any], overrides: Sequence[str], path: Path | None) -> None:
    for override in overrides:
        _apply_override(values, override)
        if path is not None and override.startswith("space="):
            _resolve_space(values, path)


def _resolve_space(values: dict[str, Any], path: Path) -> None:
    """Take a space that is a file relative to the config file that names it."""
    space = values.get("space")
    if isinstance(space, str) and (path.parent / space).is_file():
        values["space"] = str(path.parent / space)


def _read_file(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    if not path.is_file():
        by = f", which {extending[-1]} extends" if extending else ""
        raise ConfigError(
            f"there is no config file {str(path)!r}{by}: give the path of a YAML file."
        )
    if path.resolve() in extending:
        raise ConfigError(f"{path} extends itself, by way of {extending[-1]}: end the circle.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({problem}).") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys such as space and data, got "
            f"{type(values).__name__}."
        )
    _resolve_space(values, path)
    if (base := values.pop("extends", None)) is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends is {base!r}: expected the path of another config file.")
    return _merged(_read_file(path.parent / base, (*extending, path.resolve())), values)


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`: sections are merged, any other value is replaced; null removes."""
    merged = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merged[key] = _merged(base[key], value)
        else:
            merged[key] = value
    return merged


def _single_cell(path: str | Path, values: dict[str, Any]) -> Experiment:
    if _seeds(path, values.pop("seeds", None)):
        raise ConfigError(
            f"{path} has seeds, which sweeps and correlation studies are repeated with, and is "
            "one cell: give it one seed, a grid, or a correlate section."
        )
    cell = _validate(path, CellConfig, values)
    return Experiment("run", cell.name, (cell,))


def _study(path: str | Path, values: dict[str, Any]) -> Experiment:
    seeds = _seeds(path, values.pop("seeds", None))
    given = [{**values, "seed": seed} for seed in seeds] if seeds else [values]
    cells = tuple(_validate(path, CellConfig, each) for each in given)
    return Experiment("correlate", cells[0].name, cells)


def _detector(path: str | Path, values: dict[str, Any]) -> Experiment:
    if not isinstance(values.get("detect"), dict) or "data" not in values["detect"]:
        raise ConfigError(
            f"{path}: there is nothing to detect on, because detect.data is missing: name a config "
            "that has it, or add --set detect.data.root=FOLDER for a folder in COCO's layout, or "
            "--set detect.data.name=digit_scenes."
        )
    config = _validate(path, DetectorConfig, values)
    return Experiment("detect", config.name, detector=config)


def _sweep(path: str | Path, values: dict[str, Any]) -> Experiment:
    """A grid of cells, which share all that their axes do not vary (section 4.5.1, Fig. 5)."""
    grid = values.pop("grid") or {}
    seeds = _seeds(path, values.pop("seeds", None))
    if not isinstance(grid, dict) or all(axis is None for axis in grid.values()):
        raise ConfigError(
            f"{path}: the grid is empty: name trainable, indicator, epochs or a config path such "
            "as supernet.lr in it."
        )
    axes = {}
    for name, axis in grid.items():
        field = AXES.get(name, str(name))
        _check_axis(path, str(name), field)
        if axis is not None:
            axes[field] = _each_once(path, f"grid.{name}", axis)
    cells = []
    for point in _points(axes, seeds):
        cell = _validate(path, CellConfig, _at_point(values, point))
        cells.append(cell.model_copy(update={"name": _cell_name(cell, axes, len(seeds) > 1)}))
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{path}: several cells would be called {', '.join(sorted(twice))}.")
    return Experiment("sweep", str(values["name"]), tuple(cells), axes=axes)


def _check_axis(path: str | Path, name: str, field: str) -> None:
    section: type[BaseModel] = CellConfig
    *sections, last = field.split(".")
    if (sections[:1] and sections[0] in _NO_AXES) or field in _NO_AXES:
        raise ConfigError(
            f"{path}: grid.{name} cannot be an axis, because cells differ in nothing by it: sweep "
            "a field of data, supernet, search or retrain, and repeat with seeds."
        )
    for part in (*sections, last):
        if part not in section.model_fields:
            known = ", ".join([*AXES, "or a config path such as supernet.lr"])
            near = difflib.get_close_matches(part, section.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {known}."
            raise ConfigError(f"{path}: grid.{name} is no field of a config: {hint}")
        if part != last:
            section = _section_at(section, (part,))


def _points(
    axes: Mapping[str, tuple[Any, ...]], seeds: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """The values of every cell's axes.

    Cells that share a supernet lie apart, so that those that start together start different ones;
    of these the longest come first, so that none is left over for the end.
    """
    late = ("supernet.epochs", "supernet.trainable")
    shared = [field for field in axes if field.startswith(("search.", "retrain."))]
    others = [field for field in axes if field not in (*shared, *late)]
    ordered: dict[str, Sequence[Any]] = {field: axes[field] for field in shared}
    if seeds:
        ordered["seed"] = seeds
    if "supernet.epochs" in axes:
        epochs = axes["supernet.epochs"]
        are_numbers = all(isinstance(each, int) for each in epochs)
        ordered["supernet.epochs"] = sorted(epochs, reverse=True) if are_numbers else epochs
    ordered |= {field: axes[field] for field in (*others, *late[1:]) if field in axes}
    for point in itertools.product(*ordered.values()):
        yield dict(zip(ordered, point, strict=True))


def _at_point(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a cell's experiment, from those that all cells share."""
    cell = dict(values)
    for field, value in point.items():
        *sections, last = field.split(".")
        section = cell
        for name in sections:
            inner = section.get(name)
            if inner is not None and not isinstance(inner, dict):
                return cell  # no section at all: the experiment's own validation says so
            section[name] = dict(inner or {})
            section = section[name]
        section[last] = value
    return cell


def value_at(cell: CellConfig, field: str) -> Any:
    """The value of a config path."""
    value: Any = cell
    for part in field.split("."):
        value = getattr(value, part)
    return value


def _cell_name(cell: CellConfig, axes: Mapping[str, Any], with_seed: bool) -> str:
    """Such as `bn-accuracy-10`: what trains, what ranks, epochs; a file name and a run name."""
    name = f"{cell.supernet.trainable}-{cell.search.indicator}-{cell.supernet.epochs}"
    for field in axes:
        if field not in AXES.values():
            name += f"-{field.rpartition('.')[2]}{value_at(cell, field)}".replace("/", "_")
    return f"{name}-seed{cell.seed}" if with_seed else name


def _seeds(path: str | Path, seeds: Any) -> tuple[int, ...]:
    if seeds is None:
        return ()
    numbers = _each_once(path, "seeds", seeds)
    if any(type(seed) is not int or seed < 0 for seed in numbers):
        raise ConfigError(f"{path}: seeds is {seeds!r}: expected whole numbers of at least 0.")
    return numbers


def _each_once(path: str | Path, name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{path}: {name} is {values!r}: expected a list of at least one value.")
    if twice := sorted({str(value) for value in values if values.count(value) > 1}):
        raise ConfigError(
            f"{path}: {name} names {', '.join(twice)} more than once, which would be equal cells."
        )
    return tuple(values)


def _validate(path: str | Path, model: type[_Model], values: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, model)}") from None


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {override!r}: expected key=value, such as --set supernet.epochs=30."
        )
    sections, last = key.split(".")[:-1], key.split(".")[-1]
    if key.startswith("grid."):  # whose axes are paths themselves
        sections, last = ["grid"], key.removeprefix("grid.")
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        if not isinstance(data[section], dict):
            raise ConfigError(
                f"--set {override!r}: {section!r} is a value and not a section, "
                f"so that {key!r} is no field of the config."
            )
        # A copy, because two sections that share a YAML anchor are one object.
        data[section] = dict(data[section])
        data = data[section]
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value.") from error


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All problems in one sentence: the field, what was given, what is expected."""
    text = "; ".join(_explain_one(problem, model) for problem in error.errors())
    return text if text.endswith("?") else f"{text}."


def _explain_one(problem: Any, model: type[BaseModel]) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "the config"
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "extra_forbidden":
        known = list(_section_at(model, problem["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the known keys are {', '.join(known)}"
        return f"{field} is an unknown key: {hint}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if isinstance(problem["input"], dict | BaseModel):
        return f"{field}: {message[:1].lower()}{message[1:]}"
    return f"{field} is {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _section_at(section: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(
            (
                option
                for option in options
                if isinstance(option, type) and issubclass(option, BaseModel)
            ),
            section,
        )
    return section
