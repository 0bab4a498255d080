"""A small tracked experiment, made by the real commands, that the tests of the report share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from orchestration.tracking.reader import TrackedExperiment, read_experiment
from tests.experiments import command
from tests.experiments.configs import Values, changed, small, write_yaml
from tests.experiments.detectors import write_detector
from tests.nas.examples import TINY

# Seven epochs are more than the window of the early-bird stop.
GRID: Values = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [7]}


@dataclass(frozen=True)
class Recorded:
    """An experiment in an SQLite database; nobody changes it.

    Attributes:
        folder: where configs, `runs` and all else lie.
        printed: command → what its `--json` has printed.
    """

    folder: Path
    printed: dict[str, dict[str, Any]]

    @property
    def uri(self) -> str:
        """Of the database."""
        return f"sqlite:///{self.folder}/runs/mlflow.db"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own."""
        return MlflowClient(self.uri, self.uri)

    def read(self) -> TrackedExperiment:
        """The runs, as the report reads them."""
        return read_experiment(self.uri, "bnnas")


def record_in(folder: Path) -> Recorded:
    """A sweep with two seeds, a cell that stops early, a correlation study, and a detector."""
    write_yaml(folder / "tiny.yaml", TINY.to_dict())
    values = changed(
        small("tiny.yaml"),
        storage__path=str(folder / "runs"),
        random_baseline__num_architectures=1,
        correlate={"num_architectures": 4, "num_bins": 2, "indicators": ["bn", "flops", "naswot"]},
    )
    sweep = changed(values, name="ablation", grid=GRID, seeds=[0, 1])
    early = changed(
        values,
        name="early",
        supernet__epochs=7,
        supernet__early_bird={"window": 1, "threshold": 0.9},
        random_baseline__num_architectures=0,
    )
    study = changed(values, name="study", supernet__epochs=7, seeds=[0, 1])
    configs = {
        "sweep": write_yaml(folder / "sweep.yaml", sweep),
        "run": write_yaml(folder / "early.yaml", early),
        "correlate": write_yaml(folder / "study.yaml", study),
        "detect": write_detector(folder),
    }
    printed = {}
    for name, config in configs.items():
        done = command.run(name, config, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        printed[name] = command.Outcome(0, done.stdout, done.stderr).json()
    return Recorded(folder, printed)
