"""The search stage: the best architecture under the budgets, by indicator and searcher.

An additive indicator is a table: everything is a matter of milliseconds in the driver, so all
searchers run; the one that was asked for decides, and the others are reported beside it with their
optimality gap. One that scores whole architectures runs as a scoring job, one generation a round,
and resumes after the last generation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.plan.decides import SearchContent
from experiments.stages.indicator import make_scorer
from experiments.stages.supernet import recorded_scores
from experiments.stages.worker_place import WorkerPlace
from nas.cost import COST_TABLES, FloatTable, gather_sum
from nas.indicators import INDICATORS, additive_scores
from nas.search import (
    SEARCHERS,
    Ranked,
    Suggester,
    exact_search,
    optimality_gap,
    run_search,
    search_within,
)
from nas.space import Architecture, SearchSpace, format_architecture, space_from_dict
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.stage_runs import Done


def make_search(
    stage: Stage, runner: StageRunner, inputs: Mapping[str, Done], place: WorkerPlace
) -> Done:
    """Have the search's result or get it searched; `inputs` holds the supernet if one is read."""
    content = SearchContent.model_validate(stage.config)
    if not INDICATORS[content.search.indicator].additive:
        generations = Generations(content)
        place = replace(place, supernet=stage.inputs.get("supernet"))
        return runner.score(
            stage,
            make_scorer,
            asdict(place),
            generations,
            generations.outcome,
            inputs=inputs,
            draw=draw_search,
        )

    def search() -> Outcome:
        bn_scores_LN = None
        if "supernet" in inputs:
            bn_scores_LN = recorded_scores(inputs["supernet"].record.history[-1], content.space)
        scores_LN = additive_scores(
            content.search.indicator, content.space, bn_scores_LN=bn_scores_LN, seed=content.seed
        )
        return search_table(content, scores_LN)

    return runner.compute(stage, search, inputs=inputs, draw=draw_search)


def search_table(content: SearchContent, scores_LN: FloatTable) -> Outcome:
    """Search a table of scores by exact search, evolution and at random."""
    search, space = content.search, content.space
    budgets = search.budgets(space)

    def evaluate(archs: Sequence[Architecture]) -> list[float]:
        scores_B: list[float] = gather_sum(scores_LN, archs).tolist()
        return scores_B

    found: dict[str, dict[str, Any]] = {}
    rankings: dict[str, tuple[Ranked, ...]] = {}
    for name in SEARCHERS:
        start_s = time.perf_counter()
        if name == "exact":
            ranked = search_within(scores_LN, budgets, search.top_k).ranked
        else:
            suggester = make_suggester(content, name)
            ranked = run_search(suggester, evaluate, search.evolution.num_iterations).ranked
        found[name] = {
            "wall_s": time.perf_counter() - start_s,
            "num_evaluated": None if name == "exact" else len(ranked),
            **_described(ranked[0], space),
        }
        rankings[name] = ranked[: search.top_k]
    for best in found.values():
        best["optimality_gap"] = optimality_gap(best["score"], found["exact"]["score"])
    # The front of the whole space shows what lies on either side of the budget.
    flops = budgets[0].cost
    front = exact_search(scores_LN, flops.table_LN, math.inf, constant=flops.constant).front
    return _outcome(
        content,
        best=rankings[search.searcher],
        found=found,
        front=front,
        scores_LN=scores_LN,
        metrics={
            "optimality_gap": found[search.searcher]["optimality_gap"],
            **{
                f"{name}/{number}": best[number]
                for name, best in found.items()
                for number in ("wall_s", "score", "optimality_gap", "num_evaluated")
                if best[number] is not None
            },
        },
    )


class Generations:
    """The rounds of a scoring job: each is a generation of the searcher."""

    def __init__(self, content: SearchContent) -> None:
        self._content = content
        self._suggester = make_suggester(content, content.search.searcher)
        self._num_left = content.search.evolution.num_iterations

    def suggest(self) -> tuple[Architecture, ...]:
        """The next generation; none after the last one, or once the budgets leave no more."""
        return self._suggester.suggest() if self._num_left else ()

    def update(self, items: Sequence[Architecture], scores: Sequence[float]) -> Mapping[str, float]:
        """Take a generation's scores; raises ValueError for one that cannot be ranked."""
        self._suggester.update(items, scores)
        self._num_left -= 1
        return {
            "search/best": self._suggester.ranked[0].score,
            "search/mean": math.fsum(scores) / len(scores),
            "search/num_evaluated": float(self._suggester.num_evaluated),
        }

    def state_dict(self) -> dict[str, Any]:
        """The searcher's state, and how many generations are left."""
        return {"suggester": self._suggester.state_dict(), "num_left": self._num_left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._suggester.load_state_dict(state["suggester"])
        self._num_left = state["num_left"]

    def outcome(self) -> Outcome:
        """What the search has found."""
        search, result = self._content.search, self._suggester.result()
        num_evaluated = self._suggester.num_evaluated
        best = _described(result.ranked[0], self._content.space)
        return _outcome(
            self._content,
            best=result.ranked[: search.top_k],
            found={search.searcher: {"num_evaluated": num_evaluated, **best}},
            front=result.front,
            scores_LN=None,
            metrics={"num_evaluated": float(num_evaluated)},
        )


def make_suggester(content: SearchContent, name: str) -> Suggester:
    """Evolution, or random search over as many architectures, within the budgets."""
    search = content.search
    settings = search.evolution.model_dump(exclude={"num_iterations"})
    if name == "random":
        settings = {"population": settings["population"]}
    suggester = SEARCHERS[name].suggester
    assert suggester is not None, "exact search suggests nothing"
    budgets = search.budgets(content.space)
    return suggester(content.space, budgets, seed=content.seed, **settings)


def _outcome(
    content: SearchContent,
    *,
    best: Sequence[Ranked],
    found: Mapping[str, Mapping[str, Any]],
    front: Sequence[Ranked],
    scores_LN: FloatTable | None,
    metrics: Mapping[str, float],
) -> Outcome:
    """What a search leaves; `best` comes best first, `found` by searcher."""
    top = [_described(ranked, content.space) for ranked in best]
    numbers = {name: top[0][name] for name in ("score", *COST_TABLES)}
    return Outcome(
        result={
            "indicator": content.search.indicator,
            "arch": top[0]["arch"],
            **numbers,
            "top": top,
            "found": {name: dict(value) for name, value in found.items()},
            "front": [_described(ranked, content.space) for ranked in front],
            "scores_LN": None if scores_LN is None else scores_LN.tolist(),
        },
        metrics={**numbers, **metrics},
    )


def _described(ranked: Ranked, space: SearchSpace) -> dict[str, Any]:
    """An architecture with its score and its costs."""
    return {
        "arch": format_architecture(ranked.arch),
        "score": ranked.score,
        **{name: table(space).of(ranked.arch) for name, table in COST_TABLES.items()},
    }


def draw_search(record: StageRecord, folder: Path) -> None:
    """Write the figures of a finished stage into a folder."""
    from experiments.figures.stage_figures import front_figure, scores_figure
    from experiments.figures.style import save_figure

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
