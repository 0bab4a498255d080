"""One cell through the command line, Ray and MLflow: tracked once, cached, and safe to kill."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from nas.cost import flops_table, params_table
from nas.space import parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.configs import small_plan, write_config
from tests.nas.examples import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Enough steps that accuracies tell networks apart, and that a process can be killed between two.
SIZE: dict[str, Any] = {
    "data__max_train_images": 640,
    "supernet__epochs": 20,
    "retrain__epochs": 6,
    "retrain__lr": 4.0,
}
NOBODY = "--set=cluster.address=127.0.0.1:9"

Json = dict[str, Any]


def run_json(config: Path, *arguments: str) -> Json:
    done = command.run("run", config, "--json", *arguments, cwd=config.parent)
    assert done.returncode == 0, done.stderr
    result: Json = json.loads(done.stdout)
    return result


def numbers(result: Json) -> Json:
    """What a user reads off a result, without how it came to be there."""
    names = ("arch", "top1", "flops", "params", "device_hours", "random_baseline")
    return {name: result[name] for name in (*names, "random_architectures", "mlflow_run_id")}


def kinds(result: Json, *, cached: bool) -> list[str]:
    return [stage["kind"] for stage in result["stages"] if stage["cached"] is cached]


def tracked(folder: Path) -> dict[str, Run]:
    """All runs of the experiment by id."""
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("bnnas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_id: run for run in runs}


def losses(folder: Path, stage: Stage) -> list[tuple[float, float]]:
    """Epoch and loss of a finished stage."""
    record = StageStore(folder / "runs").get(stage.fingerprint)
    assert record is not None
    return [(row["epoch"], row["train/loss"]) for row in record.history]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cell")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    return write_config(folder, **SIZE)


@pytest.fixture(scope="module")
def result(config: Path) -> Json:
    """The cell, run for the first time."""
    return run_json(config)


def test_the_result_has_what_scripts_rely_on(folder: Path, result: Json) -> None:
    assert result["status"] == "done"
    arch = parse_architecture(result["arch"])
    assert result["flops"] == flops_table(TINY).of(arch)
    assert result["params"] == params_table(TINY).of(arch)
    assert 0.15 < result["top1"] <= 1.0
    randoms = result["random_architectures"]
    plan = small_plan(folder, **SIZE)
    assert [parse_architecture(each["arch"]) for each in randoms] == list(plan.baseline_archs)
    assert result["random_baseline"] == max(each["top1"] for each in randoms)
    stages = result["stages"]
    assert [s["kind"] for s in stages] == ["supernet", "search", *["retrain"] * 3]
    assert [s["fingerprint"] for s in stages] == [
        stage.fingerprint for stage in (*plan.known[:2], plan.retrain(arch), *plan.baseline)
    ]
    assert not any(s["cached"] for s in stages)
    assert math.isclose(result["device_hours"], sum(s["device_hours"] for s in stages))
    assert {path.name for path in Path(result["figures"]).iterdir()} == {
        "config.yaml",
        "supernet_training.png",
        "search_front.png",
        "search_scores.png",
        "retrain_training.png",
    }


def test_every_stage_has_one_run_under_the_cells(folder: Path, result: Json) -> None:
    runs = tracked(folder)
    parent = runs.pop(result["mlflow_run_id"])
    assert set(runs) == {s["mlflow_run_id"] for s in result["stages"]}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    for name in ("top1", "flops", "params", "device_hours", "random_baseline"):
        assert parent.data.metrics[name] == pytest.approx(result[name])
    assert parent.data.params["trainable"] == "bn"
    assert result["arch"] in parent.data.tags["mlflow.note.content"]
    for stage in result["stages"]:
        run = runs[stage["mlflow_run_id"]]
        assert run.info.run_name == stage["name"]
        assert run.data.tags["bnnas.stage"] == stage["kind"]
        assert run.data.tags["bnnas.fingerprint"] == stage["fingerprint"]
        assert run.data.tags["bnnas.cell"] == "small"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["device_hours"] == pytest.approx(stage["device_hours"])
        assert run.data.metrics["wall_s"] > 0
        assert run.data.params["seed"] == "0"


def test_the_lineage_can_be_walked_back_to_the_supernet(folder: Path, result: Json) -> None:
    runs = tracked(folder)
    supernet, search, retrained, *others = (runs[s["mlflow_run_id"]] for s in result["stages"])
    assert retrained.data.tags["bnnas.input.search"] == search.info.run_id
    assert search.data.tags["bnnas.input.supernet"] == supernet.info.run_id
    for run in (supernet, *others):
        assert not [tag for tag in run.data.tags if tag.startswith("bnnas.input.")]
    assert retrained.data.metrics["top1"] == pytest.approx(result["top1"])


def test_every_epoch_is_tracked_once_and_figures_are_artifacts(folder: Path, result: Json) -> None:
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    expected = {"supernet": (20, "train/loss"), "retrain": (6, "val/top1")}
    figures = {
        "supernet": {"supernet_training.png"},
        "search": {"search_front.png", "search_scores.png"},
        "retrain": {"retrain_training.png"},
    }
    for stage in result["stages"]:
        run_id, kind = stage["mlflow_run_id"], stage["kind"]
        if kind in expected:
            num_epochs, metric = expected[kind]
            steps = [each.step for each in client.get_metric_history(run_id, metric)]
            assert steps == list(range(1, num_epochs + 1))
        drawn = {Path(file.path).name for file in client.list_artifacts(run_id, "figures")}
        assert drawn == figures[kind]
        files = {file.path for file in client.list_artifacts(run_id)}
        assert files == {"config.yaml", "record.json", "figures"}


def test_again_everything_is_there_and_ray_is_not_needed(
    folder: Path, config: Path, result: Json
) -> None:
    before = {run_id: run.data.to_dictionary() for run_id, run in tracked(folder).items()}
    again = run_json(config, NOBODY)  # where no cluster is, so that connecting would fail
    assert kinds(again, cached=False) == []
    assert numbers(again) | {"mlflow_run_id": ""} == numbers(result) | {"mlflow_run_id": ""}
    assert [s["mlflow_run_id"] for s in again["stages"]] == [
        s["mlflow_run_id"] for s in result["stages"]
    ]
    after = tracked(folder)
    # Another address is another resolved config, and so another cell to show; no other stage.
    assert set(after) - set(before) == {again["mlflow_run_id"]} - set(before)
    for stage in result["stages"]:
        run_id = stage["mlflow_run_id"]
        assert after[run_id].data.to_dictionary() == before[run_id]


def test_a_stage_that_is_lost_is_made_again_alone(folder: Path, config: Path, result: Json) -> None:
    search = next(s for s in result["stages"] if s["kind"] == "search")
    shutil.rmtree(folder / "runs" / "stages" / search["fingerprint"])
    again = run_json(config)
    assert kinds(again, cached=False) == ["search"]
    assert again["arch"] == result["arch"]
    assert again["top1"] == result["top1"]
    # The run of that fingerprint goes on; the cell's too.
    assert again["mlflow_run_id"] == result["mlflow_run_id"]
    assert [s["mlflow_run_id"] for s in again["stages"]] == [
        s["mlflow_run_id"] for s in result["stages"]
    ]


def test_killed_and_started_again_gives_the_same(
    tmp_path: Path, folder: Path, result: Json
) -> None:
    size = {**SIZE, "random_baseline__num_architectures": 0}
    config, supernet = write_config(tmp_path, **size), small_plan(tmp_path, **size).supernet
    assert supernet is not None
    job = tmp_path / "runs" / "jobs" / f"supernet-{supernet.fingerprint}"
    process = command.start("run", config, "--json", cwd=tmp_path)
    end_s = time.monotonic() + 200
    while not list(job.glob("checkpoint_*/network.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (
        StageStore(tmp_path / "runs").get(supernet.fingerprint) is None
    )  # it was killed in the middle

    again = run_json(config)
    assert kinds(again, cached=True) == []
    assert (again["arch"], again["top1"]) == (result["arch"], result["top1"])
    assert [run.info.status for run in tracked(tmp_path).values()] == ["FINISHED"] * 4
    assert losses(tmp_path, supernet) == losses(folder, supernet)
