"""A whole sweep on a real cluster: shared stages run once, nothing that is there runs again."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from experiments.config.places import open_tracker
from experiments.plan.cell import plan_cell
from experiments.report.sweep_table import print_sweep
from experiments.run.display import Display
from experiments.run.one import run_cell
from experiments.run.sweep_result import SweepResult
from experiments.run.table_display import SweepDisplay
from nas.data import describe_data
from orchestration.cluster.connect import cluster
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import changed, small, write_yaml
from tests.experiments.sweeps import run_sweep_in
from tests.nas.examples import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

GRID = {"trainable": ["all", "bn"], "indicator": ["accuracy", "bn"], "epochs": [1, 2, 3]}


@dataclass
class Swept:
    """A sweep that was run, and what the cluster says was started for it."""

    result: SweepResult
    folder: Path
    uri: str
    num_train_jobs: int
    num_scorers: int

    def again(self) -> SweepResult:
        return run_sweep_in(self.folder)

    @property
    def store(self) -> StageStore:
        return StageStore(self.folder / "runs")


def write(folder: Path, **changes: Any) -> Path:
    write_yaml(folder / "tiny.yaml", TINY.to_dict())
    values = changed(small("tiny.yaml"), storage__path=str(folder / "runs"), grid=GRID)
    values = changed(values, name="ablation", supernet__warmup_epochs=0.5)
    return write_yaml(folder / "sweep.yaml", changed(values, **changes))


def num_actors(name: str) -> int:
    """How many actors of a class the cluster has ever started."""
    import ray

    table = ray._private.state.actors()
    return sum(each["ActorClassName"].endswith(name) for each in table.values())


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("sweep")
    write(folder)
    with cluster(num_cpus=2):
        shown = io.StringIO()
        result = run_sweep_in(folder, SweepDisplay(Console(file=shown, width=200)))
        assert "✓ supernet bn 3 epochs" in shown.getvalue()
        yield Swept(
            result=result,
            folder=folder,
            uri=f"sqlite:///{folder}/runs/mlflow.db",
            num_train_jobs=num_actors("RayTrainWorker"),
            num_scorers=num_actors("Scorer"),
        )


def runs(uri: str, condition: str = "") -> list[Run]:
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, filter_string=condition, max_results=1000))


def found(result: SweepResult) -> dict[str, Any]:
    """Everything that a sweep says but how it came by it."""
    whole = result.to_json()
    return {key: whole[key] for key in whole if key not in ("executed", "cached")}


def test_twelve_cells_need_six_supernets_and_no_architecture_twice(swept: Swept) -> None:
    result = swept.result
    assert result.failures == {}
    assert len(result.cells) == 12
    kinds = Counter(record.kind for record in result.records)
    assert (kinds["supernet"], kinds["search"]) == (6, 12)
    archs = {row.chain[-1].result["arch"] for row in result.cells}
    archs |= {row.retrained.result["arch"] for row in result.baseline if row.retrained}
    assert kinds["retrain"] == len(archs) < 12 + 2
    assert len(result.executed) == sum(kinds.values())
    assert result.cached == ()
    # What the cluster has really started, whatever the sweep says of it.
    assert swept.num_train_jobs == 6 + len(archs)
    assert swept.num_scorers == 6


def test_a_cell_of_a_sweep_finds_what_it_finds_alone(swept: Swept, tmp_path: Path) -> None:
    row = next(row for row in swept.result.cells if row.plan.config.name == "bn-accuracy-2")
    config = row.plan.config
    storage = config.storage.model_copy(update={"path": str(tmp_path / "alone")})
    baseline = config.random_baseline.model_copy(update={"num_architectures": 0})
    config = config.model_copy(update={"storage": storage, "random_baseline": baseline})
    plan = plan_cell(config, describe_data(config.data.name))
    alone = run_cell(plan, open_tracker(config), Display(Console(), quiet=True))
    assert [done.record.fingerprint for done in alone.chain] == [
        record.fingerprint for record in row.chain
    ]
    for done, record in zip(alone.chain, row.chain, strict=True):
        assert done.record.metrics == record.metrics


def test_the_same_again_makes_nothing_and_finds_the_same(swept: Swept) -> None:
    before = {run.info.run_id: run.data.metrics for run in runs(swept.uri)}
    again = swept.again()
    assert again.executed == ()
    assert set(again.cached) == set(swept.result.executed)
    assert found(again) == found(swept.result)
    assert {run.info.run_id: run.data.metrics for run in runs(swept.uri)} == before


def test_every_result_has_one_run_and_can_be_walked_to(swept: Swept) -> None:
    stages = runs(swept.uri, "tags.`bnnas.fingerprint` != ''")
    fingerprints = Counter(run.data.tags["bnnas.fingerprint"] for run in stages)
    assert fingerprints == dict.fromkeys(swept.result.executed, 1)
    assert {run.info.status for run in stages} == {"FINISHED"}
    (parent,) = runs(swept.uri, "tags.`bnnas.stage` = 'sweep'")
    assert {run.data.tags["mlflow.parentRunId"] for run in stages} == {parent.info.run_id}
    cells = runs(swept.uri, "tags.`bnnas.stage` = 'cell'")
    assert len(cells) == 12
    by_id = {run.info.run_id: run for run in stages}
    for cell in cells:
        tags, params = cell.data.tags, cell.data.params
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["mlflow.runName"] == tags["bnnas.cell"]
        name = f"{params['trainable']}-{params['indicator']}-{params['epochs']}"
        assert tags["bnnas.cell"] == name
        retrain, search = (by_id[tags[f"bnnas.input.{kind}"]] for kind in ("retrain", "search"))
        assert retrain.data.metrics["top1"] == cell.data.metrics["top1"]
        assert retrain.data.params["arch"] == params["winner"]
        supernet = by_id[search.data.tags["bnnas.input.supernet"]]
        assert supernet.info.run_id == tags["bnnas.input.supernet"]
        assert supernet.data.params["supernet.epochs"] == params["epochs"]
        assert cell.data.metrics["device_hours"] == pytest.approx(
            sum(
                by_id[tags[f"bnnas.input.{kind}"]].data.metrics["device_hours"]
                for kind in ("supernet", "search", "retrain")
            )
        )
    assert parent.data.metrics["random_baseline"] == swept.result.random_baseline


def test_the_winner_is_registered_and_is_not_chosen_by_the_test_set(swept: Swept) -> None:
    client = MlflowClient(swept.uri)
    winner = swept.result.winner
    assert winner is not None
    best = max(row.chain[-1].history[-1]["val/top1"] for row in swept.result.cells)
    assert winner.chain[-1].history[-1]["val/top1"] == best
    version = client.get_model_version_by_alias("ablation", "winner")
    assert version.run_id == winner.retrain_run_id
    assert len(client.search_model_versions("name = 'ablation'")) == 1


def test_a_stage_that_is_deleted_is_made_again_with_what_depends_on_it(swept: Swept) -> None:
    lost = next(row for row in swept.result.cells if row.plan.config.name == "all-bn-2")
    supernet, search, retrain = lost.chain
    sibling = next(row for row in swept.result.cells if row.plan.config.name == "all-accuracy-2")

    swept.store.delete(retrain.fingerprint)
    assert swept.again().executed == (retrain.fingerprint,)

    swept.store.delete(supernet.fingerprint)
    again = swept.again()
    assert set(again.executed) == {
        supernet.fingerprint,
        search.fingerprint,
        sibling.chain[1].fingerprint,
    }
    # The same machine makes the same weights, hence the same everything after them.
    assert [row.chain[-1].metrics["top1"] for row in again.cells] == [
        row.chain[-1].metrics["top1"] for row in swept.result.cells
    ]
    fingerprints = Counter(
        run.data.tags["bnnas.fingerprint"]
        for run in runs(swept.uri, "tags.`bnnas.fingerprint` != ''")
    )
    assert set(fingerprints.values()) == {1}


def test_the_final_table_has_the_layout_of_the_paper(swept: Swept) -> None:
    shown = io.StringIO()
    print_sweep(swept.result, Console(file=shown, width=120), elapsed_s=1.0, mlflow="bnnas ui")
    text = shown.getvalue()
    for row in swept.result.cells:
        config, top1 = row.plan.config, 100 * row.chain[-1].metrics["top1"]
        line = next(
            line
            for line in text.splitlines()
            if [part.strip() for part in line.split("│")[1:3]]
            == [config.supernet.trainable, str(config.supernet.epochs)]
        )
        assert f"{top1:.2f} ±" in line
    assert swept.result.random_baseline is not None
    assert f"the best of 2: {100 * swept.result.random_baseline:.2f}" in text
    assert json.loads(json.dumps(swept.result.to_json()))["failed"] == 0


def test_a_cell_that_fails_leaves_the_others_running(tmp_path: Path) -> None:
    # A learning rate that no supernet survives, in the cells that train all of it.
    write(
        tmp_path,
        grid={"trainable": ["all", "bn"], "epochs": [2]},
        supernet__lr=1e30,
        random_baseline__num_architectures=1,
    )
    with cluster(num_cpus=2):
        result = run_sweep_in(tmp_path)
    rows = {row.plan.config.name: row for row in result.cells}
    assert "training diverged" in str(rows["all-bn-2"].error)
    assert result.baseline[0].retrained is not None
    whole = result.to_json()
    assert whole["status"] == "failed"
    assert {cell["name"]: cell["status"] for cell in whole["cells"]}["all-bn-2"] == "failed"
    assert whole["failed"] == len(whole["failures"])
    stored = {record.fingerprint for record in StageStore(tmp_path / "runs").list()}
    assert set(result.executed) == stored
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    (failed,) = runs(uri, "tags.`bnnas.cell` = 'all-bn-2' and tags.`bnnas.stage` = 'cell'")
    assert failed.info.status == "FAILED"
    assert "diverged" in failed.data.tags["bnnas.error"]
    (parent,) = runs(uri, "tags.`bnnas.stage` = 'sweep'")
    assert parent.info.status == "FAILED"
