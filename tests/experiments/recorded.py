"""One small tracked experiment of every kind, made once by the engine, that all tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from experiments.config.load import load_experiment
from experiments.config.places import open_tracker
from experiments.plan.graph import plan_experiment
from experiments.run.display import Display
from experiments.run.engine import run_experiment
from experiments.run.result import Result
from orchestration.store.stage_store import StageStore
from orchestration.tracking.reader import TrackedExperiment, read_experiment
from tests.experiments.configs import ACCURACY, Values, changed, small, write_yaml
from tests.experiments.detectors import write_detector
from tests.nas.examples import TINY

GRID: Values = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [2]}
EVOLUTION: Values = {
    "num_iterations": 2,
    "population": 4,
    "num_parents": 2,
    "num_mutations": 1,
    "num_crossovers": 1,
}


def run_file(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    display: Display | None = None,
    num_at_once: int = 1,
) -> Result:
    """Run a config file in this process, as its command does, by one driver process by default."""
    experiment = load_experiment(path, overrides)
    return run_experiment(
        plan_experiment(experiment),
        open_tracker(experiment.shared),
        display or Display(Console(), quiet=True),
        num_at_once=num_at_once,
    )


def tracked(folder: Path, condition: str = "") -> list[Run]:
    """Runs in the database below a folder, such as those with "tags.`bnnas.stage` = 'cell'"."""
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, filter_string=condition, max_results=1000))


# Three architectures of the space have no more.
MAX_FLOPS = 17_200


@dataclass(frozen=True)
class Recorded:
    """A sweep, a correlation study and a detector in one storage, each made when asked for.

    Who changes something puts it back.
    """

    folder: Path

    @property
    def uri(self) -> str:
        """Of the database."""
        return f"sqlite:///{self.folder}/runs/mlflow.db"

    @property
    def store(self) -> StageStore:
        """The stages."""
        return StageStore(self.folder / "runs")

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own."""
        return MlflowClient(self.uri, self.uri)

    @cached_property
    def sweep(self) -> Result:
        """Of `sweep.yaml`: two supernets, four cells, at most three retrainings."""
        return run_file(self.write("sweep", grid=GRID), num_at_once=2)

    @cached_property
    def study(self) -> Result:
        """Of `study.yaml`: the same three architectures, and a supernet of the sweep."""
        assert self.sweep
        correlate = {"num_architectures": 3, "num_bins": 1, "indicators": ["bn", "accuracy"]}
        return run_file(self.write("study", correlate={**correlate, "num_strata": 1}))

    @cached_property
    def detector(self) -> Result:
        """Of `detect.yaml`."""
        return run_file(write_detector(self.folder))

    @cached_property
    def printed(self) -> dict[str, dict[str, Any]]:
        """Command → what its `--json` prints."""
        made = {"sweep": self.sweep, "correlate": self.study, "detect": self.detector}
        return {name: result.to_json() for name, result in made.items()}

    def read(self) -> TrackedExperiment:
        """The runs of all three, as the report reads them."""
        assert self.printed
        return read_experiment(self.uri, "bnnas")

    def write(self, name: str, **changes: Any) -> Path:
        """A config of that name on the same storage."""
        write_yaml(self.folder / "tiny.yaml", TINY.to_dict())
        values = changed(
            small("tiny.yaml"),
            name=name,
            storage__path=str(self.folder / "runs"),
            supernet__epochs=2,
            search={**ACCURACY, "evolution": EVOLUTION, "max_flops": MAX_FLOPS},
            retrain__epochs=1,
            retrain__warmup_epochs=0,
            random_baseline__num_architectures=1,
        )
        del values["search"]["indicator"]
        return write_yaml(self.folder / f"{name}.yaml", changed(values, **changes))
