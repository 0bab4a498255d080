"""Published experiments: every file is read, described, and says what it is said to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from experiments.config.describe import commented_yaml, document
from experiments.config.detect import DetectConfig
from experiments.config.experiment import CellConfig, DetectorConfig
from experiments.config.load import load_experiment

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "experiments" / "configs").glob("*.yaml"))


def path_of(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_described_is_the_experiment(path: Path, tmp_path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    described = tmp_path / "described.yaml"
    described.write_text(commented_yaml(experiment), encoding="utf-8")
    assert load_experiment(described) == experiment


def test_the_page_of_fields_is_current() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == document(), "python -m experiments.config.describe > docs/config.md"


def test_every_field_is_described() -> None:
    waiting: list[type[BaseModel]] = [CellConfig, DetectorConfig]
    seen = set()
    while waiting:
        section = waiting.pop()
        seen.add(section)
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            assert field.description.endswith("."), f"{section.__name__}.{name}"
            options = (field.annotation, *getattr(field.annotation, "__args__", ()))
            waiting += [
                option
                for option in options
                if isinstance(option, type) and issubclass(option, BaseModel)
            ]
    assert len(seen) >= 14


def test_table_3s_rows_differ_in_the_backbone_alone() -> None:
    """All are trained by the recipe that is the default of the detect section."""
    rows = [load_experiment(path).detector for path in CONFIGS if "detect_coco" in path.stem]
    assert len(rows) == 5
    recipe = DetectConfig.model_validate({"data": {"name": "coco", "root": "data/coco"}})
    assert (recipe.batch_size, recipe.epochs) == (128, 300)
    for row in rows:
        assert row is not None
        assert row.detect.model_copy(update={"num_workers": 0}) == recipe
        assert rows[0] is not None
        assert (row.seed, row.cluster) == (rows[0].seed, rows[0].cluster)


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
    sweep = load_experiment(path_of(name))
    assert sweep.axes == {
        "supernet.trainable": ("all", "bn"),
        "search.indicator": ("accuracy", "bn"),
        "supernet.epochs": epochs,
    }
    assert len(sweep.cells) == 12
    for cell in sweep.cells:
        assert_paper(cell, space, sampler, max_flops)
        searcher = "exact" if cell.search.indicator == "bn" else "evolution"
        assert cell.search.searcher == searcher
        assert cell.random_baseline.num_architectures == 5


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
    (config,) = load_experiment(path_of(name)).cells
    assert_paper(config, space, sampler, max_flops)
    assert (config.supernet.trainable, config.supernet.epochs) == ("all", epochs)
    assert (config.search.indicator, config.search.searcher) == ("accuracy", "evolution")


def test_the_papers_correlation() -> None:
    """Section 4.5.2: 600 epochs on CIFAR-10, 100 architectures drawn at random, retrained."""
    (config,) = load_experiment(path_of("correlation_cifar10")).cells
    trained = (config.data.name, config.supernet.epochs, config.retrain.epochs)
    assert trained == ("cifar10", 600, 240)
    assert (config.correlate.num_architectures, config.correlate.num_strata) == (100, 1)
    assert {"bn", "accuracy", "naswot", "synflow"} <= set(config.correlate.indicators)


def assert_paper(config: CellConfig, space: str, sampler: str, max_flops: float) -> None:
    """Section 4.1."""
    assert (config.space, config.supernet.sampler) == (space, sampler)
    assert (config.search.max_flops, config.retrain.epochs) == (max_flops, 240)
    evolution = config.search.evolution
    assert (evolution.num_iterations, evolution.population) == (20, 50)
    recipe: dict[str, Any] = {"batch_size": 1024, "lr": 0.8, "warmup_lr": 0.2, "warmup_epochs": 5}
    for section in (config.supernet, config.retrain):
        assert recipe.items() <= section.model_dump().items()
