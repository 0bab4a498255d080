"""The supernet stage: train the weight-sharing supernet, record Eq. 3 after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.plan.decides import SupernetContent
from experiments.stages.worker_place import WEIGHTS, WorkerPlace, load_images
from nas.space import SearchSpace
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.jobs.train_job import JobResult
from orchestration.jobs.worker import WorkerContext
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.stage_runs import Done


def make_supernet(
    stage: Stage, runner: StageRunner, inputs: Mapping[str, Done], place: WorkerPlace
) -> Done:
    """Have the trained supernet, its weights (`WEIGHTS`) and its scores, or get it trained."""
    return runner.train(
        stage,
        work,
        asdict(place),
        _finish,
        inputs=inputs,
        draw=draw_supernet,
        keep=(WEIGHTS,),
    )


def work(config: dict[str, Any], context: WorkerContext) -> None:
    """Train a supernet.

    `config` is {"stage": the stage's content, "place": a `WorkerPlace`'s values}.
    Every epoch reports the loss and the score matrix [L, N] of Eq. 3 as one metric per candidate,
    and how many parameters train. A supernet as a whole has no accuracy, so none is reported.
    """
    from experiments.stages.epochs import EpochEnd, run_epochs
    from nas.early_bird import EarlyBirdStop
    from nas.indicators import bn_scores
    from nas.network import Supernet
    from nas.sampling import SAMPLERS
    from nas.trainable import freeze_except

    content = SupernetContent.model_validate(config["stage"])
    recipe, space, seed = content.supernet, content.space, content.seed
    supernet = Supernet(space, seed=seed, gamma_init=recipe.gamma_init)
    trained = freeze_except(supernet, recipe.trainable)
    sizes = {
        "trained_params": float(sum(parameter.numel() for parameter in trained)),
        "supernet_params": float(sum(parameter.numel() for parameter in supernet.parameters())),
    }
    sampler = SAMPLERS[recipe.sampler]
    early_bird = None
    if recipe.early_bird is not None:
        early_bird = EarlyBirdStop(recipe.early_bird.window, recipe.early_bird.threshold)

    def epoch_end(epoch: int) -> EpochEnd:
        scores_LN = bn_scores(supernet)
        metrics = sizes | record_scores(scores_LN)
        if early_bird is None:
            return EpochEnd(metrics)
        stop = early_bird.update(scores_LN)
        return EpochEnd(metrics, state=early_bird.state_dict(), stop=stop)

    place = WorkerPlace(**config["place"])
    run_epochs(
        supernet,
        recipe,
        load_images(content.data, place),
        context,
        seed=seed,
        checkpoint_s=60.0 * place.checkpoint_minutes,
        passes=lambda step: [(arch,) for arch in sampler(space, seed, step)],
        epoch_end=epoch_end,
        restore_state=early_bird.load_state_dict if early_bird else lambda state: None,
    )


def record_scores(scores_LN: npt.NDArray[np.float64]) -> dict[str, float]:
    """The score matrix [L, N] as metrics, one for every candidate that exists."""
    return {
        _score_metric(layer, choice): float(scores_LN[layer, choice])
        for layer, choice in np.argwhere(~np.isnan(scores_LN))
    }


def recorded_scores(row: Mapping[str, float], space: SearchSpace) -> npt.NDArray[np.float64]:
    """The score matrix [L, N] of one epoch, read back from a row of the stage's history."""
    scores_LN = np.full((len(space.layers), space.num_candidates), np.nan)
    for layer in space.searched_layers:
        for choice in range(len(space.layers[layer].candidates)):
            scores_LN[layer, choice] = row[_score_metric(layer, choice)]
    return scores_LN


def _score_metric(layer: int, choice: int) -> str:
    return f"score/{layer:02d}.{choice}"


def _finish(job: JobResult, folder: Path) -> Outcome:
    last = job.history[-1]
    return Outcome(
        result={"epochs": len(job.history)},
        metrics={
            "train/final_loss": last["train/loss"],
            "epochs": float(len(job.history)),
            **{name: last[name] for name in ("trained_params", "supernet_params")},
        },
    )


def draw_supernet(record: StageRecord, folder: Path) -> None:
    """Write the figures of a finished stage into a folder."""
    from experiments.figures.stage_figures import training_figure
    from experiments.figures.style import save_figure

    figure = training_figure(record.history, title="Supernet training")
    save_figure(figure, folder / "supernet_training.png")
