"""The search stage: the best architecture under the budgets, by indicator and searcher.

An additive indicator is a table, which is searched here in the driver. One that scores whole
architectures runs as a scoring job, one generation a round, and resumes after the last generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.stages.scored_search import Generations, make_scorer
from experiments.stages.setting import Setting
from experiments.stages.supernet import recorded_scores
from experiments.stages.table_search import search_table
from nas.indicators import INDICATORS, additive_scores
from nas.space import space_from_dict
from orchestration.jobs.runner import Outcome
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.stage_runs import Done


def make_search(stage: Stage, setting: Setting, inputs: Mapping[str, Done]) -> Done:
    """Have the search's result or get it searched; `inputs` holds the supernet if one is read."""
    space, search = space_from_dict(stage.config["space"]), stage.config["search"]
    if not INDICATORS[search["indicator"]].additive:
        generations = Generations(stage.config, space)
        fetch = {kind: done.record.fingerprint for kind, done in inputs.items()}
        return setting.with_place(inputs=fetch).score(
            stage,
            make_scorer,
            generations,
            generations.outcome,
            total=search["evolution"]["num_iterations"],
            inputs=inputs,
            draw=draw_search,
        )

    def search_by_table() -> Outcome:
        bn_scores_LN = None
        if "supernet" in inputs:
            bn_scores_LN = recorded_scores(inputs["supernet"].record.history[-1], space)
        scores_LN = additive_scores(
            search["indicator"], space, bn_scores_LN=bn_scores_LN, seed=stage.config["seed"]
        )
        return search_table(stage.config, space, scores_LN)

    return setting.compute(stage, search_by_table, inputs=inputs, draw=draw_search)


def draw_search(record: StageRecord, folder: Path) -> None:
    """Write the figures of a finished stage into a folder."""
    from experiments.figures.stages import front_figure, scores_figure
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
