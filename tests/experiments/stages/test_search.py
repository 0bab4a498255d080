"""The search stage: any number of actors and any interruption give one and the same result."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nas.data
from experiments.config.places import open_tracker
from experiments.plan.cell_plan import CellPlan
from experiments.plan.decides import SearchContent
from experiments.plan.forecast import num_epochs
from experiments.stages import indicator as indicator_module
from experiments.stages import retrain, supernet
from experiments.stages.indicator import make_scorer
from experiments.stages.search import Generations, make_search, search_table
from experiments.stages.supernet import recorded_scores
from experiments.stages.worker_place import WorkerPlace
from nas.cost import flops_table, gather_sum, params_table
from nas.data import DataSplits
from nas.indicators import additive_scores
from nas.network import Supernet
from nas.search import SEARCHERS, Budget, Evolution, exact_search, run_search
from nas.space import Architecture, parse_architecture
from nas.training import subnet_accuracy
from orchestration.cluster.scaling import Scaling
from orchestration.jobs.runner import StageRunner
from orchestration.store.claims import Claims
from orchestration.store.failure_log import FailureLog
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done, StageRuns
from tests.experiments.configs import ACCURACY, small_plan
from tests.experiments.stage_work import payload, put, run, supernet_of
from tests.interrupted import CrashError


def searching(tmp_path: Path, **changes: Any) -> CellPlan:
    table = flops_table(small_plan(tmp_path).space)
    defaults = {f"search__{name}": value for name, value in ACCURACY.items()}
    defaults["search__searcher"] = "evolution"
    defaults["search__max_flops"] = (table.minimum + table.maximum) / 2
    return small_plan(tmp_path, **{**defaults, **changes})


def content_of(cell: CellPlan) -> SearchContent:
    return SearchContent.model_validate(cell.search.config)


def search_payload(cell: CellPlan, tmp_path: Path) -> dict[str, Any]:
    """What a worker of the search gets; a supernet that it reads is trained and stored."""
    fingerprint = None
    if cell.supernet is not None:
        store = StageStore(tmp_path / "runs")
        if store.get(cell.supernet.fingerprint) is None:
            context = run(
                supernet.work, payload(cell.supernet, tmp_path), tmp_path / "supernet-job"
            )
            put(store, cell.supernet, context)
        fingerprint = cell.supernet.fingerprint
    return payload(cell.search, tmp_path, supernet=fingerprint)


def score_here(cell: CellPlan, config: dict[str, Any]) -> Generations:
    """The whole search in this process, without Ray."""
    generations = Generations(content_of(cell))
    score = make_scorer(config, "cpu")
    while archs := generations.suggest():
        generations.update(archs, [score(arch) for arch in archs])
    return generations


def evaluated(generations: Generations) -> dict[Architecture, float]:
    pairs = generations.state_dict()["suggester"]["evaluated"]
    return {tuple(arch): score for arch, score in pairs}


# --- indicators that score whole architectures ---


def search_for_real(cell: CellPlan, tmp_path: Path) -> Done:
    """The search stage as a cell makes it; its supernet is in the store."""
    assert num_epochs(cell.search) == 3
    store, claims = StageStore(tmp_path / "runs"), Claims(tmp_path / "runs")
    inputs = {}
    if cell.supernet is not None:
        record = store.get(cell.supernet.fingerprint)
        assert record is not None
        nowhere: Future[str | None] = Future()
        nowhere.set_result(None)
        inputs["supernet"] = Done(cell.supernet, record, cached=True, drawn=Future(), shown=nowhere)
    num_workers = cell.config.cluster.num_workers
    with StageRuns(open_tracker(cell.config), claims) as runs:
        runner = StageRunner(
            store=store,
            claims=claims,
            failures=FailureLog(tmp_path / "runs"),
            runs=runs,
            scaling=Scaling(num_workers),
            max_failures=0,
            code={},
            on_progress=lambda stage, row: None,
        )
        return make_search(cell.search, runner, inputs, WorkerPlace(store.path))


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupted_search_on_actors_is_the_one_in_this_process(
    ray_cluster: None, tmp_path: Path
) -> None:
    cell = searching(tmp_path, cluster__num_workers=2)
    here = score_here(cell, search_payload(cell, tmp_path))
    updates = iter((Generations.update, crash))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generations, "update", lambda *arguments: next(updates)(*arguments))  # noqa: PLW0108  # one after the other
        with pytest.raises(CrashError):  # within the second generation
            search_for_real(cell, tmp_path)
    done = search_for_real(cell, tmp_path)
    assert dict(done.record.result) == here.outcome().result
    assert dict(done.record.metrics) == here.outcome().metrics
    history = done.record.history
    assert [row["search/num_evaluated"] for row in history] == [8, 16, 24]
    assert history[-1]["search/best"] == max(evaluated(here).values())
    wall_hours = done.record.wall_s / 3600
    assert 0 < wall_hours <= done.record.device_hours + 1e-9
    assert done.record.device_hours <= 2 * wall_hours + 1e-9  # of two actors
    assert not list((tmp_path / "runs" / "jobs").iterdir())
    assert len(set(evaluated(here).values())) > 1


def crash(*_: Any) -> None:
    raise CrashError


@pytest.mark.parametrize("searcher", ["evolution", "random"])
def test_generations_go_on_where_their_state_was_taken(tmp_path: Path, searcher: str) -> None:
    cell = searching(tmp_path, search__searcher=searcher)
    whole, piece = Generations(content_of(cell)), Generations(content_of(cell))
    for _ in range(3):
        archs = piece.suggest()
        assert archs == whole.suggest()
        assert len(archs) == 8
        scores = [float(sum(arch)) for arch in archs]
        assert piece.update(archs, scores) == whole.update(archs, scores)
        state = piece.state_dict()
        piece = Generations(content_of(cell))
        piece.load_state_dict(state)
    assert piece.suggest() == whole.suggest() == ()
    assert piece.outcome() == whole.outcome()


@pytest.mark.parametrize("indicator", ["accuracy", "naswot", "synflow"])
def test_indicators_that_score_whole_architectures(tmp_path: Path, indicator: str) -> None:
    cell = searching(tmp_path, search__indicator=indicator, search__top_k=5)
    config = search_payload(cell, tmp_path)
    generations = score_here(cell, config)
    outcome, scores = generations.outcome(), evaluated(generations)
    result = outcome.result
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
    assert make_scorer(config, "cpu")(arch) == scores[arch]
    assert len({round(score, 6) for score in scores.values()}) > 1


def test_batches_that_do_not_fit_are_prepared_anew_and_score_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = searching(tmp_path, data__search_val_fraction=0.5)
    config = search_payload(cell, tmp_path)
    kept = make_scorer(config, "cpu")
    monkeypatch.setattr(indicator_module, "_KEPT_BYTES", 0)
    anew = make_scorer(config, "cpu")
    for arch in cell.baseline_archs:
        assert [kept(arch), kept(arch)] == [anew(arch), anew(arch)]


def test_accuracy_is_the_searched_subnet_with_inherited_recalibrated_weights(
    tmp_path: Path,
) -> None:
    # Half of the images are validated, so that no two networks are right equally often by chance.
    cell = searching(tmp_path, supernet__trainable="all", data__search_val_fraction=0.5)
    config = search_payload(cell, tmp_path)
    evaluate_arch = make_scorer(config, "cpu")
    untrained = Supernet(cell.space, seed=cell.config.seed)
    network = Supernet(cell.space, seed=7)
    store = StageStore(tmp_path / "runs")
    weights = store.fetch(supernet_of(cell).fingerprint, "network.pt", tmp_path / "w.pt")
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
        score_here(cell, search_payload(cell, tmp_path))
    stage = cell.retrain(cell.baseline_archs[0])
    with pytest.raises(AssertionError, match="test images were touched"):
        run(retrain.work, payload(stage, tmp_path), tmp_path / "retrain")


# --- search by a table of scores ---


def table_search(tmp_path: Path, **changes: Any) -> tuple[CellPlan, dict[str, Any]]:
    plain = flops_table(small_plan(tmp_path).space)
    changes.setdefault("search__max_flops", (plain.minimum + plain.maximum) / 2)
    cell = small_plan(tmp_path, **changes)
    bn_scores_LN = None
    if cell.supernet is not None:
        context = run(supernet.work, payload(cell.supernet, tmp_path), tmp_path / "job")
        bn_scores_LN = recorded_scores(context.history[-1], cell.space)
    indicator = cell.config.search.indicator
    scores_LN = additive_scores(indicator, cell.space, bn_scores_LN=bn_scores_LN, seed=0)
    return cell, dict(search_table(content_of(cell), scores_LN).result)


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

    budget = [Budget(flops, max_cost=limit)]
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


def test_the_searcher_that_was_asked_for_decides(tmp_path: Path) -> None:
    for searcher, indicator in itertools.product(SEARCHERS, ("flops", "params", "random")):
        search = {"indicator": indicator, "searcher": searcher, "max_params": 5000}
        cell, result = table_search(
            tmp_path, **{f"search__{name}": value for name, value in search.items()}
        )
        chosen = result["found"][searcher]
        assert (result["arch"], result["score"]) == (chosen["arch"], chosen["score"])
        arch = parse_architecture(result["arch"])
        cell.space.validate(arch)
        limit = cell.config.search.max_flops
        assert limit is not None
        assert result["flops"] == flops_table(cell.space).of(arch) <= limit
        assert result["params"] == params_table(cell.space).of(arch) <= 5000
