"""A retrained network's MLflow model: what is in it, and that it loads where nothing of ours is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

import nas.data
from detection.coco.data import image_folder
from experiments.plan.cell_plan import CellPlan
from experiments.stages import retrain
from experiments.stages.logged_model import write_subnet
from experiments.stages.worker_place import EXAMPLE, IMAGES, WEIGHTS
from nas.data.memory import MemoryImageSet
from nas.network import Subnet
from nas.space import format_architecture, parse_architecture
from orchestration.store.stage_store import StageRecord, StageStore
from tests.experiments.configs import small_plan
from tests.experiments.detectors import Detected
from tests.experiments.recorded import Recorded
from tests.experiments.stage_work import payload, put, run, saved

Images = npt.NDArray[np.float32]

# What a user does in a process of their own; the project is on none of its paths.
HIDDEN = """
import importlib.util, sys
from pathlib import Path
sys.path[:] = [path for path in sys.path if not Path(path, "experiments").is_dir()]  # -e installs
assert importlib.util.find_spec("experiments") is importlib.util.find_spec("orchestration") is None
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
"""
USER = f"""{HIDDEN}
numpy.save("example.npy", model.input_example)
numpy.save("logits.npy", model.predict(numpy.load(sys.argv[2])))
raw = model.get_raw_model()
assert not raw.network.training
numpy.save("raw.npy", raw.network(__import__("torch").from_numpy(numpy.load(sys.argv[2]))).detach())
numpy.savez("normalisation.npz", mean=raw.mean, std=raw.std, class_names=raw.class_names)
"""
DETECTOR_USER = f"""{HIDDEN}
from PIL import Image
images = [numpy.asarray(Image.open(path).convert("RGB")) for path in sys.argv[2:]]
model.predict(numpy.stack(images)).to_json("objects.json", orient="records")
"""


@dataclass(frozen=True)
class Retrained:
    """A retrained network, in the store and in this process."""

    cell: CellPlan
    record: StageRecord
    store: StageStore
    subnet: Subnet
    images_BCHW: Images

    def logits(self) -> Images:
        with torch.inference_mode():
            logits: Images = self.subnet(torch.from_numpy(self.images_BCHW)).numpy()
        return logits


def first_validated(num_images: int) -> Images:
    data = nas.data.load_data("digits", max_train_images=128)
    images_BCHW, _ = next(data.search_val.batches(num_images, training=False))
    images: Images = images_BCHW.numpy()
    return images


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    folder = tmp_path_factory.mktemp("retrained")
    cell = small_plan(folder)
    arch = cell.baseline_archs[0]
    stage, store = cell.retrain(arch), StageStore(folder / "runs")
    context = run(retrain.work, payload(stage, folder), folder / "job")
    found = {"arch": format_architecture(arch)}
    record = put(store, stage, context, result=found, metrics={"top1": 0.5})
    subnet = Subnet(cell.space, arch, seed=123)
    subnet.load_state_dict(saved(context))
    subnet.eval()
    return Retrained(cell, record, store, subnet, first_validated(5))


@pytest.fixture(scope="module")
def model_folder(retrained: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_subnet(retrained.record, retrained.store, folder)
    return folder


def test_retraining_keeps_an_example_and_the_normalisation(retrained: Retrained) -> None:
    place = retrained.store.fetch(retrained.record, EXAMPLE, Path(retrained.store.path) / "e.npy")
    np.testing.assert_array_equal(np.load(place), first_validated(1))
    images = json.loads(retrained.store.read_bytes(retrained.record, IMAGES))
    data = nas.data.load_data("digits", max_train_images=128)
    assert images["class_names"] == list("0123456789")
    assert isinstance(data.search_val, MemoryImageSet)
    pixels = (data.search_val.pixels_NCHW[:1] - images["mean"]) / images["std"]
    np.testing.assert_allclose(pixels, first_validated(1), rtol=1e-5)


def test_the_folder_names_what_it_needs_and_holds_no_more(model_folder: Path) -> None:
    described = yaml.safe_load((model_folder / "MLmodel").read_text(encoding="utf-8"))
    signature = described["signature"]
    inputs, outputs = (json.loads(signature[side])[0] for side in ("inputs", "outputs"))
    assert inputs["tensor-spec"] == {"dtype": "float32", "shape": [-1, 1, 8, 8]}
    assert outputs["tensor-spec"] == {"dtype": "float32", "shape": [-1, 10]}
    requirements = (model_folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line.partition("==")[0] for line in requirements} == {"mlflow", "torch", "numpy"}
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    files = {str(file.relative_to(model_folder)) for file in model_folder.rglob("*")}
    assert {name for name in files if name.startswith("code/")} == {
        "code/nas",
        *(f"code/nas/{module}.py" for module in ("__init__", "blocks", "cost", "network", "space")),
        "code/subnet_model.py",
    }
    assert {"data/subnet/network.pt", "data/subnet/model.json", "input_example.json"} <= files


def test_a_lock_file_where_the_user_stands_stays_there(
    retrained: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write_subnet(retrained.record, retrained.store, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.lock"))
    assert not (tmp_path / "model" / "pyproject.toml").exists()


def elsewhere(program: str, *arguments: str, folder: Path) -> None:
    """Run a program in another process that knows nothing of the project."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    user = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**environment, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert user.returncode == 0, user.stderr


def load_elsewhere(model: str, images_BCHW: Images, folder: Path) -> Callable[[str], Images]:
    """Load and ask the model there."""
    np.save(folder / "images.npy", images_BCHW)
    elsewhere(USER, model, str(folder / "images.npy"), folder=folder)
    return lambda name: np.asarray(np.load(folder / name))


def test_another_process_without_the_project_gets_the_same_logits(
    retrained: Retrained, model_folder: Path, tmp_path: Path
) -> None:
    found = load_elsewhere(str(model_folder), retrained.images_BCHW, tmp_path)
    logits = found("logits.npy")
    assert logits.shape == (5, 10)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, retrained.logits())
    np.testing.assert_array_equal(found("raw.npy"), retrained.logits())
    np.testing.assert_array_equal(found("example.npy"), first_validated(1))
    normalisation = np.load(tmp_path / "normalisation.npz")
    images = json.loads(retrained.store.read_bytes(retrained.record, IMAGES))
    for name, value in images.items():
        assert normalisation[name].tolist() == value


def test_writing_a_model_needs_no_torch(retrained: Retrained, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from experiments.stages.retrain import write_subnet\n"
        "from orchestration.store.stage_store import StageStore\n"
        "store = StageStore(sys.argv[1])\n"
        "write_subnet(store.get(sys.argv[2]), store, Path(sys.argv[3]))\n"
        "assert 'torch' not in sys.modules\n"
    )
    arguments = [retrained.store.path, retrained.record.fingerprint, str(tmp_path / "model")]
    driver = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert driver.returncode == 0, driver.stderr
    assert driver.stderr == ""  # MLflow tells of nothing that a terminal should show
    assert (tmp_path / "model" / "MLmodel").is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_a_detectors_model_gives_its_detections_without_the_project(
    recorded: Recorded, detected: Detected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recorded.uri)
    run = recorded.client.get_run(detected.result["mlflow_run_id"])
    assert run.outputs is not None
    (model,) = run.outputs.model_outputs
    images = sorted(image_folder(detected.scenes, "val").iterdir())[:3]
    elsewhere(DETECTOR_USER, f"models:/{model.model_id}", *map(str, images), folder=tmp_path)
    rows = json.loads((tmp_path / "objects.json").read_text())
    expected = [one for one in detected.detections() if one["image_id"] <= 3]
    assert [(row["image"] + 1, row["label"] + 1) for row in rows] == [
        (one["image_id"], one["category_id"]) for one in expected
    ]
    for row, one in zip(rows, expected, strict=True):
        assert row["class_name"] == str(row["label"])
        assert row["score"] == pytest.approx(one["score"], abs=1e-5)
        box = [row[side] for side in ("x", "y", "width", "height")]
        assert box == pytest.approx(one["bbox"], abs=1e-2)


@pytest.mark.ray
@pytest.mark.slow
def test_the_winner_of_a_sweep_is_registered_with_its_model(
    recorded: Recorded, retrained: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = recorded.sweep.winner
    assert winner is not None
    assert winner.retrained is not None
    # Not chosen by the test set.
    best = max(cell.records[-1].history[-1]["val/top1"] for cell in recorded.sweep.cells)
    assert winner.retrained.history[-1]["val/top1"] == best
    version = recorded.client.get_model_version_by_alias("sweep", "winner")
    assert version.run_id == winner.stages[-1].mlflow_run_id
    assert len(recorded.client.search_model_versions("name = 'sweep'")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recorded.uri)
    found = load_elsewhere("models:/sweep@winner", retrained.images_BCHW, tmp_path)
    fingerprint, arch = winner.retrained.fingerprint, winner.retrained.result["arch"]
    weights = recorded.store.fetch(fingerprint, WEIGHTS, tmp_path / WEIGHTS)
    subnet = Subnet(retrained.cell.space, parse_architecture(arch), seed=123)
    subnet.load_state_dict(torch.load(weights, weights_only=True))
    expected = replace(retrained, subnet=subnet.eval()).logits()
    np.testing.assert_array_equal(found("logits.npy"), expected)
