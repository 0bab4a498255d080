"""What needs a real GPU: `make test-gpu` runs it, `make test` leaves it out where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.stages.worker_place import WEIGHTS
from nas.latency import latency_table
from nas.network import Subnet
from nas.training import evaluate, recalibrate
from orchestration.cluster.scaling import Scaling
from orchestration.jobs.train_job import run_train_job
from orchestration.jobs.worker import WorkerContext
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import ACCURACY, write_config
from tests.experiments.detectors import write_detector
from tests.experiments.recorded import run_file
from tests.nas.examples import TINY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
ARCH = tuple(0 if layer in TINY.searched_layers else -1 for layer in range(len(TINY.layers)))
WORKERS = [
    1,
    pytest.param(
        2, marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU alone")
    ),
]


def fill_the_memory(config: dict[str, Any], context: WorkerContext) -> None:
    """A job that asks for a pebibyte."""
    torch.empty(1 << 50, dtype=torch.uint8, device=context.device)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_an_experiment_on_gpus(ray_cluster: None, tmp_path: Path, num_workers: int) -> None:
    """Training, accuracy on half a GPU each, retraining: where it ran is known, and files load."""
    config = write_config(
        tmp_path,
        search=ACCURACY,
        cluster={"use_gpu": True, "num_workers": num_workers, "gpus_per_scorer": 0.5},
    )
    result = run_file(config)
    assert result.failures == {}
    store = StageStore(tmp_path / "runs")
    for record in store.list():
        if record.kind in ("supernet", "retrain"):
            device = record.code["device"]
            assert device["model"] == torch.cuda.get_device_name()
            assert (device["cuda"], device["num_workers"]) == (torch.version.cuda, num_workers)
            assert {"driver", "memory_gib", "tf32_convolutions", "tf32_products"} <= device.keys()
            weights = torch.load(
                store.fetch(record, WEIGHTS, tmp_path / WEIGHTS), weights_only=True
            )
            assert {value.device.type for value in weights.values()} == {"cpu"}
    cpus = write_config(tmp_path, search=ACCURACY, storage__path=str(tmp_path / "cpu"))
    other = run_file(cpus)
    for ours, theirs in zip(result.cells[0].records, other.cells[0].records, strict=True):
        if ours.kind == "supernet":
            losses = ([row["train/loss"] for row in each.history] for each in (ours, theirs))
            assert next(losses) == pytest.approx(next(losses), rel=0.05)


def test_a_gpu_that_is_too_small_is_a_wrong_request(ray_cluster: None, tmp_path: Path) -> None:
    config = {"recipe": {"batch_size": 96}}
    with pytest.raises(ValueError, match=r"GPU's memory is too small .*recipe.batch_size is 96"):
        run_train_job(
            fill_the_memory,
            config,
            name="big",
            storage_path=str(tmp_path),
            scaling=Scaling(use_gpu=True),
        )


def test_statistics_and_accuracy_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    images = (64, TINY.in_channels, TINY.resolution, TINY.resolution)
    batch = (torch.randn(images, generator=generator), torch.arange(64) % TINY.num_classes)
    found = []
    for device in ("cpu", "cuda"):
        network = Subnet(TINY, ARCH, seed=0).to(device)
        recalibrate(network, [batch], device=device)
        found.append(evaluate(network, [batch], device=device))
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-2)


def test_every_candidate_is_timed() -> None:
    table = latency_table(TINY, device="cuda", num_repeats=2)
    assert table.constant > 0
    assert (table.table_LN[~np.isnan(table.table_LN)] > 0).all()


@pytest.mark.parametrize("num_workers", WORKERS)
def test_a_detector_on_gpus(ray_cluster: None, tmp_path: Path, num_workers: int) -> None:
    cluster = {"use_gpu": True, "num_workers": num_workers}
    result = run_file(write_detector(tmp_path, detect__precision="bfloat16", cluster=cluster))
    assert result.failures == {}
