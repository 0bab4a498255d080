"""The score stage: what an indicator that looks at whole architectures says of given ones.

The correlation study (Fig. 6) asks for it; a search asks as it goes along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from experiments.plan.decides import ScoreContent
from experiments.plan.forecast import ROUND
from experiments.stages.indicator import make_scorer
from experiments.stages.worker_place import WorkerPlace
from nas.space import Architecture
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.store.stage import Stage
from orchestration.tracking.stage_runs import Done


class GivenArchitectures:
    """The rounds of a scoring job over a fixed list of distinct architectures."""

    def __init__(self, archs: Sequence[Architecture]) -> None:
        self._archs = tuple(archs)
        self.scores: list[float] = []

    def suggest(self) -> Sequence[Architecture]:
        """The next ones; none after the last."""
        num_scored = len(self.scores)
        return self._archs[num_scored : num_scored + ROUND]

    def update(self, items: Sequence[Architecture], scores: Sequence[float]) -> Mapping[str, float]:
        """Take a round's scores."""
        self.scores += [float(score) for score in scores]
        return {"score/num_scored": float(len(self.scores))}

    def state_dict(self) -> Mapping[str, Any]:
        """The scores so far."""
        return {"scores": list(self.scores)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.scores = list(state["scores"])


def make_score(
    stage: Stage, runner: StageRunner, inputs: Mapping[str, Done], place: WorkerPlace
) -> Done:
    """Have the scores of a stage's architectures, or get them scored.

    `inputs` holds the supernet where the indicator reads one.
    """
    content = ScoreContent.model_validate(stage.config)
    rounds = GivenArchitectures(content.archs)

    def finish() -> Outcome:
        return Outcome(
            result={
                "indicator": content.search.indicator,
                "archs": list(stage.config["archs"]),
                "scores": list(rounds.scores),
            },
            metrics={"num_scored": float(len(rounds.scores))},
        )

    place = replace(place, supernet=stage.inputs.get("supernet"))
    return runner.score(stage, make_scorer, asdict(place), rounds, finish, inputs=inputs)
