"""`bnnas detect`: predict, export, --dump-config; what is wrong is one sentence and leaves nothing.

One detector that was really trained serves all of it; commands run in this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from pycocotools.coco import COCO

from detection.backbone import SearchedBackbone
from detection.coco.annotation_file import read_annotation_file
from detection.coco.data import annotation_file, image_folder
from detection.coco.digit_scenes import make_digit_scenes
from detection.inference import Detector
from experiments.detectors.source import DetectorSource
from experiments.stages.detect import DETECTOR
from nas.network import Subnet
from nas.space import parse_architecture, space_from_dict
from tests.experiments.command import Outcome, environment
from tests.experiments.command import assert_refused as _assert_refused
from tests.experiments.configs import changed, small, write_yaml
from tests.experiments.detectors import (
    ARCH,
    DETECT,
    SPACE,
    Detected,
    small_detector,
    without,
    write_detector,
)

Bnnas = Callable[..., Outcome]
Detections = list[dict[str, Any]]

LIGHT = """
import sys
from pathlib import Path
from experiments.commands.ask import plan, status
from experiments.config.load import load_detector
from experiments.plan.detector_plan import plan_detector
from experiments.stages.detect import detection_images, draw_detect
from orchestration.store.stage_store import StageStore

config, figures = Path(sys.argv[1]), Path(sys.argv[2])
plan(config, json=True, probe=False)
status(str(config), json=True)
detector = plan_detector(load_detector(config, [], {}).detector)
store = StageStore(detector.config.storage.path)
images = detection_images(detector.config)
draw_detect(store.get(detector.detect.fingerprint), store, images, 3, figures)
heavy = {"ray", "torch", "torchvision", "mmdet", "mmengine", "mmcv", "pycocotools"}
assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One sentence, and no worker was asked for."""
    _assert_refused(outcome, *words)
    assert outcome.err.startswith("bnnas: ")
    assert "Connecting to Ray" not in outcome.err


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_same_detections(ours: Detections, theirs: Detections) -> None:
    """Of the same images in any order, each image's own in the same one."""
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(
        *(sorted(each, key=lambda one: int(one["image_id"])) for each in (ours, theirs)),
        strict=True,
    ):
        assert mine.keys() == other.keys() == {"image_id", "category_id", "bbox", "score"}
        assert (mine["image_id"], mine["category_id"]) == (other["image_id"], other["category_id"])
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
        assert mine["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- predict ---


@pytest.mark.ray
@pytest.mark.slow
def test_predictions_on_validation_images_are_those_of_the_evaluation(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    truth = annotation_file(detected.scenes, "val")
    document = bnnas(
        *("detect", "predict", image_folder(detected.scenes, "val"), "--annotations", truth),
        *("--checkpoint", detected.checkpoint, "--storage", detected.storage, "--json"),
    ).json()
    assert document["status"] == "done"
    names = {image["id"]: image["file_name"] for image in read_annotation_file(truth).images}
    drawn = {f"{number}_{Path(name).stem}.png" for number, name in names.items()}
    assert files(here) == {f"detections/{n}" for n in (*drawn, "detections.json", "images.json")}
    detections = read_json(here / "detections/detections.json")
    assert document["num_detections"] == len(detections)
    assert_same_detections(detections, detected.detections())
    loaded = COCO(str(truth)).loadRes(str(here / "detections/detections.json"))
    assert len(loaded.anns) == len(detections)
    listed = read_json(here / "detections/images.json")
    assert {image["id"]: Path(image["file_name"]).name for image in listed} == names
    assert {(image["width"], image["height"]) for image in listed} == {(64, 64)}


@pytest.mark.ray
@pytest.mark.slow
def test_other_images_are_numbered_and_drawn_at_their_threshold(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    """A photograph that a camera has turned is as its viewers show it."""
    pixels = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels).save(here / "turned.jpg", exif=turned)
    scene = min(image_folder(detected.scenes, "train").iterdir())
    base = (
        *("detect", "predict", here / "turned.jpg", scene),
        *("--storage", detected.storage, "--checkpoint", detected.checkpoint),
    )
    all_drawn = bnnas(*base, "--output", "all", "--threshold", 0, "--json").json()
    assert [image["id"] for image in all_drawn["images"]] == [1, 2]
    assert all_drawn["num_drawn"] == all_drawn["num_detections"] > 0
    text = bnnas(*base, "--output", "none", "--threshold", 1).out
    assert "2 drawn" in text
    assert f"{all_drawn['num_detections']} of any score" in text
    assert read_json(here / "all/detections.json") == read_json(here / "none/detections.json")
    for name in ("1_turned.png", f"2_{scene.stem}.png"):
        assert (here / "all" / name).read_bytes() != (here / "none" / name).read_bytes()
    first = read_json(here / "all/images.json")[0]
    assert (first["width"], first["height"]) == (50, 70)
    with Image.open(here / "all/1_turned.png") as drawn:
        assert drawn.height / drawn.width == 70 / 50


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_request_to_predict_or_export_writes_nothing(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    scene = min(image_folder(detected.scenes, "train").iterdir())
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    (here / "text.png").write_text("no image", encoding="utf-8")
    (here / "none").mkdir()
    Image.new("L", (40, 40)).save(here / "unknown.png")
    truth = annotation_file(detected.scenes, "val")
    before = files(here)

    def refused(*arguments: object, checkpoint: object = detected.checkpoint) -> Outcome:
        return bnnas(
            "detect", *arguments, "--checkpoint", checkpoint, "--storage", detected.storage
        )

    for command in (("predict", scene), ("export",)):
        assert_refused(refused(*command, "--output", "full"), "'full'", "already")
        assert_refused(refused(*command, checkpoint="0123456789"), "no detect", "'0123456789'")
        assert_refused(refused(*command, checkpoint="nowhere"), "'nowhere'", "at least 8 digits")
    assert_refused(refused("predict", here / "gone.png"), "no image", "gone.png")
    assert_refused(refused("predict", here / "text.png"), "text.png", "read as an image")
    assert_refused(refused("predict", here / "none"), "none holds no images")
    unknown = refused("predict", here / "unknown.png", "--annotations", truth)
    assert_refused(unknown, str(truth), "does not name 1 of the 1 images", "unknown.png")
    no_file = refused("predict", scene, "--annotations", here / "no.json")
    assert_refused(no_file, "no annotation file")
    repeated = refused("predict", scene, scene, "--annotations", truth)
    assert_refused(repeated, "Several images are called", scene.name)
    retrain = detected.record("retrain").fingerprint[:12]
    assert_refused(refused("predict", scene, checkpoint=retrain), "no detect stage")
    no_card = refused("predict", scene, checkpoint=here / "none")
    assert_refused(no_card, "model_card.json", "export")
    assert files(here) == before
    assert not (here / "detections").exists()
    assert not (here / "detector").exists()


# --- export ---


@pytest.mark.ray
@pytest.mark.slow
def test_an_exported_detector_is_the_trained_one_with_its_card(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    folder = here / "exported"
    outcome = bnnas(
        *("detect", "export", "--checkpoint", detected.checkpoint),
        *("--storage", detected.storage, "--output", folder, "--json"),
    )
    assert outcome.json()["status"] == "done"
    assert files(folder) == {
        *("detector.pt", "backbone.pt", "config.py", "model_card.json", "model_card.md")
    }
    kept = detected.store.fetch(detected.record("detect"), DETECTOR, here / "kept.pt")
    assert (folder / "detector.pt").read_bytes() == kept.read_bytes()
    SearchedBackbone(SPACE, ARCH, checkpoint=folder / "backbone.pt")  # takes all that is in it
    # As the model card has it, in Python and on the command line.
    detector = Detector(Config.fromfile(folder / "config.py"), folder / "detector.pt")
    categories = detected.record("detect").result["categories"]
    scenes = image_folder(detected.scenes, "val")
    ours = [
        {
            "image_id": 1,
            "category_id": categories[one["label"]]["id"],
            "bbox": one["bbox"],
            "score": one["score"],
        }
        for one in detector.detect(scenes / f"{1:012d}.png")
    ]
    assert_same_detections(ours, [d for d in detected.detections() if d["image_id"] == 1])
    bnnas("detect", "predict", scenes, "--json", "--checkpoint", folder).json()
    again = read_json(here / "detections/detections.json")
    assert_same_detections(again, detected.detections())
    # The card says what it is, how good, and where it comes from.
    card, record = read_json(folder / "model_card.json"), detected.record("detect")
    assert (card["fingerprint"], card["arch"]) == (record.fingerprint, ARCH)
    assert space_from_dict(card["space"]).num_architectures == 8
    assert {name: card[name] for name in record.metrics} == record.metrics
    assert [category["name"] for category in card["categories"]] == [str(n) for n in range(10)]
    retrained = detected.record("retrain")
    assert card["pretraining"]["fingerprint"] == retrained.fingerprint
    assert card["pretraining"]["top1"] == retrained.metrics["top1"]
    client = MlflowClient(f"sqlite:///{detected.storage}/mlflow.db")
    assert set(card["mlflow_run_ids"]) == {"retrain", "detect"}
    for kind, run_id in card["mlflow_run_ids"].items():
        assert client.get_run(run_id).data.tags["bnnas.stage"] == kind
    text = (folder / "model_card.md").read_text(encoding="utf-8")
    for word in (ARCH, record.fingerprint, *card["mlflow_run_ids"].values()):
        assert word in text


def test_a_torchvision_backbone_is_not_downloaded_to_be_replaced(tmp_path: Path) -> None:
    backbone = {"type": "TorchvisionBackbone", "name": "resnet18", "weights": "IMAGENET1K_V1"}
    stage = {"backbone": backbone, "seed": 0, "detect": DETECT, "weights": None}
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3}
    source = DetectorSource(stage, [{"id": 1, "name": "cat"}], pixels, tmp_path / "detector.pt")
    assert source.runner_config().model.backbone.weights is None


# --- the config for MMDetection's own tools ---


@pytest.mark.ray
@pytest.mark.slow
def test_mmdetections_own_runner_trains_the_same_detector_from_the_dumped_config(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    file = here / "sub" / "own.py"
    outcome = bnnas("detect", detected.config, "--dump-config", file, "--json")
    assert outcome.json()["config"] == str(file)
    assert files(here) == {"sub/own.py", "sub/own.backbone.pt"}
    config = Config.fromfile(file)
    config.update(work_dir=str(here / "work"), log_level="ERROR")
    config.visualizer = {"type": "Visualizer", "vis_backends": None}
    Runner.from_cfg(config).train()
    saved = torch.load(here / "work" / "epoch_2.pth", weights_only=False)["state_dict"]
    theirs = detected.store.fetch(detected.record("detect"), DETECTOR, here / "detector.pt")
    expected = torch.load(theirs, weights_only=True)
    assert saved.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(saved[key], value, rtol=1e-4, atol=1e-5)


# --- wrong requests; what a config may be is tested with its loading and planning ---


def test_a_request_that_cannot_end_in_a_detector_does_not_begin(here: Path, bnnas: Bnnas) -> None:
    scenes = make_digit_scenes(here / "coco", num_train=8, num_val=4, image_size=64)
    values = without(small_detector(), "data", "retrain")
    values = changed(values, detect__data={"name": "coco", "root": str(scenes)})
    other = Subnet(space_from_dict(SPACE), parse_architecture(ARCH), seed=0).stem
    torch.save(other.state_dict(), here / "weights.pt")
    path = write_detector(here)
    before = files(here)
    yaml = bnnas("detect", path, "--dump-config", "own.yaml")
    assert_refused(yaml, "'own.yaml'", "ends in .py")
    early = bnnas("detect", path, "--dump-config", "own.py")
    assert_refused(early, "not pretrained yet", "without --dump-config first")
    torchvision = without(values, "space", "arch")
    write_detector(here, values)
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({**values, "checkpoint": "weights.pt"}, ("weights.pt", "do not fit", "missing first_blo")),
        ({**torchvision, "torchvision": {"name": "resnet19"}}, ("'resnet19'", "torchvision")),
        (
            {**torchvision, "torchvision": {"name": "resnet18", "weights": "IMAGENET"}},
            ("'IMAGENET'", "resnet18 has", "IMAGENET1K_V1"),
        ),
        (changed(values, detect__precision="bfloat16"), ("on GPUs only", "cluster.use_gpu")),
        (changed(values, detect__batch_size=10), ("batch_size is 10", "only 8 images")),
    ]
    for case, words in cases:
        write_detector(here, case)
        assert_refused(bnnas("detect", path), *words)
    write_detector(here, changed(values, detect__batch_size=4))
    for number in (2, 5, 6, 7):
        (image_folder(scenes, "train") / f"{number:012d}.png").unlink()
    missing = (f"{2:012d}.png", f"{5:012d}.png", f"{6:012d}.png, …")
    assert_refused(bnnas("detect", path), "4 of the 8 images", ", ".join(missing))

    # Nor does a run.
    gone = {**DETECT, "data": {"name": "coco", "root": str(here / "gone")}}
    run = changed(small("space.yaml"), data__resolution=32, storage__path=str(here / "runs"))
    for case, words in (
        (changed(run, detect=gone), ("no annotation file", str(here / "gone"))),
        (changed(run, detect=DETECT, space="micro"), ("'micro'", "8, 16, 32")),
    ):
        assert_refused(bnnas("run", write_yaml(here / "run.yaml", case)), *words)
    left = files(here) - before
    assert all(name == "runs/mlflow.db" or "digit-scenes" in name for name in left - {"run.yaml"})
    assert not list((here / "runs").glob("stages/*"))


@pytest.mark.ray
@pytest.mark.slow
def test_who_plans_or_draws_a_detector_needs_neither_torch_nor_mmdetection(
    detected: Detected, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(detected.config), str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = (f"detections_{number}.png" for number in (1, 2, 3))
    assert files(tmp_path) == {"detect_training.png", *shown}
