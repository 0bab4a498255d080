"""Reading a config file: YAML, overrides, and one sentence for whatever is wrong.

An unknown key, a wrong type or an impossible combination names the field, before any cluster is
touched. What a file is, its sections say: one with a `grid` is a sweep, one with `detect` and no
`supernet` a detector, one with `correlate` a correlation study, and any other a cell. The cell that
a study is about can be run by itself, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from experiments.config.cell import Config
from experiments.config.detection import DetectionConfig
from experiments.config.section import ConfigError
from experiments.config.study import Correlation
from experiments.config.sweep import Seeds, Sweep, SweepSettings

Experiment = Config | Sweep | Correlation | DetectionConfig
_Model = TypeVar("_Model", bound=BaseModel)
Command = Literal["run", "sweep", "correlate", "detect"]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of one cell, apply `key.path=value` overrides, and validate.

    A `space` that is a path is taken relative to the file. Raises ConfigError with one sentence.
    """
    values = read_values(path, overrides)
    command = _command_of(values)
    if command == "sweep":
        raise ConfigError(f"{path} has a grid, so it is a sweep: start it with 'bnnas sweep'.")
    if command == "detect":
        raise ConfigError(f"{path} has no search in it: start it with 'bnnas detect'.")
    if "seeds" in values:
        raise ConfigError(
            f"{path} has seeds, which sweeps and correlation studies are repeated with: start it "
            "with 'bnnas correlate', or with a grid with 'bnnas sweep'; one cell has one seed."
        )
    return _validate(path, Config, values)


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The same for the file of a sweep, which has a `grid`."""
    values = read_values(path, overrides)
    if (command := _command_of(values)) != "sweep":
        what = {"correlate": "a correlation study", "detect": "a detector"}.get(command, "one cell")
        raise ConfigError(f"{path} has no grid, so it is {what}: start it with 'bnnas {command}'.")
    grid, seeds = values.pop("grid"), values.pop("seeds", None)
    settings = _validate(path, SweepSettings, {"grid": grid or {}, "seeds": seeds})
    return Sweep.of(settings, [_validate(path, Config, cell) for cell in settings.cells(values)])


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Whichever of the four the file is."""
    loaders: Mapping[Command, Callable[[str | Path, Sequence[str]], Experiment]] = {
        "run": load_config,
        "sweep": load_sweep,
        "correlate": load_correlation,
        "detect": load_detection,
    }
    return loaders[_command_of(read_values(path, overrides))](path, overrides)


def load_correlation(path: str | Path, overrides: Sequence[str] = ()) -> Correlation:
    """The file of one cell, for a correlation study: once for each of its `seeds`.

    Without a `correlate` section the study has that section's defaults.
    """
    values = read_values(path, overrides)
    if "grid" in values:
        raise ConfigError(
            f"{path} has a grid, and a correlation study asks about one supernet: give the file of "
            "one cell."
        )
    seeds = _validate(path, Seeds, {"seeds": values.pop("seeds", None)}).seeds
    given = [{**values, "seed": seed} for seed in seeds] if seeds else [values]
    return Correlation(tuple(_validate(path, Config, each) for each in given))


def load_detection(
    path: str | Path | None, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> DetectionConfig:
    """The config of a detector, or without a file what `given` and the overrides say.

    `given` are values of the command line's own options; they replace those of the file.
    """
    values = {} if path is None else read_values(path)
    if "supernet" in values:
        command = _command_of(values)
        raise ConfigError(
            f"{path} is an experiment with a search: 'bnnas {command}' starts it, and ends in "
            "detection where it has a detect section. For 'bnnas detect', name the backbone: space "
            "and arch, or the checkpoint of its retrain stage."
        )
    if path is not None:
        values = read_values(path, overrides)
    else:
        for override in overrides:
            _apply_override(values, override)
    values |= given or {}
    if not isinstance(values.get("detect"), dict) or "data" not in values["detect"]:
        raise ConfigError(
            f"{path or 'bnnas detect'}: there is nothing to detect on, because detect.data is "
            "missing: name a config that has it, or add --set detect.data.root=FOLDER for a folder "
            "in COCO's layout, or --set detect.data.name=digit_scenes."
        )
    return _validate("bnnas detect" if path is None else path, DetectionConfig, values)


def dump_config(config: Config | DetectionConfig) -> str:
    """The resolved config as YAML that is read back to an equal value.

    A `correlate` section that nobody gave is left out, because the file of a cell would become that
    of a study by it.
    """
    left_out = {"correlate"} - config.model_fields_set
    return yaml.safe_dump(config.model_dump(mode="json", exclude=left_out), sort_keys=False)


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of either file with the overrides in them, not validated yet."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no config file {str(path)!r}: give the path of a YAML file.")
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
    for override in overrides:
        _apply_override(values, override)
    space = values.get("space")
    if isinstance(space, str) and (path.parent / space).is_file():
        values["space"] = str(path.parent / space)
    return values


def _command_of(values: Mapping[str, Any]) -> Command:
    """The command that starts a file with these values."""
    if "grid" in values:
        return "sweep"
    if "detect" in values and "supernet" not in values:
        return "detect"
    return "correlate" if "correlate" in values else "run"


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
    *sections, last = key.split(".")
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
            option
            for option in options
            if isinstance(option, type) and issubclass(option, BaseModel)
        )
    return section
