"""Detectors on a cluster: alone, and at the end of runs and sweeps."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from detection.coco.data import annotation_file
from detection.coco.drawing import draw_detections
from experiments.config.load import load_detector
from experiments.plan.graph import list_stages
from experiments.run import engine
from experiments.run.display import Display
from experiments.stages import retrain
from nas.cost import flops_table
from nas.space import format_architecture, parse_architecture, space_from_dict
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import changed, plan_file, small, write_yaml
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
    write_detector,
)
from tests.experiments.recorded import run_file, tracked
from tests.experiments.stage_work import payload, put
from tests.experiments.stage_work import run as run_work

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FLOPS = flops_table(space_from_dict(SPACE))


def run_of(folder: Path, stage: str) -> Run:
    (found,) = tracked(folder, f"tags.`bnnas.stage` = '{stage}'")
    return found


def test_the_result_has_what_scripts_rely_on(detected: Detected) -> None:
    result, record = detected.result, detected.record("detect")
    assert (result["status"], result["name"], result["arch"]) == ("done", "scenes", ARCH)
    assert result["backbone"] == "searched"
    kinds = [(stage["kind"], stage["cached"]) for stage in result["stages"]]
    assert kinds == [("retrain", False), ("detect", False)]
    planned = [detected.record(kind).fingerprint for kind in ("retrain", "detect")]
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


def test_mlflow_has_one_run_of_the_detector_with_its_curves(
    detected: Detected, recorded: Any
) -> None:
    record = detected.record("detect")
    run = recorded.client.get_run(detected.result["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["bnnas.fingerprint"] == record.fingerprint
    assert run.data.tags["bnnas.input.retrain"] == detected.result["stages"][0]["mlflow_run_id"]
    assert run.data.params["detect.epochs"] == "2"
    for name in ("coco/bbox_mAP", "flops", "params", "train_loss"):
        assert run.data.metrics[name] == record.metrics[name]
    for name in ("train/loss", "train/loss_cls", "train/loss_bbox", "coco/bbox_mAP"):
        points = recorded.client.get_metric_history(run.info.run_id, name)
        values = [(point.step, point.value) for point in points]
        assert values == [(row["epoch"], row[name]) for row in record.history]
    shown = {f"figures/detections_{number}.png" for number in (1, 2, 3)}
    figures = {f.path for f in recorded.client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"figures/detect_training.png", *shown}


def test_drawn_images_are_the_validation_images_with_what_was_found(detected: Detected) -> None:
    for number in (1, 2, 3):
        drawn = Path(detected.result["figures"]) / f"detections_{number}.png"
        scene = detected.scenes / "val2017" / f"{number:012d}.png"
        found = [one for one in detected.detections() if one["image_id"] == number]
        names = {digit + 1: str(digit) for digit in range(10)}
        with Image.open(drawn) as ours, Image.open(scene) as theirs:
            expected = draw_detections(theirs, found, names)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


def test_a_retrain_stage_as_checkpoint_gives_the_same_detector(detected: Detected) -> None:
    """Its fingerprint is enough: space and architecture follow, and nothing is made again."""
    checkpoint = f"checkpoint={detected.record('retrain').fingerprint[:10]}"
    gone = [f"{name}=null" for name in ("retrain", "data", "space", "arch")]
    again = run_file(detected.config, [checkpoint, *gone])
    assert again.executed == ()
    for kind in ("retrain", "detect"):
        (stage,) = [s for s in again.to_json()["stages"] if s["kind"] == kind]
        assert stage["fingerprint"] == detected.record(kind).fingerprint
        assert stage["cached"]


def test_an_architecture_and_a_data_set_are_enough_and_one_is_told_what_is_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = without(small_detector(), "data", "retrain")
    plan = detector_plan(tmp_path, values)
    given = {"space": str(tmp_path / "space.yaml"), "arch": ARCH, "detect": DETECT}
    assert load_detector(None, [], given).detector == plan.config.model_copy(
        update={"name": "detect", "storage": type(plan.config.storage)(), "space": given["space"]}
    )

    def refuse(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(engine, "_connected", refuse)
    console = Console(record=True, width=200, file=(tmp_path / "shown").open("w"))
    with pytest.raises(ConnectionError):
        run_file(write_detector(tmp_path, values), display=Display(console))
    assert "backbone starts with random weights" in console.export_text()


# --- at the end of runs and sweeps ---


def write_experiment(detected: Detected, folder: Path, **changes: Any) -> Path:
    """A search that finds the detector's backbone, on a copy of the stages that were made."""
    shutil.copytree(detected.storage / "stages", folder / "runs" / "stages", dirs_exist_ok=True)
    write_yaml(folder / "space.yaml", SPACE)
    values = changed(
        small("space.yaml"),
        data=DATA,
        search={"indicator": "flops", "max_flops": FLOPS.of(parse_architecture(ARCH))},
        retrain=RETRAIN,
        random_baseline__num_architectures=0,
        detect=DETECT,
        storage__path=str(folder / "runs"),
    )
    return write_yaml(folder / "experiment.yaml", changed(values, **changes))


def test_a_run_ends_in_detection_on_what_it_has_found(detected: Detected, tmp_path: Path) -> None:
    config = write_experiment(detected, tmp_path)
    store = StageStore(tmp_path / "runs")
    (planned,) = [s for s in list_stages(plan_file(config), store).stages if not s.is_known][1:]
    assert planned.name == "detect what small finds"
    result = run_file(config)
    document = result.to_json()
    # The detector alone, from the same parts, is that detector.
    assert [(s["kind"], s["cached"]) for s in document["stages"]] == [
        *(("search", False), ("retrain", True), ("detect", True))
    ]
    detection = document["detection"]
    record = detected.record("detect")
    bbox_map = record.metrics["coco/bbox_mAP"]
    assert detection["arch"] == document["arch"] == ARCH
    assert (
        detection["coco/bbox_mAP"] == document["coco/bbox_mAP"] == record.metrics["coco/bbox_mAP"]
    )
    # The classifier's size stays the run's; the detector's own is beside it.
    assert document["params"] < detection["params"]
    hours = sum(stage["device_hours"] for stage in document["stages"])
    assert document["device_hours"] == pytest.approx(hours)
    assert (Path(document["figures"]) / "detections_1.png").is_file()
    run, cell = run_of(tmp_path, "detect"), run_of(tmp_path, "cell")
    assert run.data.tags["mlflow.parentRunId"] == document["mlflow_run_id"] == cell.info.run_id
    assert run.data.tags["bnnas.input.retrain"] == run_of(tmp_path, "retrain").info.run_id
    assert cell.data.tags["bnnas.input.detect"] == run.info.run_id
    assert cell.data.metrics["coco/bbox_mAP"] == bbox_map
    found = list_stages(plan_file(config), store)
    assert all(one.record is not None for one in found.stages)
    assert found.stages[-1].name == f"detect {ARCH}"
    assert run_file(config).to_json()["detection"] == detection


def test_a_sweep_ends_in_detection_on_the_winners_network(
    detected: Detected, tmp_path: Path
) -> None:
    """The network of the second cell is the recorded detector's; the first one's sees nothing."""
    budgets = [FLOPS.minimum, FLOPS.of(parse_architecture(ARCH))]
    config = write_experiment(detected, tmp_path, grid={"search.max_flops": budgets}, name="grid")
    store = StageStore(tmp_path / "runs")
    smallest = tuple(int(choice) for choice in np.argmin(FLOPS.table_LN, axis=1))
    stage = plan_file(config).cells[0].retrain(smallest)
    context = run_work(retrain.work, payload(stage, tmp_path), tmp_path / "job")
    context.history[-1]["val/top1"] = 0.0
    size = {"flops": float(FLOPS.minimum)}
    put(store, stage, context, metrics={**detected.record("retrain").metrics, **size})
    planned = list_stages(plan_file(config), store).stages[-1]
    assert (planned.name, planned.members) == ("detect what the best cell finds", ("detection",))
    # A detector that cannot be trained leaves the cells as they are.
    result = run_file(config, ["detect.lr=1e20", "detect.clip_norm=null"])
    failed = result.to_json()
    assert (failed["status"], list(failed["failures"])) == ("failed", ["detection"])
    assert "lower detect.lr" in failed["failures"]["detection"]
    assert failed["detection"] is None
    assert [cell["status"] for cell in failed["cells"]] == ["done", "done"]

    result = run_file(config)
    document = result.to_json()
    assert (document["status"], document["winner"]) == ("done", failed["winner"])
    assert document["winner"] == document["cells"][1]["name"]
    assert [cell["arch"] for cell in document["cells"]] == [format_architecture(smallest), ARCH]
    assert result.detected is not None
    assert document["detection"]["arch"] == result.detected.result["arch"] == ARCH
    assert result.detected.fingerprint == detected.record("detect").fingerprint
    (run,) = tracked(tmp_path, f"tags.`bnnas.fingerprint` = '{result.detected.fingerprint}'")
    assert run.data.tags["bnnas.cell"] == document["winner"]
    (cell,) = [
        each
        for each in tracked(tmp_path, f"tags.`bnnas.cell` = '{document['winner']}'")
        if "bnnas.input.detect" in each.data.tags
    ]
    assert cell.data.tags["bnnas.input.detect"] == run.info.run_id
    assert all(one.record is not None for one in list_stages(plan_file(config), store).stages)
    again = run_file(config)
    assert again.executed == ()
    assert again.to_json()["detection"] == document["detection"]
