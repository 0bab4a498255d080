"""How long on a cluster: worked out by hand for a few jobs of known length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.plan.elapsed import JOB_START_S, ClusterSize, Elapsed, elapsed
from experiments.plan.forecast import Rate, forecast
from experiments.plan.graph import PlannedStage, list_stages
from nas.cost import params_table
from nas.space import format_architecture
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import plan_file, write_config, write_yaml
from tests.experiments.detectors import DATA, DETECT, RETRAIN, SPACE
from tests.experiments.stage_work import put, supernet_of

SECONDS = {"supernet": 3600.0, "retrain": 7200.0, "detect": 1800.0}
SUPERNET_S, RETRAIN_S, DETECT_S = SECONDS.values()


def said(one: PlannedStage) -> Rate:
    return Rate(0.0, SECONDS[one.stage.kind] / 3600, None, "said")


def on(folder: Path, size: str, **changes: Any) -> Elapsed:
    changes = {"random_baseline__num_architectures": 0, **changes}
    plan = plan_file(write_config(folder, **changes))
    store = StageStore(folder / "runs")
    return elapsed(plan, forecast(list_stages(plan, store), store, said), ClusterSize.parse(size))


def test_cells_run_side_by_side_as_far_as_there_is_room(tmp_path: Path) -> None:
    two_cells = {"grid": {"trainable": ["all", "bn"]}}
    one_after_another = SUPERNET_S + RETRAIN_S + 2 * JOB_START_S
    assert on(tmp_path, "nodes=1", **two_cells).wall_s == pytest.approx(2 * one_after_another)
    assert on(tmp_path, "nodes=2", **two_cells).wall_s == pytest.approx(one_after_another)
    # Two workers for each job take half the time, and half the places.
    pairs = on(tmp_path, "nodes=1,cpus=4", **two_cells, cluster__num_workers=2)
    assert pairs.jobs_at_once == 2
    assert pairs.wall_s == pytest.approx((SUPERNET_S + RETRAIN_S) / 2 + 2 * JOB_START_S)


def test_a_stage_that_cells_share_is_made_once(tmp_path: Path) -> None:
    seeds = {"seeds": [0], "grid": {"search.max_flops": [2.5e5, 3e5]}}
    wall_s = on(tmp_path, "nodes=4", **seeds).wall_s
    assert wall_s == pytest.approx(SUPERNET_S + RETRAIN_S + 2 * JOB_START_S)


def test_what_is_in_the_store_takes_no_time_and_what_follows_it_does(tmp_path: Path) -> None:
    (cell,) = plan_file(write_config(tmp_path, random_baseline__num_architectures=0)).cells
    store = StageStore(tmp_path / "runs")
    supernet = put(store, supernet_of(cell))
    arch = format_architecture(cell.some_architecture())
    put(
        store,
        cell.search,
        result={"arch": arch},
        made_from={"supernet": supernet.attempt},
    )
    assert on(tmp_path, "nodes=1").wall_s == pytest.approx(RETRAIN_S + JOB_START_S)


def test_the_detector_of_a_sweep_comes_after_all_cells(tmp_path: Path) -> None:
    write_yaml(tmp_path / "space.yaml", SPACE)
    changes = {"data": DATA, "detect": DETECT, "retrain": RETRAIN, "space": "space.yaml"}
    grid = {"search": {"indicator": "flops"}, "grid": {"search.top_k": [1, 2]}}
    wall_s = on(tmp_path, "nodes=4", **changes, **grid).wall_s
    assert wall_s == pytest.approx(RETRAIN_S + DETECT_S + 2 * JOB_START_S)


def test_gradients_travel_between_ranks_and_weights_to_the_storage(tmp_path: Path) -> None:
    assert on(tmp_path, "nodes=1").rank_bytes == 0
    found = on(tmp_path, "nodes=3", search={"indicator": "flops"}, cluster__num_workers=3)
    plan = plan_file(write_config(tmp_path, search={"indicator": "flops"}))
    (cell,) = plan.cells
    params = params_table(cell.space).of(cell.some_architecture())
    config = cell.config.retrain
    num_steps = config.epochs * (128 // config.batch_size)  # of 128 training images
    assert found.rank_bytes == 4 * params * num_steps * 2 * 2
    assert found.storage_bytes == 8 * params * config.epochs


@pytest.mark.parametrize("size", ["nodes", "nodes=two", "machines=2", ""])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="expected nodes=, cpus= and gpus="):
        ClusterSize.parse(size)


def test_a_cluster_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room for 1 workers of GPU each"):
        on(tmp_path, "nodes=8,cpus=64", cluster__use_gpu=True)
