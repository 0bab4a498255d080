"""Estimates: hand-computed from earlier runs and from known speeds; and one real measurement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.plan.decides import SupernetContent
from experiments.plan.forecast import Estimate, Forecast, forecast
from experiments.plan.graph import ExperimentPlan, PlannedStage, list_stages
from experiments.stages import probe as probe_module
from experiments.stages.probe import Probe
from experiments.stages.worker_place import WorkerPlace
from nas.cost import flops_table
from nas.data import load_data
from nas.space import parse_architecture
from orchestration.store.stage_store import StageStore
from tests.experiments.configs import plan_file, small, small_plan, write_config
from tests.experiments.stage_work import EPOCH_S, put, supernet_of

ACCURACY = {"indicator": "accuracy", "recalibration_images": 100}


def planned(folder: Path, **changes: Any) -> ExperimentPlan:
    return plan_file(write_config(folder, **changes))


def estimated(
    plan: ExperimentPlan, store: StageStore, probe: Probe | None = None
) -> dict[str, list[Estimate]]:
    """What each kind of stage is estimated to cost, in the order of the list."""
    found = forecast(list_stages(plan, store), store, probe)
    kinds: dict[str, list[Estimate]] = {}
    for one, estimate in zip(found.listed.stages, found.estimates, strict=True):
        kinds.setdefault(one.stage.kind, []).append(estimate)
    return kinds


def listed(plan: ExperimentPlan, kind: str, store: StageStore) -> PlannedStage:
    return next(one for one in list_stages(plan, store).stages if one.stage.kind == kind)


def hours(estimate: Estimate) -> float:
    assert estimate.device_hours is not None
    return estimate.device_hours


# --- from earlier runs ---


def test_epochs_grow_and_what_a_job_takes_besides_does_not(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    plan = planned(tmp_path, supernet__epochs=7)
    # Two epochs of 30 s in a job of 200 s on two devices: 60 s of them grow, 140 s do not.
    earlier = small_plan(tmp_path, seed=5, supernet__epochs=2, supernet__lr=0.5)
    put(store, supernet_of(earlier), device_hours=400 / 3600, wall_s=200.0)
    (found,) = estimated(plan, store)["supernet"]
    assert found.basis == "1 earlier run"
    assert hours(found) * 3600 == pytest.approx(2 * (7 * EPOCH_S + 140))
    # A second one, without anything besides: the means.
    another = small_plan(tmp_path, seed=6, supernet__epochs=2)
    put(store, supernet_of(another), device_hours=2 * EPOCH_S / 3600, wall_s=2 * EPOCH_S)
    (found,) = estimated(plan, store)["supernet"]
    assert found.basis == "2 earlier runs"
    assert hours(found) * 3600 == pytest.approx(7 * (4 * EPOCH_S + 2 * EPOCH_S) / 4 + 280 / 2)


def test_what_is_not_comparable_says_nothing(tmp_path: Path) -> None:
    for number, (field, value) in enumerate(
        {
            "space": "micro",
            "data__max_train_images": 130,
            "supernet__batch_size": 32,
            "supernet__precision": "bfloat16",
            "supernet__trainable": "all",
            "supernet__sampler": "fair",
        }.items()
    ):
        store = StageStore(tmp_path / str(number))
        put(store, supernet_of(small_plan(tmp_path, **{field: value})))
        (found,) = estimated(planned(tmp_path), store)["supernet"]
        assert found == Estimate(None, "nothing comparable has run yet"), field


def test_a_retraining_grows_with_the_flops_where_the_architecture_is_known(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    plan = planned(tmp_path, seed=3, retrain__epochs=5)
    flops = flops_table(plan.cells[0].space)
    earlier = small_plan(tmp_path, retrain__epochs=2)
    for number, arch in enumerate(earlier.baseline_archs, start=1):
        put(
            store,
            earlier.retrain(arch),
            metrics={"flops": number * 1000.0},
            device_hours=number * 2 * EPOCH_S / 3600,
            wall_s=number * 2 * EPOCH_S,
            history=[{"epoch": n, "train/epoch_s": number * EPOCH_S} for n in (1.0, 2.0)],
        )
    *known, unknown = estimated(plan, store)["retrain"]
    for arch, found in zip(plan.cells[0].baseline_archs, known, strict=True):
        assert hours(found) * 3600 == pytest.approx(5 * EPOCH_S * flops.of(arch) / 1000)
        assert found.basis == "2 earlier runs"
    assert hours(unknown) * 3600 == pytest.approx(5 * 1.5 * EPOCH_S)


def test_a_search_grows_with_its_candidates_as_far_as_the_space_goes(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    earlier = small_plan(tmp_path, search=ACCURACY, seed=4)
    # The supernet's absence does not make the search's cost less true.
    put(store, earlier.search, metrics={"num_evaluated": 10.0}, device_hours=0.5)
    for num_iterations, num_candidates in ((3, 24), (100, 81)):
        evolution = {**small()["search"]["evolution"], "num_iterations": num_iterations}
        plan = planned(tmp_path, search={**ACCURACY, "evolution": evolution})
        assert plan.cells[0].space.num_architectures == 81
        (found,) = estimated(plan, store)["search"]
        assert hours(found) == pytest.approx(0.5 / 10 * num_candidates)


def test_what_is_computed_costs_no_device(tmp_path: Path) -> None:
    for indicator in ("bn", "flops", "random"):
        plan = planned(tmp_path, search__indicator=indicator)
        (found,) = estimated(plan, StageStore(tmp_path / "runs"))["search"]
        assert found == Estimate(0.0, "computed, no job")


def test_a_total_with_an_unknown_part_is_unknown(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    plan = planned(tmp_path)
    put(store, supernet_of(small_plan(tmp_path, seed=1)), device_hours=0.5)
    found = forecast(list_stages(plan, store), store, None)
    assert found.device_hours is None
    assert found.known_hours > 0
    whole = Forecast(found.listed, tuple(Estimate(0.25, "") for _ in found.estimates))
    assert whole.device_hours == 0.25 * len(found.listed.stages)


# --- measured ---


def test_known_speeds_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image takes half a second whatever is done with it, a call two seconds."""
    monkeypatch.setattr(probe_module, "_image_s", lambda batches, run: 0.5)
    monkeypatch.setattr(probe_module, "_call_s", lambda call: 2.0)
    store, probe = StageStore(tmp_path / "runs"), Probe()
    plan = planned(tmp_path, search=ACCURACY, data__max_train_images=150)
    data = load_data("digits", max_train_images=150)
    assert len(data.train) == 150
    rates = {}
    for kind in ("supernet", "search", "retrain"):
        rate = probe(listed(plan, kind, store))
        assert not isinstance(rate, str)
        rates[kind] = rate
    # Two whole batches of 64 make an epoch; a retraining looks at the validation images after each.
    assert rates["supernet"].hours * 3600 == pytest.approx(0.5 * 128)
    assert rates["retrain"].hours * 3600 == pytest.approx(0.5 * (128 + len(data.search_val)))
    assert rates["search"].hours * 3600 == pytest.approx(2 + 0.5 * (100 + len(data.search_val)))
    assert rates["retrain"].once_hours * 3600 >= 0.5 * len(data.test)
    arch = plan.cells[0].baseline_archs[0]
    assert rates["retrain"].flops == flops_table(plan.cells[0].space).of(arch)


def test_a_speed_is_that_of_the_images_after_the_first_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a clock that only the batches move: 100 s for the first one, then 3 s each."""
    now_s = 0.0
    monkeypatch.setattr("experiments.stages.probe.time.perf_counter", lambda: now_s)
    num_seen = 0

    def run(batches: Any) -> None:
        nonlocal now_s, num_seen
        for _ in batches:
            now_s += 3.0 if num_seen else 100.0
            num_seen += 1

    batches = iter([(torch.zeros(6, 1), torch.zeros(6))] * 9)
    assert probe_module._image_s(batches, run) == 3.0 / 6
    assert num_seen == 1 + 2


@pytest.mark.parametrize("indicator", ["accuracy", "synflow"])
def test_every_kind_is_measured_once_for_real(tmp_path: Path, indicator: str) -> None:
    store = StageStore(tmp_path / "runs")
    asked: list[str] = []
    probe = Probe(asked.append)
    short = planned(tmp_path, search={**ACCURACY, "indicator": indicator})
    long = planned(
        tmp_path, search={**ACCURACY, "indicator": indicator}, supernet__epochs=30, seed=2
    )
    before = torch.get_num_threads()
    short_s, long_s = estimated(short, store, probe), estimated(long, store, probe)
    assert torch.get_num_threads() == before
    kinds = {"retrain", "search"} | ({"supernet"} if indicator == "accuracy" else set())
    assert len(asked) == len(kinds)
    assert set(short_s) == kinds
    for kind in kinds:
        assert hours(short_s[kind][0]) > 0
        assert short_s[kind][0].basis.startswith("measured on this machine's CPU")
    if indicator == "accuracy":
        assert hours(long_s["supernet"][0]) > hours(short_s["supernet"][0])
    assert hours(long_s["search"][0]) == hours(short_s["search"][0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_cpu_that_stands_for_gpus_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "_PROBE_S", 0.0)
    store = StageStore(tmp_path / "runs")
    plan = planned(tmp_path, cluster={"use_gpu": True, "num_workers": 4})
    (found,) = estimated(plan, store, Probe())["supernet"]
    assert "this machine's CPU" in found.basis
    assert "no GPU" in found.basis


def test_images_that_would_all_be_decoded_first_are_not_measured(tmp_path: Path) -> None:
    plan = planned(tmp_path, data__skip_unreadable=True)
    (found,) = estimated(plan, StageStore(tmp_path / "runs"), Probe())["supernet"]
    assert found.device_hours is None
    assert "skip_unreadable" in found.basis


def test_a_batch_is_a_workers_share_and_no_more_than_a_cpu_bears(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "runs")
    plan = planned(tmp_path, cluster__num_workers=4, data__max_train_images=None)
    one = listed(plan, "supernet", store)
    data = load_data("digits")
    content = SupernetContent.model_validate(one.stage.config)
    bench = probe_module._Bench(one, content, data, "cpu", WorkerPlace(store.path))
    assert bench.batch_size(64) == 16
    assert bench.batch_size(2) == 1
    assert bench.batch_size(10**6) == len(data.train)
    large = replace(bench, data=replace(data, resolution=224))
    assert large.batch_size(1024) == 8


def test_a_stand_in_for_what_is_not_found_is_legal(tmp_path: Path) -> None:
    budget = flops_table(small_plan(tmp_path).space).minimum * 1.05
    plan = planned(tmp_path, search__max_flops=budget, random_baseline__num_architectures=0)
    one = listed(plan, "retrain", StageStore(tmp_path / "runs"))
    assert one.fingerprint is None
    arch = parse_architecture(one.stage.config["arch"])
    assert flops_table(plan.cells[0].space).of(arch) <= budget
