"""The search stage: the best architecture under the budgets, by indicator and searcher.

With an additive indicator everything is a matter of milliseconds, so all searchers run here in the
driver: the one that was asked for decides, and the others are reported beside it with their
optimality gap. An indicator that scores whole architectures runs as a job, one generation an epoch,
and resumes after the last generation.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.budgets import budgets
from experiments.stages.setting import WEIGHTS, Setting, load_stage_data
from experiments.stages.supernet import recorded_scores
from nas.cost import COST_TABLES, gather_sum
from nas.indicators import INDICATORS, ScoreTable, additive_scores
from nas.search import (
    SEARCHERS,
    Budget,
    Ranked,
    Suggester,
    exact_search,
    optimality_gap,
    run_search,
)
from nas.space import Architecture, SearchSpace, format_architecture, space_from_dict
from orchestration.stage import Stage
from orchestration.stage_runner import Done, Outcome
from orchestration.stage_store import StageRecord
from orchestration.worker import WorkerContext

if TYPE_CHECKING:
    from nas.data import ImageSet
    from nas.training import Batches

STATE = "search.json"


def make_search(stage: Stage, setting: Setting, inputs: Mapping[str, Done]) -> Done:
    """Have the search's result or get it searched; `inputs` holds the supernet if one is read."""
    space = space_from_dict(stage.config["space"])
    if INDICATORS[stage.config["search"]["indicator"]].additive:
        return setting.compute(
            stage,
            lambda: _search_table(stage.config, space, inputs),
            inputs=inputs,
            draw=draw_search,
        )
    fetch = {kind: done.record.fingerprint for kind, done in inputs.items()}
    return setting.with_place(inputs=fetch).train(
        stage,
        work,
        lambda job, folder: _finish(stage.config, space, folder),
        total=stage.config["search"]["evolution"]["num_iterations"],
        inputs=inputs,
        draw=draw_search,
    )


def _search_table(
    stage: Mapping[str, Any], space: SearchSpace, inputs: Mapping[str, Done]
) -> Outcome:
    """Search by a table of scores: exact, evolution and random, the chosen one first."""
    search, seed = stage["search"], stage["seed"]
    bn_scores_LN = None
    if "supernet" in inputs:
        bn_scores_LN = recorded_scores(inputs["supernet"].record.history[-1], space)
    scores_LN = additive_scores(search["indicator"], space, bn_scores_LN=bn_scores_LN, seed=seed)
    limits = budgets(search, space)

    def evaluate(archs: Sequence[Architecture]) -> list[float]:
        scores_B: list[float] = gather_sum(scores_LN, archs).tolist()
        return scores_B

    found: dict[str, dict[str, Any]] = {}
    rankings: dict[str, tuple[Ranked, ...]] = {}
    for name in SEARCHERS:
        start_s = time.perf_counter()
        if name == "exact":
            ranked = _exact(scores_LN, limits, search["top_k"])
        else:
            suggester = _suggester(name, search, space, limits, seed)
            ranked = run_search(suggester, evaluate, search["evolution"]["num_iterations"]).ranked
        found[name] = {
            "wall_s": time.perf_counter() - start_s,
            "num_evaluated": None if name == "exact" else len(ranked),
            **_describe(ranked[0], space),
        }
        rankings[name] = ranked[: search["top_k"]]
    for best in found.values():
        best["optimality_gap"] = optimality_gap(best["score"], found["exact"]["score"])
    # The front of the whole space shows what lies on either side of the budget.
    unlimited = [Budget(b.name, b.table_LN, b.constant) for b in limits[:1]]
    front = exact_search(
        scores_LN, unlimited[0].table_LN, math.inf, constant=unlimited[0].constant
    ).front
    chosen = search["searcher"]
    return _outcome(
        stage,
        space,
        best=rankings[chosen],
        found=found,
        front=front,
        scores_LN=scores_LN,
        metrics={"optimality_gap": found[chosen]["optimality_gap"]},
    )


def work(config: dict[str, Any], context: WorkerContext) -> None:
    """Search by an indicator that scores whole architectures, one generation an epoch."""
    stage, place = config["stage"], config["place"]
    search = stage["search"]
    space = space_from_dict(stage["space"])
    evaluate = _evaluator(stage, place, space, context)
    limits = budgets(search, space)
    suggester = _suggester(search["searcher"], search, space, limits, stage["seed"])
    with context.restore() as folder:
        if folder is not None:
            suggester.load_state_dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    population = search["evolution"]["population"]
    num_iterations = search["evolution"]["num_iterations"]
    for iteration in range(-(-suggester.num_evaluated // population), num_iterations):
        generation = suggester.suggest()
        if not generation:  # the budget leaves no more
            break
        scores = [evaluate(arch) for arch in generation]
        suggester.update(generation, scores)
        state = json.dumps(suggester.state_dict())

        def save(folder: Path, state: str = state) -> None:
            (folder / STATE).write_text(state, encoding="utf-8")

        context.report(
            {
                "epoch": iteration + 1,
                "search/best": suggester.ranked[0].score,
                "search/mean": float(np.mean(scores)),
                "search/num_evaluated": suggester.num_evaluated,
            },
            save,
        )


def _evaluator(
    stage: Mapping[str, Any], place: Mapping[str, Any], space: SearchSpace, context: WorkerContext
) -> Callable[[Architecture], float]:
    """The indicator as a function; it holds supernet and images once."""
    from nas.accuracy import subnet_accuracy
    from nas.network import Subnet, Supernet
    from nas.training import to_device
    from nas.zero_cost import ZERO_COST_PROXIES

    search, seed = stage["search"], stage["seed"]
    data = load_stage_data(stage, place)
    batch_size = min(search["batch_size"], len(data.train))
    if search["indicator"] in ZERO_COST_PROXIES:
        proxy = ZERO_COST_PROXIES[search["indicator"]]
        images_BCHW, _ = next(iter(_training_batches(data.train, batch_size, 1, seed)))
        images_BCHW = to_device(images_BCHW, context.device)
        return lambda arch: proxy(Subnet(space, arch, seed=seed).to(context.device), images_BCHW)
    supernet = Supernet(space, seed=seed)
    _load_weights(supernet, place)
    supernet.to(context.device)
    num_batches = -(-min(search["recalibration_images"], len(data.train)) // batch_size)

    def accuracy(arch: Architecture) -> float:
        # Every rank recalibrates on the same images and validates its share.
        return subnet_accuracy(
            supernet,
            arch,
            recalibration=lambda: _training_batches(data.train, batch_size, num_batches, seed),
            validation=lambda: data.search_val.batches(
                batch_size, training=False, rank=context.rank, world_size=context.world_size
            ),
            device=context.device,
        ).top1

    return accuracy


def _training_batches(images: ImageSet, batch_size: int, num_batches: int, seed: int) -> Batches:
    return islice(images.batches(batch_size, training=True, seed=seed), num_batches)


def _load_weights(supernet: Any, place: Mapping[str, Any]) -> None:
    import tempfile

    from experiments.stages.epochs import load_network
    from orchestration.stage_store import StageStore

    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(place["storage_path"])
        path = store.fetch(place["inputs"]["supernet"], WEIGHTS, Path(folder) / WEIGHTS)
        load_network(path, supernet, "cpu")


def _finish(stage: Mapping[str, Any], space: SearchSpace, folder: Path) -> Outcome:
    search = stage["search"]
    suggester = _suggester(search["searcher"], search, space, budgets(search, space), stage["seed"])
    suggester.load_state_dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    result = suggester.result()
    found = {
        search["searcher"]: {
            "num_evaluated": suggester.num_evaluated,
            **_describe(result.ranked[0], space),
        }
    }
    return _outcome(
        stage,
        space,
        best=result.ranked[: search["top_k"]],
        found=found,
        front=result.front,
        scores_LN=None,
        metrics={"num_evaluated": float(suggester.num_evaluated)},
    )


def _outcome(
    stage: Mapping[str, Any],
    space: SearchSpace,
    *,
    best: Sequence[Ranked],
    found: Mapping[str, Mapping[str, Any]],
    front: Sequence[Ranked],
    scores_LN: ScoreTable | None,
    metrics: Mapping[str, float],
) -> Outcome:
    top = [_describe(ranked, space) for ranked in best]
    numbers = {name: top[0][name] for name in ("score", *COST_TABLES)}
    return Outcome(
        result={
            "indicator": stage["search"]["indicator"],
            "arch": top[0]["arch"],
            **numbers,
            "top": top,
            "found": {name: dict(value) for name, value in found.items()},
            "front": [_describe(ranked, space) for ranked in front],
            "scores_LN": None if scores_LN is None else scores_LN.tolist(),
        },
        metrics={**numbers, **metrics},
    )


def _describe(ranked: Ranked, space: SearchSpace) -> dict[str, Any]:
    return {
        "arch": format_architecture(ranked.arch),
        "score": ranked.score,
        **{name: table(space).of(ranked.arch) for name, table in COST_TABLES.items()},
    }


def _exact(scores_LN: ScoreTable, limits: Sequence[Budget], top_k: int) -> tuple[Ranked, ...]:
    flops, *others = limits
    return exact_search(
        scores_LN,
        flops.table_LN,
        flops.max_cost,
        top_k,
        constant=flops.constant,
        min_cost=flops.min_cost,
        name=flops.name,
        also=others,
    ).ranked


def _suggester(
    name: str,
    search: Mapping[str, Any],
    space: SearchSpace,
    limits: Sequence[Budget],
    seed: int,
) -> Suggester:
    """Evolution, or random search over as many architectures."""
    settings = dict(search["evolution"])
    del settings["num_iterations"]
    if name == "random":
        settings = {"population": settings["population"]}
    suggester = SEARCHERS[name].suggester
    assert suggester is not None, "exact search suggests nothing"
    return suggester(space, limits, seed=seed, **settings)


def draw_search(record: StageRecord, folder: Path) -> None:
    """Write the figures of a finished stage into a folder."""
    from experiments.report.figures import front_figure, scores_figure
    from experiments.report.style import save_figure

    result, config = record.result, record.config
    indicator = INDICATORS[result["indicator"]]
    front = front_figure(
        result["front"],
        result["found"],
        max_flops=config["search"]["max_flops"],
        label=f"{indicator.name} score of the architecture",
    )
    save_figure(front, folder / "search_front.png")
    if result["scores_LN"] is not None:
        scores = scores_figure(
            np.array(result["scores_LN"], dtype=np.float64),
            space_from_dict(config["space"]),
            result["arch"],
            label=indicator.meaning,
        )
        save_figure(scores, folder / "search_scores.png")
