"""Published experiments: every file plans, and says what it is said to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from detection.coco.digit_scenes import make_digit_scenes
from experiments.commands import ask
from experiments.config.cell import Config
from experiments.config.cells import Cells
from experiments.config.detect import DetectConfig
from experiments.config.detection import DetectionConfig
from experiments.config.load import (
    load_config,
    load_correlation,
    load_detection,
    load_experiment,
    load_sweep,
)
from experiments.config.study import Correlation
from tests.nas.data_files import write_cifar10, write_fashion_mnist

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "configs").glob("*.yaml"))

app = typer.Typer()
app.command()(ask.plan)
app.command()(ask.status)


def path_of(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


@pytest.fixture(scope="module")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images as ImageNet has one, with two classes."""
    root = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(root / part / name / "0.png")
    return root


@pytest.fixture(scope="module")
def scene_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with boxes in COCO's layout."""
    root = tmp_path_factory.mktemp("coco") / "scenes"
    return make_digit_scenes(root, num_train=2, num_val=1, image_size=32)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_plans(
    path: Path,
    image_root: Path,
    scene_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = load_experiment(path)
    config = experiment.shared if isinstance(experiment, Cells) else experiment
    data = None if config.data is None else config.data.name
    arguments = ["plan", str(path), "--no-probe", "--json", f"--set=storage.path={tmp_path}"]
    if data == "imagefolder":
        arguments.append(f"--set=data.root={image_root}")
    elif data == "fashion_mnist":
        write_fashion_mnist(tmp_path / "fashion", gzipped=False, num_train=400)
        arguments.append(f"--set=data.root={tmp_path}/fashion")
    elif data == "cifar10":
        write_cifar10(tmp_path / "cifar", monkeypatch)
        arguments.append(f"--set=data.root={tmp_path}/cifar")
    if config.detect is not None and config.detect.data.name == "coco":
        arguments.append(f"--set=detect.data.root={scene_root}")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert document["name"] == path.stem
    cells = {name for stage in document["stages"] for name in stage["cells"]} - {"random"}
    if isinstance(experiment, Cells):
        assert len(cells) == len(experiment.cells)
    else:
        assert len(cells) == 1
    assert document["num_cached"] == 0
    kinds = {stage["kind"] for stage in document["stages"]}
    assert ("detect" in kinds) == (config.detect is not None)
    assert ("search" in kinds) == (not isinstance(experiment, DetectionConfig | Correlation))
    assert ("score" in kinds) == isinstance(experiment, Correlation)


TABLE_3 = ("searched", "efficientnet_b0", "mobilenet_v2", "resnet18", "shufflenet_v2_x1_0")


def test_table_3s_rows_differ_in_the_backbone_alone() -> None:
    """All are trained by the recipe that is the default of the detect section."""
    rows = [load_detection(path_of(f"detect_coco_{name}")) for name in TABLE_3]
    assert {path.stem for path in CONFIGS if path.stem.startswith("detect_coco_")} == {
        row.name for row in rows
    }
    recipe = DetectConfig.model_validate({"data": {"name": "coco", "root": "data/coco"}})
    for row in rows:
        assert row.detect.model_copy(update={"num_workers": 0}) == recipe
        assert (row.seed, row.cluster) == (rows[0].seed, rows[0].cluster)
    assert recipe.batch_size == 128
    assert recipe.epochs == 300


@pytest.mark.parametrize(
    ("name", "space", "sampler", "epochs", "max_flops"),
    [
        ("ablation_imagenet_spos", "spos", "uniform", (10, 30, 100), 475e6),
        ("ablation_imagenet_fairnas", "fairnas", "fair", (15, 45, 150), 325e6),
    ],
)
def test_the_papers_ablations(
    name: str, space: str, sampler: str, epochs: tuple[int, ...], max_flops: float
) -> None:
    sweep = load_sweep(path_of(name))
    grid = dict(sweep.settings.grid)
    assert grid == {"trainable": ("all", "bn"), "indicator": ("accuracy", "bn"), "epochs": epochs}
    assert len(sweep.cells) == 12
    for cell in sweep.cells:
        assert_paper(cell, space, sampler, max_flops)
        searcher = "exact" if cell.search.indicator == "bn" else "evolution"
        assert cell.search.searcher == searcher
    assert sweep.shared.random_baseline.num_architectures == 5


@pytest.mark.parametrize(
    ("name", "space", "sampler", "epochs", "max_flops"),
    [
        ("spos_baseline", "spos", "uniform", 100, 475e6),
        ("fairnas_baseline", "fairnas", "fair", 150, 325e6),
    ],
)
def test_the_papers_baselines(
    name: str, space: str, sampler: str, epochs: int, max_flops: float
) -> None:
    config = load_config(path_of(name))
    assert_paper(config, space, sampler, max_flops)
    assert (config.supernet.trainable, config.supernet.epochs) == ("all", epochs)
    assert (config.search.indicator, config.search.searcher) == ("accuracy", "evolution")


def test_the_papers_correlation() -> None:
    """Section 4.5.2: 600 epochs on CIFAR-10, 100 architectures drawn at random, retrained."""
    (config,) = load_correlation(path_of("correlation_cifar10")).cells
    assert (config.data.name, config.supernet.epochs, config.retrain.epochs) == (
        "cifar10",
        600,
        240,
    )
    correlate = config.correlate
    assert (correlate.num_architectures, correlate.num_strata) == (100, 1)
    assert {"bn", "accuracy", "naswot", "synflow"} <= set(correlate.indicators)


def assert_paper(config: Config, space: str, sampler: str, max_flops: float) -> None:
    """Section 4.1."""
    assert (config.space, config.supernet.sampler) == (space, sampler)
    assert (config.search.max_flops, config.retrain.epochs) == (max_flops, 240)
    evolution = config.search.evolution
    assert (evolution.num_iterations, evolution.population) == (20, 50)
    recipe: dict[str, Any] = {"batch_size": 1024, "lr": 0.8, "warmup_lr": 0.2, "warmup_epochs": 5}
    for section in (config.supernet, config.retrain):
        assert recipe.items() <= section.model_dump().items()
