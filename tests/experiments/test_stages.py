"""The stages' work in this process: resumed = uninterrupted, bit for bit; what each may look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nas.data
from experiments.plan import CellPlan
from experiments.stages import retrain, search, supernet
from experiments.stages.epochs import TRAINING_FILE
from experiments.stages.setting import WEIGHTS
from nas.accuracy import subnet_accuracy
from nas.cost import flops_table, gather_sum, params_table
from nas.data import DataSplits
from nas.early_bird import EarlyBirdStop
from nas.indicators import bn_scores
from nas.network import Subnet, Supernet
from nas.search import SEARCHERS, Budget, Evolution, exact_search, run_search
from nas.space import Architecture, parse_architecture, space_from_dict
from nas.training import evaluate
from orchestration.stage import Stage
from orchestration.stage_runner import Done
from orchestration.stage_store import StageRecord, StageStore
from orchestration.train_job import Work
from orchestration.worker import LocalWorkerContext
from tests.experiments.configs import small_plan

History = list[dict[str, float]]
TIMINGS = {"train/epoch_s"}


class CrashError(Exception):
    """Stands for a killed process."""


class CrashingContext(LocalWorkerContext):
    """Dies as soon as an epoch's checkpoint is written."""

    def report(self, metrics: Any, save: Any = None) -> None:
        super().report(metrics, save)
        raise CrashError


def payload(stage: Stage, folder: Path, **place: Any) -> dict[str, Any]:
    defaults = {"data_root": None, "num_loaders": 0, "storage_path": str(folder / "runs")}
    return {"stage": dict(stage.config), "place": {**defaults, **place}}


def run(work: Work, config: dict[str, Any], folder: Path) -> LocalWorkerContext:
    context = LocalWorkerContext(folder)
    work(config, context)
    return context


def run_in_pieces(work: Work, config: dict[str, Any], folder: Path) -> LocalWorkerContext:
    """One epoch a process."""
    while True:
        context = CrashingContext(folder)
        try:
            work(config, context)
        except CrashError:
            continue
        return context


@contextmanager
def dying_in_batch(number: int) -> Iterator[None]:
    """Die when the so-and-so-many-th batch, of training or validation, is to be scored."""
    cross_entropy = torch.nn.functional.cross_entropy
    num_batches = 0

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal num_batches
        num_batches += 1
        if num_batches == number:
            raise CrashError
        return cross_entropy(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", counted)
        yield


def without_timings(history: History) -> History:
    return [{key: row[key] for key in row if key not in TIMINGS} for row in history]


def assert_same_value(ours: Any, theirs: Any) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same_value(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same_value(mine, other)
    else:
        assert ours == theirs


def assert_same_end(ours: LocalWorkerContext, theirs: LocalWorkerContext) -> None:
    """Equal weights, optimiser state and history, to the bit."""
    assert without_timings(ours.history) == without_timings(theirs.history)
    for file in (WEIGHTS, TRAINING_FILE):
        assert_same_value(saved(ours, file), saved(theirs, file))


def saved(context: LocalWorkerContext, file: str = WEIGHTS) -> Any:
    assert context.checkpoint is not None
    return torch.load(context.checkpoint / file, weights_only=True)


def supernet_stage(cell: CellPlan) -> Stage:
    assert cell.supernet is not None
    return cell.supernet


def put(store: StageStore, stage: Stage, context: LocalWorkerContext) -> StageRecord:
    assert context.checkpoint is not None
    return store.put(
        StageRecord(
            kind=stage.kind,
            fingerprint=stage.fingerprint,
            config=stage.config,
            inputs=stage.inputs,
            result={},
            history=context.history,
            metrics={},
            device_hours=0.0,
            wall_s=0.0,
            started_at=0.0,
            finished_at=0.0,
        ),
        context.checkpoint,
    )


@pytest.fixture
def cell(tmp_path: Path) -> CellPlan:
    return small_plan(tmp_path)


# --- supernet and retrain ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"supernet__trainable": "all", "supernet__sampler": "fair", "supernet__clip_norm": 1.0},
        {"supernet__trainable": "last_bn", "supernet__early_bird": {"window": 1}},
    ],
    ids=["bn", "all, fair", "last_bn, early bird"],
)
def test_an_interrupted_supernet_is_the_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    stage = supernet_stage(small_plan(tmp_path, **changes))
    config = payload(stage, tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    pieces = run_in_pieces(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, pieces)
    assert len(whole.history) == 3
    losses = [row["train/loss"] for row in whole.history]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_a_supernet_that_dies_within_an_epoch_repeats_it(
    cell: CellPlan, tmp_path: Path, step: int
) -> None:
    config = payload(supernet_stage(cell), tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    with dying_in_batch(step), pytest.raises(CrashError):
        run(supernet.work, config, tmp_path / "again")
    again = run(supernet.work, config, tmp_path / "again")
    assert_same_end(whole, again)


def test_an_interrupted_retraining_is_the_uninterrupted_one(cell: CellPlan, tmp_path: Path) -> None:
    config = payload(cell.baseline[0], tmp_path)
    whole = run(retrain.work, config, tmp_path / "whole")
    assert_same_end(whole, run_in_pieces(retrain.work, config, tmp_path / "pieces"))
    for num_batches in (2, 3, 7):  # training, validation, and training of the second epoch
        folder = tmp_path / f"within-{num_batches}"
        with dying_in_batch(num_batches), pytest.raises(CrashError):
            run(retrain.work, config, folder)
        assert_same_end(whole, run(retrain.work, config, folder))


def test_seeds_and_architectures_give_other_weights(tmp_path: Path, cell: CellPlan) -> None:
    other = small_plan(tmp_path, seed=1)
    ours = run(supernet.work, payload(supernet_stage(cell), tmp_path), tmp_path / "0")
    theirs = run(supernet.work, payload(supernet_stage(other), tmp_path), tmp_path / "1")
    assert ours.history[0]["train/loss"] != theirs.history[0]["train/loss"]


def test_recorded_scores_are_those_of_the_saved_weights(cell: CellPlan, tmp_path: Path) -> None:
    context = run(supernet.work, payload(supernet_stage(cell), tmp_path), tmp_path / "job")
    network = Supernet(cell.space, seed=cell.config.seed)
    network.load_state_dict(saved(context))
    recorded = supernet.recorded_scores(context.history[-1], cell.space)
    np.testing.assert_array_equal(recorded, bn_scores(network))
    assert np.isnan(recorded[1]).all()  # the layer that is fixed to the identity
    first = supernet.recorded_scores(context.history[0], cell.space)
    assert not np.array_equal(first, recorded, equal_nan=True)


def test_in_scope_bn_everything_else_keeps_its_initial_value(
    cell: CellPlan, tmp_path: Path
) -> None:
    context = run(supernet.work, payload(supernet_stage(cell), tmp_path), tmp_path / "job")
    network = Supernet(cell.space, seed=cell.config.seed, gamma_init=0.5)
    batch_norms = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for part, _ in module.named_parameters()
    }
    moved = {
        name
        for name, parameter in network.named_parameters()
        if not torch.equal(parameter, saved(context)[name])
    }
    assert moved
    assert moved <= batch_norms


def test_an_early_bird_stop_ends_training_at_the_same_epoch_after_any_restart(
    tmp_path: Path,
) -> None:
    stage = supernet_stage(
        small_plan(
            tmp_path,
            supernet__epochs=30,
            supernet__lr=0.01,
            supernet__early_bird={"window": 2, "threshold": 0.9},
        )
    )
    config = payload(stage, tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    # The law, from the recorded scores and a stop of the test's own.
    space = small_plan(tmp_path).space
    stop = EarlyBirdStop(window=2, threshold=0.9)
    verdicts = [stop.update(supernet.recorded_scores(row, space)) for row in whole.history]
    assert verdicts == [False] * (len(verdicts) - 1) + [True]
    assert 3 <= len(verdicts) < 30

    pieces = run_in_pieces(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, pieces)
    # Started once more, it neither trains nor reports.
    with dying_in_batch(1):
        again = run(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, again)


def test_test_accuracy_is_that_of_the_saved_network(cell: CellPlan, tmp_path: Path) -> None:
    stage, arch = cell.baseline[0], cell.baseline_archs[0]
    context = run(retrain.work, payload(stage, tmp_path), tmp_path / "job")
    subnet = Subnet(cell.space, arch, seed=123)
    subnet.load_state_dict(saved(context))
    data = nas.data.load_data("digits", max_train_images=128)
    result = evaluate(subnet, data.test.batches(100, training=False))
    last = context.history[-1]
    assert last["test/top1"] == result.top1
    assert last["test/loss"] == pytest.approx(result.loss, rel=1e-5)
    assert last["test/num_images"] == len(data.test)
    assert all("test/top1" not in row for row in context.history[:-1])


# --- search ---


def searching(tmp_path: Path, **changes: Any) -> CellPlan:
    defaults: dict[str, Any] = {
        "search__indicator": "accuracy",
        "search__searcher": "evolution",
        "search__recalibration_images": 64,
        "search__batch_size": 64,
    }
    plain = small_plan(tmp_path)
    table = flops_table(plain.space)
    defaults["search__max_flops"] = (table.minimum + table.maximum) / 2
    return small_plan(tmp_path, **{**defaults, **changes})


def search_payload(cell: CellPlan, tmp_path: Path) -> dict[str, Any]:
    """What a worker of the search gets; a supernet that it reads is trained and stored."""
    inputs = {}
    if cell.supernet is not None:
        store = StageStore(tmp_path / "runs")
        if store.get(cell.supernet.fingerprint) is None:
            context = run(
                supernet.work, payload(cell.supernet, tmp_path), tmp_path / "supernet-job"
            )
            put(store, cell.supernet, context)
        inputs["supernet"] = cell.supernet.fingerprint
    return payload(cell.search, tmp_path, inputs=inputs)


def state_of(context: LocalWorkerContext) -> dict[str, Any]:
    assert context.checkpoint is not None
    text = (context.checkpoint / search.STATE).read_text(encoding="utf-8")
    state: dict[str, Any] = json.loads(text)
    return state


@pytest.mark.parametrize("searcher", ["evolution", "random"])
def test_an_interrupted_search_is_the_uninterrupted_one(tmp_path: Path, searcher: str) -> None:
    cell = searching(tmp_path, search__searcher=searcher)
    config = search_payload(cell, tmp_path)
    whole = run(search.work, config, tmp_path / "whole")
    pieces = run_in_pieces(search.work, config, tmp_path / "pieces")
    with dying_in_batch(40), pytest.raises(CrashError):  # in the second generation
        run(search.work, config, tmp_path / "within")
    assert len(LocalWorkerContext(tmp_path / "within").history) == 1
    within = run(search.work, config, tmp_path / "within")
    for other in (pieces, within):
        assert other.history == whole.history
        assert state_of(other) == state_of(whole)
    assert [row["search/num_evaluated"] for row in whole.history] == [8, 16, 24]


@pytest.mark.parametrize("indicator", ["accuracy", "naswot", "synflow"])
def test_indicators_that_score_whole_architectures(tmp_path: Path, indicator: str) -> None:
    cell = searching(tmp_path, search__indicator=indicator, search__top_k=5)
    config = search_payload(cell, tmp_path)
    context = run(search.work, config, tmp_path / "job")
    assert context.checkpoint is not None
    outcome = search._finish(
        cell.search.config, space_from_dict(cell.search.config["space"]), context.checkpoint
    )
    result = outcome.result
    scores = {tuple(arch): score for arch, score in state_of(context)["evaluated"]}
    assert len(scores) == 24
    arch = parse_architecture(result["arch"])
    cell.space.validate(arch)
    limit = cell.config.search.max_flops
    assert limit is not None
    assert flops_table(cell.space).of_many(list(scores)).max() <= limit
    assert result["score"] == scores[arch] == max(scores.values())
    top = [parse_architecture(each["arch"]) for each in result["top"]]
    assert top[0] == arch
    assert [scores[each] for each in top] == sorted(scores.values(), reverse=True)[:5]
    assert result["found"]["evolution"]["num_evaluated"] == 24
    assert outcome.metrics["flops"] == flops_table(cell.space).of(arch)
    # The score is what the same indicator gives when it is asked for this architecture alone.
    place = config["place"]
    again = search._evaluator(cell.search.config, place, cell.space, context)
    assert again(arch) == scores[arch]
    assert len({round(score, 6) for score in scores.values()}) > 1


def test_accuracy_is_the_searched_subnet_with_inherited_recalibrated_weights(
    tmp_path: Path,
) -> None:
    # Half of the images are validated, so that no two networks are right equally often by chance.
    cell = searching(tmp_path, supernet__trainable="all", data__search_val_fraction=0.5)
    config = search_payload(cell, tmp_path)
    context = LocalWorkerContext(tmp_path / "job")
    evaluate_arch = search._evaluator(cell.search.config, config["place"], cell.space, context)
    untrained = Supernet(cell.space, seed=cell.config.seed)
    network = Supernet(cell.space, seed=7)
    store = StageStore(tmp_path / "runs")
    weights = store.fetch(supernet_stage(cell).fingerprint, "network.pt", tmp_path / "w.pt")
    network.load_state_dict(torch.load(weights, weights_only=True))
    data = nas.data.load_data("digits", max_train_images=128, search_val_fraction=0.5)

    def accuracy(supernet: Supernet, arch: Architecture) -> float:
        return subnet_accuracy(
            supernet,
            arch,
            recalibration=lambda: islice(data.train.batches(64, training=True, seed=0), 1),
            validation=lambda: data.search_val.batches(64, training=False),
        ).top1

    for arch in cell.baseline_archs:
        assert evaluate_arch(arch) == accuracy(network, arch) != accuracy(untrained, arch)


class Untouchable:
    """A split that may be had and not looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test images were touched: {name}")


def test_supernet_and_search_never_see_a_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = nas.data.load_data

    def without_test(*args: Any, **kwargs: Any) -> DataSplits:
        splits: Any = {**vars(load(*args, **kwargs)), "test": Untouchable()}
        return DataSplits(**splits)

    monkeypatch.setattr(nas.data, "load_data", without_test)
    for indicator in ("accuracy", "naswot", "synflow"):
        cell = searching(
            tmp_path, search__indicator=indicator, search__evolution={"num_iterations": 1}
        )
        run(search.work, search_payload(cell, tmp_path), tmp_path / indicator)
    with pytest.raises(AssertionError, match="test images were touched"):
        run(retrain.work, payload(cell.baseline[0], tmp_path), tmp_path / "retrain")


# --- search by a table of scores ---


def table_search(tmp_path: Path, **changes: Any) -> tuple[CellPlan, dict[str, Any]]:
    plain = flops_table(small_plan(tmp_path).space)
    changes.setdefault("search__max_flops", (plain.minimum + plain.maximum) / 2)
    cell = small_plan(tmp_path, **changes)
    inputs = {}
    if cell.supernet is not None:
        context = run(supernet.work, payload(cell.supernet, tmp_path), tmp_path / "job")
        record = put(StageStore(tmp_path / "runs"), cell.supernet, context)
        inputs["supernet"] = Done(cell.supernet, record, cached=False, run_id=None)
    return cell, dict(search._search_table(cell.search.config, cell.space, inputs).result)


def described(archs: list[dict[str, Any]]) -> list[tuple[Architecture, float]]:
    return [(parse_architecture(each["arch"]), each["score"]) for each in archs]


def test_the_table_search_is_what_nas_search_gives(tmp_path: Path) -> None:
    cell, result = table_search(tmp_path, search__top_k=7)
    scores_LN = np.array(result["scores_LN"])
    flops = flops_table(cell.space)
    limit = cell.config.search.max_flops
    assert limit is not None
    expected = exact_search(scores_LN, flops.table_LN, limit, 7, constant=flops.constant)
    assert described(result["top"]) == [(each.arch, each.score) for each in expected.ranked]
    everything = exact_search(scores_LN, flops.table_LN, math.inf, constant=flops.constant)
    assert described(result["front"]) == [(each.arch, each.score) for each in everything.front]
    assert len(result["front"]) > 1

    budget = [Budget.from_cost(flops, max_cost=limit)]
    settings = cell.config.search.evolution
    evolved = run_search(
        Evolution(
            cell.space,
            budget,
            seed=0,
            population=settings.population,
            num_parents=settings.num_parents,
            num_mutations=settings.num_mutations,
            num_crossovers=settings.num_crossovers,
            mutation_prob=settings.mutation_prob,
        ),
        lambda archs: gather_sum(scores_LN, archs).tolist(),
        settings.num_iterations,
    )
    found = result["found"]
    assert list(found) == list(SEARCHERS)
    assert parse_architecture(found["evolution"]["arch"]) == evolved.ranked[0].arch
    assert found["exact"]["optimality_gap"] == 0
    for name in ("evolution", "random"):
        assert found[name]["num_evaluated"] == 24
        assert found[name]["optimality_gap"] >= 0
        assert found[name]["score"] <= found["exact"]["score"]
        assert found[name]["flops"] <= limit
    assert found["exact"]["arch"] == result["arch"]


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("indicator", ["flops", "params", "random"])
def test_the_searcher_that_was_asked_for_decides(
    tmp_path: Path, searcher: str, indicator: str
) -> None:
    cell, result = table_search(
        tmp_path, search__indicator=indicator, search__searcher=searcher, search__max_params=5000
    )
    chosen = result["found"][searcher]
    assert (result["arch"], result["score"]) == (chosen["arch"], chosen["score"])
    arch = parse_architecture(result["arch"])
    cell.space.validate(arch)
    assert (
        result["flops"]
        == flops_table(cell.space).of(arch)
        <= cell.search.config["search"]["max_flops"]
    )
    assert result["params"] == params_table(cell.space).of(arch) <= 5000
