"""A small experiment on real digits that the tests of this package share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config.load import load_experiment
from experiments.config.section import ConfigError
from experiments.plan.cell_plan import CellPlan
from experiments.plan.graph import ExperimentPlan, plan_experiment
from tests.nas.examples import TINY

Values = dict[str, Any]
# Of an indicator that looks at images.
ACCURACY: Values = {"indicator": "accuracy", "recalibration_images": 64, "batch_size": 64}


def small(space: str = "micro") -> Values:
    """Two steps an epoch; with the space `tiny.yaml` of `write_config`, milliseconds each."""
    recipe = {"batch_size": 64, "lr": 1.0, "warmup_lr": 0.1, "warmup_epochs": 1}
    return {
        "name": "small",
        "space": space,
        "data": {"name": "digits", "max_train_images": 128},
        "supernet": {"epochs": 3, "gamma_init": 0.5, **recipe},
        "search": {
            "evolution": {
                "num_iterations": 3,
                "population": 8,
                "num_parents": 4,
                "num_mutations": 3,
                "num_crossovers": 3,
            }
        },
        "retrain": {"epochs": 2, **recipe},
        "random_baseline": {"num_architectures": 2},
    }


def changed(values: Values, **changes: Any) -> Values:
    """A copy in which `section__field=value` is set; a section that is missing is made."""
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for path, value in changes.items():
        section, _, field = path.partition("__")
        if field:
            copy.setdefault(section, {})[field] = value
        else:
            copy[section] = value
    return copy


def write_yaml(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def write_config(folder: Path, **changes: Any) -> Path:
    """`small` in the space `TINY`, with storage and tracking under `folder`; both as files."""
    write_yaml(folder / "tiny.yaml", TINY.to_dict())
    values = changed(small("tiny.yaml"), storage__path=str(folder / "runs"))
    return write_yaml(folder / "small.yaml", changed(values, **changes))


def complaint(folder: Path, values: Any, *overrides: str) -> str:
    """Why such a config is refused, which has to be one sentence on one line."""
    path = write_yaml(folder / "config.yaml", values)
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert "config.yaml" in message or overrides
    return message


def plan_file(path: Path, *overrides: str) -> ExperimentPlan:
    """What a config file plans."""
    return plan_experiment(load_experiment(path, overrides))


def small_plan(folder: Path, **changes: Any) -> CellPlan:
    """The first cell of such a config."""
    return plan_file(write_config(folder, **changes)).cells[0]
