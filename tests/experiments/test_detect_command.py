"""`bnnas detect`: predict, export, --dump-config; what is wrong is one sentence and leaves nothing.

One detector that was really trained serves all of it; commands run in this process.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmdet.registry
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from pycocotools.coco import COCO

from detection.backbone import SearchedBackbone
from detection.coco.annotation_file import read_annotation_file
from detection.coco.data import annotation_file, image_folder
from detection.coco.digit_scenes import make_digit_scenes
from experiments.detectors.source import DetectorSource
from experiments.stages.detect import DETECTOR
from experiments.stages.setting import IMAGES, WEIGHTS
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

LIGHT = """
import sys
from pathlib import Path
from experiments.commands.ask import plan, status
from experiments.config.load import load_detection
from experiments.plan.detection import plan_detection
from experiments.stages.detect import detection_place
from experiments.stages.detect import draw_detect
from orchestration.store.stage_store import StageStore

config, figures = Path(sys.argv[1]), Path(sys.argv[2])
plan(config, json=True, probe=False)
status(str(config), json=True)
found = plan_detection(load_detection(config))
place = detection_place(found.config)
store = StageStore(found.config.storage.path)
draw_detect(store.get(found.stage.fingerprint), store, place, figures)
heavy = {"ray", "torch", "torchvision", "mmdet", "mmengine", "mmcv", "pycocotools"}
assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""


# The command itself, where every stage is in the store.
CACHED = """
import sys
from experiments.cli import main

sys.argv = ["bnnas", "detect", sys.argv[1], "--quiet", "--set=cluster.address=127.0.0.1:9"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
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


def by_image(detections: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for one in detections:
        found.setdefault(one["image_id"], []).append(one)
    return found


def assert_same_detections(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine["image_id"], mine["category_id"]) == (other["image_id"], other["category_id"])
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
        assert mine["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def exported(here: Path, bnnas: Bnnas, detected: Detected) -> Path:
    folder = here / "exported"
    outcome = bnnas(
        *("detect", "export", "--checkpoint", detected.checkpoint),
        *("--storage", detected.storage, "--output", folder, "--json"),
    )
    assert outcome.json()["status"] == "done"
    return folder


# --- predict ---


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_found_in_validation_images_is_what_the_evaluation_found(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    truth = annotation_file(detected.scenes, "val")
    outcome = bnnas(
        *("detect", "predict", image_folder(detected.scenes, "val"), "--annotations", truth),
        *("--checkpoint", detected.checkpoint, "--storage", detected.storage, "--json"),
    )
    document = outcome.json()
    folder = here / "detections"
    assert document["status"] == "done"
    names = {image["id"]: Path(image["file_name"]) for image in read_annotation_file(truth).images}
    drawn = {f"{number}_{name.stem}.png" for number, name in names.items()}
    assert files(here) == {f"detections/{n}" for n in (*drawn, "detections.json", "images.json")}

    detections = read_json(folder / "detections.json")
    assert document["num_detections"] == len(detections)
    assert {tuple(sorted(one)) for one in detections} == {
        ("bbox", "category_id", "image_id", "score")
    }
    stored = by_image(detected.detections())
    for number, ours in by_image(detections).items():
        assert_same_detections(ours, stored.pop(number))
    assert not stored
    assert len(COCO(str(truth)).loadRes(str(folder / "detections.json")).anns) == len(detections)
    listed = {image["id"]: image for image in read_json(folder / "images.json")}
    assert {number: Path(image["file_name"]).name for number, image in listed.items()} == {
        number: name.name for number, name in names.items()
    }
    assert {(image["width"], image["height"]) for image in listed.values()} == {(64, 64)}


@pytest.mark.ray
@pytest.mark.slow
def test_other_images_are_numbered_and_drawn_at_their_threshold(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "own.jpg")
    scene = min(image_folder(detected.scenes, "train").iterdir())
    base = (
        *("detect", "predict", here / "own.jpg", scene),
        *("--storage", detected.storage, "--checkpoint", detected.checkpoint),
    )
    all_drawn = bnnas(*base, "--output", "all", "--threshold", 0, "--json").json()
    none_drawn = bnnas(*base, "--output", "none", "--threshold", 1, "--json").json()
    assert [image["id"] for image in all_drawn["images"]] == [1, 2]
    assert all_drawn["num_drawn"] == all_drawn["num_detections"] > 0
    assert none_drawn["num_drawn"] == 0
    assert read_json(here / "all/detections.json") == read_json(here / "none/detections.json")
    for name in ("1_own.png", f"2_{scene.stem}.png"):
        ours, theirs = ((here / folder / name).read_bytes() for folder in ("all", "none"))
        assert ours != theirs
    # A photograph that a camera has turned is as its viewers show it.
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels).save(here / "turned.jpg", exif=turned)
    tail = base[4:]
    bnnas("detect", "predict", here / "turned.jpg", *tail, "--output", "turned", "--json").json()
    (listed,) = read_json(here / "turned" / "images.json")
    assert (listed["width"], listed["height"]) == (50, 70)
    with Image.open(here / "turned" / "1_turned.png") as drawn:
        assert drawn.height / drawn.width == 70 / 50
    text = bnnas(*base, "--output", "text", "--threshold", 0).out
    assert "2 drawn" in text
    assert f"{all_drawn['num_detections']} of any score" in text


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_request_to_predict_writes_nothing(
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
            *("detect", "predict", *arguments),
            *("--checkpoint", checkpoint, "--storage", detected.storage),
        )

    assert_refused(refused(scene, "--output", "full"), "'full'", "already")
    assert_refused(refused(here / "gone.png"), "no image", "gone.png")
    assert_refused(refused(here / "text.png"), "text.png", "cannot be read as an image")
    assert_refused(refused(here / "none"), "none holds no images")
    unknown = refused(here / "unknown.png", "--annotations", truth)
    assert_refused(unknown, str(truth), "does not name 1 of the 1 images", "unknown.png")
    assert_refused(refused(scene, "--annotations", here / "no.json"), "no annotation file")
    twice = refused(scene, scene, "--annotations", truth)
    assert_refused(twice, "Several images are called", scene.name)
    assert_refused(refused(scene, checkpoint="0123456789"), "no detect stage", "'0123456789'")
    assert_refused(refused(scene, checkpoint="nowhere"), "'nowhere'", "at least 8 digits")
    retrain = detected.record("retrain").fingerprint[:12]
    assert_refused(refused(scene, checkpoint=retrain), "no detect stage")
    assert_refused(refused(scene, checkpoint=here / "none"), "model_card.json", "export")
    assert files(here) == before
    assert not (here / "detections").exists()


# --- export ---


@pytest.mark.ray
@pytest.mark.slow
def test_an_exported_detector_is_the_trained_one(
    here: Path, bnnas: Bnnas, detected: Detected, exported: Path
) -> None:
    assert files(exported) == {
        "detector.pt",
        "backbone.pt",
        "config.py",
        "model_card.json",
        "model_card.md",
    }
    state = torch.load(exported / "detector.pt", weights_only=True)
    kept = detected.store.fetch(detected.record("detect"), DETECTOR, here / "kept.pt")
    assert (exported / "detector.pt").read_bytes() == kept.read_bytes()
    backbone = SearchedBackbone(SPACE, ARCH, checkpoint=exported / "backbone.pt")
    assert backbone.state_dict().keys() == torch.load(exported / "backbone.pt").keys()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[f"backbone.{key}"])

    scenes = image_folder(detected.scenes, "val")
    arguments = ("detect", "predict", scenes, "--json", "--checkpoint")
    bnnas(*arguments, exported, "--output", "a").json()
    bnnas(*arguments, detected.checkpoint, "--storage", detected.storage, "--output", "b").json()
    assert files(here / "a") == files(here / "b")
    for name in files(here / "a"):
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()


@pytest.mark.ray
@pytest.mark.slow
def test_the_card_says_what_it_is_how_good_and_where_it_comes_from(
    detected: Detected, exported: Path
) -> None:
    card, record = read_json(exported / "model_card.json"), detected.record("detect")
    assert card["fingerprint"] == record.fingerprint
    assert card["arch"] == ARCH
    assert space_from_dict(card["space"]).num_architectures == 8
    for name, value in record.metrics.items():
        assert card[name] == value
    assert [category["name"] for category in card["categories"]] == [str(n) for n in range(10)]
    retrained = detected.record("retrain")
    assert card["pretraining"]["fingerprint"] == retrained.fingerprint
    assert card["pretraining"]["top1"] == retrained.metrics["top1"]
    client = MlflowClient(f"sqlite:///{detected.storage}/mlflow.db")
    assert set(card["mlflow_run_ids"]) == {"retrain", "detect"}
    for kind, run_id in card["mlflow_run_ids"].items():
        assert client.get_run(run_id).data.tags["bnnas.stage"] == kind
    text = (exported / "model_card.md").read_text(encoding="utf-8")
    for word in (ARCH, record.fingerprint, *card["mlflow_run_ids"].values()):
        assert word in text


@pytest.mark.ray
@pytest.mark.slow
def test_the_python_of_the_card_works(detected: Detected, exported: Path) -> None:
    from detection.inference import Detector

    detector = Detector(Config.fromfile(exported / "config.py"), exported / "detector.pt")
    scene = image_folder(detected.scenes, "val") / f"{1:012d}.png"
    categories = detected.record("detect").result["categories"]
    ours = [
        {
            "image_id": 1,
            "category_id": categories[one["label"]]["id"],
            "bbox": one["bbox"],
            "score": one["score"],
        }
        for one in detector.detect(scene)
    ]
    assert_same_detections(ours, by_image(detected.detections())[1])


class Payload:
    """Code that would run if somebody unpickled it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.ray
@pytest.mark.slow
def test_code_among_the_weights_is_refused_and_not_run(
    here: Path, bnnas: Bnnas, detected: Detected, exported: Path
) -> None:
    with (exported / "detector.pt").open("wb") as stream:
        pickle.dump(Payload(here / "ran"), stream)
    scene = image_folder(detected.scenes, "val") / f"{1:012d}.png"
    outcome = bnnas("detect", "predict", scene, "--checkpoint", exported)
    assert_refused(outcome, "detector.pt", "more than tensors", "nothing in it was run")
    assert not (here / "ran").exists()
    assert not (here / "detections").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_request_to_export_writes_nothing(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    before = files(here)
    base = ("detect", "export", "--storage", detected.storage, "--checkpoint")
    assert_refused(bnnas(*base, detected.checkpoint, "--output", "full"), "'full'", "already")
    assert_refused(bnnas(*base, "0123456789"), "no detect stage")
    assert_refused(bnnas(*base, "there"), "at least 8 digits")
    assert files(here) == before
    assert not (here / "detector").exists()


def test_a_torchvision_backbone_is_not_downloaded_to_be_replaced(tmp_path: Path) -> None:
    backbone = {"type": "TorchvisionBackbone", "name": "resnet18", "weights": "IMAGENET1K_V1"}
    section = {**DETECT, "out_strides": [8, 16, 32], "val_interval": 1, "momentum": 0.9}
    section |= {"clip_norm": 10.0, "weight_decay": 0, "warmup_epochs": 1, "optimizer": "sgd"}
    section |= {"precision": "float32"}
    stage = {"backbone": backbone, "seed": 0, "detect": section, "weights": None}
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3}
    source = DetectorSource(stage, [{"id": 1, "name": "cat"}], pixels, tmp_path / "detector.pt")
    assert source.runner_config().model.backbone.weights is None


# --- the config for MMDetection's own tools ---


@pytest.mark.ray
@pytest.mark.slow
def test_the_dumped_config_begins_with_the_retrained_backbone(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    outcome = bnnas("detect", detected.config, "--dump-config", here / "sub" / "own.py", "--json")
    assert outcome.json()["config"] == str(here / "sub" / "own.py")
    assert files(here) == {"sub/own.py", "sub/own.backbone.pt"}
    config = Config.fromfile(here / "sub" / "own.py")
    record = detected.record("retrain")
    expected = torch.load(
        detected.store.fetch(record, WEIGHTS, here / "network.pt"), weights_only=True
    )
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = mmdet.registry.MODELS.build(config.model)
    found = model.backbone.state_dict()
    assert len(found) > 20
    for key, value in found.items():
        assert torch.equal(value, expected[key])
    images = json.loads(detected.store.read_bytes(record, IMAGES))
    for name in ("mean", "std"):
        assert config.model.data_preprocessor[name] == [255 * value for value in images[name]]
    assert len(images["mean"]) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_mmdetections_own_runner_trains_the_same_detector(
    here: Path, bnnas: Bnnas, detected: Detected
) -> None:
    bnnas("detect", detected.config, "--dump-config", "own.py", "--json").json()
    config = Config.fromfile(here / "own.py")
    config.update(work_dir=str(here / "work"), log_level="ERROR")
    config.visualizer = {"type": "Visualizer", "vis_backends": None}
    runner = Runner.from_cfg(config)
    runner.train()
    saved = torch.load(here / "work" / "epoch_2.pth", weights_only=False)
    theirs = detected.store.fetch(detected.record("detect"), DETECTOR, here / "detector.pt")
    expected = torch.load(theirs, weights_only=True)
    assert saved["state_dict"].keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(saved["state_dict"][key], value, rtol=1e-4, atol=1e-5)


def test_a_config_that_cannot_be_dumped(here: Path, bnnas: Bnnas) -> None:
    path = write_detector(here)
    before = files(here)
    yaml = bnnas("detect", path, "--dump-config", "own.yaml")
    assert_refused(yaml, "'own.yaml'", "ends in .py")
    early = bnnas("detect", path, "--dump-config", "own.py")
    assert_refused(early, "not pretrained yet", "without --dump-config first")
    assert files(here) == before


# --- wrong requests ---


def write_coco_detector(folder: Path, **changes: Any) -> Path:
    """A detector of images in COCO's format, without pretraining."""
    root = make_digit_scenes(folder / "coco", num_train=8, num_val=4, image_size=64)
    values = without(small_detector(), "data", "retrain")
    data = {"name": "coco", "root": str(root)}
    return write_detector(folder, values, detect__data=data, **changes)


def edit(folder: Path, split: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = annotation_file(folder / "coco", split)
    document = read_json(file)
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def no_file(folder: Path) -> None:
    annotation_file(folder / "coco", "val").unlink()


def no_images(folder: Path) -> None:
    for number in (2, 5, 6, 7):
        (image_folder(folder / "coco", "train") / f"{number:012d}.png").unlink()


def other_order(folder: Path) -> None:
    edit(folder, "val", lambda document: document["categories"].reverse())


def outside(folder: Path) -> None:
    edit(folder, "train", lambda document: document["annotations"][0].update(bbox=[60, 0, 9, 9]))


def no_area(folder: Path) -> None:
    edit(folder, "train", lambda document: document["annotations"][3].update(bbox=[1, 1, 0, 9]))


def no_coco(folder: Path) -> None:
    annotation_file(folder / "coco", "train").write_text('{"images": []}', encoding="utf-8")


def no_json(folder: Path) -> None:
    annotation_file(folder / "coco", "train").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_file, ("instances_val2017.json", "No such file", "detect.data.root")),
        (no_images, ("4 of the 8 images", f"{2:012d}.png, {5:012d}.png, {6:012d}.png, …")),
        (other_order, ("instances_val2017.json", "in another order", "9, 8, 7, …")),
        (outside, ("1 reach outside their image", "annotation ids 1", "[x, y, width, height]")),
        (no_area, ("1 have no area", "annotation ids 4")),
        (no_coco, ("instances_train2017.json", "not in COCO's format", "annotations")),
        (no_json, ("instances_train2017.json", "is not JSON")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_images_that_cannot_be_used(
    here: Path, bnnas: Bnnas, spoil: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    path = write_coco_detector(here, detect__batch_size=4)
    spoil(here)
    before = files(here)
    assert_refused(bnnas("detect", path), *words)
    assert files(here) <= {*before, "runs/mlflow.db"}


def torchvision(name: str, weights: str | None = None) -> dict[str, Any]:
    return {"torchvision": {"name": name, "weights": weights}, "space": None, "arch": None}


BACKBONES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"space": "micro", "arch": "0 0 0 0 0 0 0 0"}, ("'micro'", "1, 2, 4", "8, 16, 32")),
    ({"torchvision": {"name": "resnet18"}}, ("torchvision", "space, arch say nothing")),
    ({"space": None, "arch": None}, ("there is no backbone", "space and arch")),
    ({"data": {"name": "digits"}}, ("data is given without retrain",)),
    ({"arch": "0 0"}, ("2 choices", "3 layers")),
    ({"checkpoint": "0123456789"}, ("no retrain stage", "'0123456789'")),
    ({"checkpoint": "weights.pt", "arch": None}, ("'weights.pt'", "give space and arch")),
    ({"checkpoint": "weights.pt"}, ("weights.pt", "do not fit", "missing first_block")),
    (torchvision("resnet19"), ("'resnet19'", "torchvision")),
    (torchvision("resnet18", "IMAGENET"), ("'IMAGENET'", "resnet18 has", "IMAGENET1K_V1")),
]
SECTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"detect__precision": "bfloat16"}, ("'bfloat16'", "on GPUs only", "cluster.use_gpu")),
    ({"detect__batch_size": 9}, ("detect.batch_size is 9", "only 8 images")),
    ({"cluster__num_workers": 3}, ("detect.batch_size is 8", "3 workers")),
    ({"detect__batchsize": 4}, ("detect.batchsize", "did you mean 'batch_size'?")),
    ({"detect__data": {}}, ("detect.data", "root is missing")),
]


@pytest.mark.parametrize(("changes", "words"), [*BACKBONES, *SECTIONS], ids=str)
def test_a_wrong_config(
    here: Path, bnnas: Bnnas, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    path = write_coco_detector(here)
    other = Subnet(space_from_dict(SPACE), parse_architecture(ARCH), seed=0).stem
    torch.save(other.state_dict(), here / "weights.pt")
    values = {"storage": {"path": str(here / "runs")}, **without(small_detector(), "retrain")}
    del values["data"]
    values["detect"] = {**DETECT, "data": {"name": "coco", "root": str(here / "coco")}}
    write_yaml(path, changed(values, **changes))
    before = files(here)
    assert_refused(bnnas("detect", path), *words)
    assert files(here) <= {*before, "runs/mlflow.db"}


def test_every_file_has_its_command(here: Path, bnnas: Bnnas) -> None:
    run = changed(small("micro_detection"), detect=DETECT)
    path = write_yaml(here / "run.yaml", run)
    assert_refused(bnnas("detect", path), "'bnnas run' starts it", "a search")
    path = write_yaml(here / "sweep.yaml", changed(run, grid={"trainable": ["all", "bn"]}))
    assert_refused(bnnas("detect", path), "'bnnas sweep' starts it")
    path = write_detector(here)
    assert_refused(bnnas("run", path), "start it with 'bnnas detect'")
    assert_refused(bnnas("detect", here / "none.yaml"), "no config file", "none.yaml")
    assert_refused(bnnas("detect", "--space", "spos"), "detect.data is missing")


def test_a_run_that_could_not_end_in_detection_does_not_begin(here: Path, bnnas: Bnnas) -> None:
    write_yaml(here / "space.yaml", SPACE)
    values = changed(small("space.yaml"), data__resolution=32, storage__path=str(here / "runs"))
    section = {**DETECT, "data": {"name": "coco", "root": str(here / "gone")}}
    path = write_yaml(here / "run.yaml", changed(values, detect=section))
    assert_refused(bnnas("run", path), "no annotation file", str(here / "gone"))
    path = write_yaml(here / "run.yaml", changed(values, detect=DETECT, space="micro"))
    assert_refused(bnnas("run", path), "'micro'", "8, 16, 32")
    path = write_yaml(here / "run.yaml", changed(values, detect={**DETECT, "batch_size": 17}))
    assert_refused(bnnas("run", path), "detect.batch_size is 17", "only 16 images")
    assert not list((here / "runs").glob("stages/*"))


# --- what is light stays light ---


@pytest.mark.ray
@pytest.mark.slow
def test_the_process_that_starts_jobs_needs_neither_torch_nor_mmdetection(
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
    assert files(tmp_path) == {
        "detect_training.png",
        *(f"detections_{number}.png" for number in (1, 2, 3)),
    }


@pytest.mark.ray
@pytest.mark.slow
def test_neither_does_the_command_that_finds_everything_made(
    detected: Detected, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CACHED, str(detected.config)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_answers_for_every_command(bnnas: Bnnas) -> None:
    for command in ((), ("train",), ("predict",), ("export",)):
        outcome = bnnas("detect", *command, "--help")
        assert outcome.status == 0
        assert "Usage" in outcome.out
