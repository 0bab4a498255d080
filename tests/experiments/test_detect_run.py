"""Detectors on a real cluster, by the command line: tracked once, cached, at the end of runs."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.coco.data import annotation_file
from detection.coco.drawing import draw_detections
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.configs import changed, small, write_yaml
from tests.experiments.detectors import (
    ARCH,
    DATA,
    DETECT,
    RETRAIN,
    SPACE,
    Detected,
    detector_plan,
    small_detector,
    without,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RANDOM = without(small_detector(), "data", "retrain")
NOBODY = "--set=cluster.address=127.0.0.1:9"


def tracked(folder: Path, kind: str) -> Run:
    """The run of the one stage of a kind."""
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("bnnas")
    assert experiment is not None
    condition = f"tags.`bnnas.stage` = '{kind}'"
    (found,) = client.search_runs([experiment.experiment_id], filter_string=condition)
    return found


def figures_of(folder: Path, run: Run) -> set[str]:
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    return {file.path for file in client.list_artifacts(run.info.run_id, "figures")}


def test_the_result_has_what_scripts_rely_on(detected: Detected) -> None:
    result, record = detected.result, detected.record("detect")
    assert (result["status"], result["name"], result["arch"]) == ("done", "scenes", ARCH)
    assert result["backbone"] == "searched"
    kinds = [(stage["kind"], stage["cached"]) for stage in result["stages"]]
    assert kinds == [("retrain", False), ("detect", False)]
    planned = [stage.fingerprint for stage in detected.plan.stages]
    assert [stage["fingerprint"] for stage in result["stages"]] == planned
    for name, value in record.metrics.items():
        assert result[name] == value
    assert result["device_hours"] == record.device_hours > 0
    assert result["num_val_images"] == 8
    assert result["mlflow_run_id"] == result["stages"][-1]["mlflow_run_id"]
    assert {path.name for path in Path(result["figures"]).iterdir()} == {
        "config.yaml",
        "retrain_training.png",
        "detect_training.png",
        *(f"detections_{number}.png" for number in (1, 2, 3)),
    }


def test_the_metrics_are_pycocotools_own_on_the_stored_detections(detected: Detected) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file(detected.scenes, "val")))
        evaluation = COCOeval(truth, truth.loadRes(detected.detections()), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = detected.record("detect").metrics
    for name, value in zip(
        ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"), evaluation.stats, strict=False
    ):
        if value < 0:  # no object of that size
            assert f"coco/bbox_{name}" not in metrics
        else:
            assert metrics[f"coco/bbox_{name}"] == pytest.approx(value, abs=1e-9)
    assert {one["image_id"] for one in detected.detections()} == set(range(1, 9))


def test_mlflow_has_one_run_of_the_detector_with_its_curves(detected: Detected) -> None:
    run, record = tracked(detected.folder, "detect"), detected.record("detect")
    retrained = tracked(detected.folder, "retrain")
    assert run.info.run_id == detected.result["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["bnnas.fingerprint"] == record.fingerprint
    assert run.data.tags["bnnas.input.retrain"] == retrained.info.run_id
    assert run.data.params["detect.epochs"] == "2"
    for name in ("coco/bbox_mAP", "flops", "params", "train_loss"):
        assert run.data.metrics[name] == record.metrics[name]
    assert run.data.metrics["device_hours"] == record.device_hours
    client = MlflowClient(f"sqlite:///{detected.folder}/runs/mlflow.db")
    for name in ("train/loss", "train/loss_cls", "train/loss_bbox", "coco/bbox_mAP"):
        points = client.get_metric_history(run.info.run_id, name)
        told = [(point.step, point.value) for point in points]
        assert told == [(row["epoch"], row[name]) for row in record.history]
    shown = {f"figures/detections_{number}.png" for number in (1, 2, 3)}
    assert figures_of(detected.folder, run) == {"figures/detect_training.png", *shown}


def test_drawn_images_are_the_validation_images_with_what_was_found(detected: Detected) -> None:
    for number in (1, 2, 3):
        drawn = Path(detected.result["figures"]) / f"detections_{number}.png"
        scene = detected.scenes / "val2017" / f"{number:012d}.png"
        found = [one for one in detected.detections() if one["image_id"] == number]
        names = {digit + 1: str(digit) for digit in range(10)}
        with Image.open(drawn) as ours, Image.open(scene) as theirs:
            expected = draw_detections(theirs, found, names)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


def test_the_second_time_nothing_is_trained_and_no_cluster_is_asked(detected: Detected) -> None:
    done = command.run("detect", detected.config, NOBODY, cwd=detected.folder)
    assert done.returncode == 0, done.stderr
    assert "Connecting to Ray" not in done.stderr
    assert "(cached)" in done.stdout
    assert detected.checkpoint in done.stdout
    again = command.run("detect", detected.config, NOBODY, "--json", cwd=detected.folder)
    result = json.loads(again.stdout)
    assert [stage["cached"] for stage in result["stages"]] == [True, True]
    for stage in (*result["stages"], *detected.result["stages"]):
        del stage["cached"]
    assert result == detected.result
    assert tracked(detected.folder, "detect").info.run_id == result["mlflow_run_id"]


def test_a_retrain_stage_as_checkpoint_gives_the_same_detector(detected: Detected) -> None:
    """Its fingerprint is enough: space and architecture follow, and nothing is made again."""
    checkpoint = detected.record("retrain").fingerprint[:10]
    options = ["--set=retrain=null", "--set=data=null", "--set=space=null", "--set=arch=null"]
    done = command.run(
        *("detect", detected.config, "--json", "--checkpoint", checkpoint, NOBODY, *options),
        cwd=detected.folder,
    )
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert [stage["fingerprint"] for stage in stages] == [
        stage["fingerprint"] for stage in detected.result["stages"]
    ]
    assert all(stage["cached"] for stage in stages)


def test_plan_and_status_name_both_stages_as_done(detected: Detected) -> None:
    planned = command.run("plan", detected.config, "--json", cwd=detected.folder)
    document = json.loads(planned.stdout)
    assert [(s["kind"], s["cached"]) for s in document["stages"]] == [
        ("retrain", True),
        ("detect", True),
    ]
    assert document["device_hours_estimate"] == 0
    status = command.run("status", detected.config, "--json", cwd=detected.folder)
    assert [s["status"] for s in json.loads(status.stdout)["stages"]] == ["done", "done"]


def test_without_a_file_and_without_pretraining(tmp_path: Path) -> None:
    """An architecture and a data set are enough; one is told that the backbone is random."""
    plan = detector_plan(tmp_path, RANDOM, detect__epochs=1, detect__warmup_epochs=0)
    settings: dict[str, Any] = plan.config.detect.model_dump(mode="json")
    done = command.run(
        *("detect", "--space", tmp_path / "space.yaml", "--arch", ARCH),
        *(f"--set=detect.{name}={json.dumps(value)}" for name, value in settings.items()),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "backbone starts with random weights" in " ".join(done.stderr.split())
    (record,) = StageStore(tmp_path / "bnnas-runs").list()
    assert record.fingerprint == plan.stage.fingerprint
    assert record.fingerprint[:12] in done.stdout
    assert "bnnas-runs/figures/detect" in done.stdout


# --- at the end of runs and sweeps ---


def write_experiment(folder: Path, **changes: Any) -> Path:
    """A search in the detector's space, and a detector of one epoch on what it finds."""
    write_yaml(folder / "space.yaml", SPACE)
    values = changed(
        small("space.yaml"),
        data=DATA,
        supernet__epochs=1,
        supernet__warmup_epochs=0,
        search={"indicator": "bn"},
        retrain=RETRAIN,
        random_baseline__num_architectures=0,
        detect={**DETECT, "epochs": 1, "warmup_epochs": 0},
        storage__path=str(folder / "runs"),
    )
    return write_yaml(folder / "experiment.yaml", changed(values, **changes))


def asked(name: str, config: Path, *arguments: str) -> dict[str, Any]:
    """What a command says of an experiment; nothing in it has failed."""
    done = command.run(name, config, "--json", *arguments, cwd=config.parent)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def of_kind(document: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [stage for stage in document["stages"] if stage["kind"] == kind]
    return dict(found)


def test_a_run_ends_in_detection_on_what_it_has_found(tmp_path: Path) -> None:
    config = write_experiment(tmp_path, search__indicator="flops")
    planned = of_kind(asked("plan", config, "--no-probe"), "detect")
    assert (planned["fingerprint"], planned["cached"]) == (None, False)
    assert planned["name"] == "detect what small finds"
    assert of_kind(asked("status", config), "detect")["status"] == "missing"

    result = asked("run", config)
    stages = [(stage["kind"], stage["cached"]) for stage in result["stages"]]
    assert stages == [("search", False), ("retrain", False), ("detect", False)]
    (record,) = StageStore(tmp_path / "runs").list("detect")
    detection = result["detection"]
    assert detection["arch"] == result["arch"] == record.result["arch"]
    assert detection["coco/bbox_mAP"] == result["coco/bbox_mAP"] == record.metrics["coco/bbox_mAP"]
    # The classifier's size stays the run's; the detector's own is beside it.
    assert result["params"] < detection["params"]
    hours = sum(stage["device_hours"] for stage in result["stages"])
    assert result["device_hours"] == pytest.approx(hours)
    assert (Path(result["figures"]) / "detections_1.png").is_file()
    run = tracked(tmp_path, "detect")
    assert run.data.tags["mlflow.parentRunId"] == result["mlflow_run_id"]
    assert run.data.tags["bnnas.input.retrain"] == tracked(tmp_path, "retrain").info.run_id
    cell = tracked(tmp_path, "cell")
    assert cell.info.run_id == result["mlflow_run_id"]
    assert cell.data.tags["bnnas.input.detect"] == run.info.run_id
    assert cell.data.metrics["coco/bbox_mAP"] == record.metrics["coco/bbox_mAP"]

    planned = of_kind(asked("plan", config, "--no-probe"), "detect")
    assert (planned["fingerprint"], planned["cached"]) == (record.fingerprint, True)
    assert planned["name"] == f"detect {result['arch']}"
    assert of_kind(asked("status", config), "detect")["status"] == "done"
    again = asked("run", config, NOBODY)
    assert all(stage["cached"] for stage in again["stages"])
    assert again["detection"] == detection
    # The detector alone, from the same parts, is that detector.
    alone = detector_plan(tmp_path, arch=result["arch"], detect__epochs=1, detect__warmup_epochs=0)
    assert [stage.fingerprint for stage in alone.stages] == [
        of_kind(result, kind)["fingerprint"] for kind in ("retrain", "detect")
    ]


@pytest.mark.timeout(600)
def test_a_sweep_ends_in_detection_on_the_winners_network(tmp_path: Path) -> None:
    config = write_experiment(tmp_path, name="grid", grid={"trainable": ["all", "bn"]})
    planned = of_kind(asked("plan", config, "--no-probe"), "detect")
    assert (planned["fingerprint"], planned["cells"]) == (None, ["detection"])
    assert planned["name"] == "detect what the best cell finds"

    result = asked("sweep", config)
    assert [cell["status"] for cell in result["cells"]] == ["done", "done"]
    store = StageStore(tmp_path / "runs")
    (record,) = store.list("detect")
    winner = next(cell for cell in result["cells"] if cell["name"] == result["winner"])
    detection = result["detection"]
    assert detection["arch"] == winner["arch"] == record.result["arch"]
    assert detection["coco/bbox_mAP"] == record.metrics["coco/bbox_mAP"]
    num_stages = len(list(store.list()))
    assert (result["executed"], result["cached"], result["failed"]) == (num_stages, 0, 0)
    run = tracked(tmp_path, "detect")
    assert run.data.tags["mlflow.parentRunId"] == winner["mlflow_run_id"]
    shown = asked("status", config)
    assert of_kind(shown, "detect")["status"] == "done"
    assert (shown["num_done"], shown["num_missing"]) == (num_stages, 0)

    again = asked("sweep", config, NOBODY)
    assert (again["executed"], again["cached"]) == (0, num_stages)
    for name in ("detection", "winner", "cells", "mlflow_run_id"):
        assert again[name] == result[name]

    # A detector that cannot be trained leaves the cells as they are.
    broken = ("--set=detect.lr=1e20", "--set=detect.clip_norm=null")
    done = command.run("sweep", config, "--json", *broken, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    failed = json.loads(done.stdout)
    assert failed["status"] == "failed"
    assert list(failed["failures"]) == ["detection"]
    assert "lower detect.lr" in failed["failures"]["detection"]
    assert failed["detection"] is None
    assert [cell["status"] for cell in failed["cells"]] == ["done", "done"]
    assert failed["winner"] == result["winner"]
