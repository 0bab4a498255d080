"""The retrain stage: train one architecture from scratch and measure it on the test set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.plan.decides import RetrainContent
from experiments.stages.logged_model import write_subnet
from experiments.stages.worker_place import EXAMPLE, IMAGES, WEIGHTS, WorkerPlace, load_images
from nas.cost import COST_TABLES
from orchestration.jobs.runner import Outcome, StageRunner
from orchestration.jobs.train_job import JobResult
from orchestration.jobs.worker import WorkerContext
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.models import WriteModel
from orchestration.tracking.stage_runs import Done


def make_retrain(
    stage: Stage, runner: StageRunner, inputs: Mapping[str, Done], place: WorkerPlace
) -> Done:
    """Have the retrained network and its test accuracy, or get it trained.

    `inputs` names the stages that chose the architecture; they are lineage and nothing else.
    """
    content = RetrainContent.model_validate(stage.config)

    def finish(job: JobResult, folder: Path) -> Outcome:
        last = job.history[-1]
        metrics = {
            "top1": last["test/top1"],
            "test_loss": last["test/loss"],
            "num_test_images": last["test/num_images"],
            "num_skipped": last["data/num_skipped"],
            **{name: table(content.space).of(content.arch) for name, table in COST_TABLES.items()},
        }
        return Outcome(result={"arch": stage.config["arch"], **metrics}, metrics=metrics)

    return runner.train(
        stage,
        work,
        asdict(place),
        finish,
        inputs=inputs,
        draw=draw_retrain,
        keep=(WEIGHTS, EXAMPLE, IMAGES),
        model=_writer(runner.store),
    )


def show_retrain(stage: Stage, record: StageRecord, runner: StageRunner) -> Done:
    """A retrained network that is in the store, shown in MLflow."""
    return runner.runs.done(
        stage, record, cached=True, draw=draw_retrain, model=_writer(runner.store)
    )


def _writer(store: StageStore) -> WriteModel:
    return lambda record, folder: write_subnet(record, store, folder)


def work(config: dict[str, Any], context: WorkerContext) -> None:
    """Train a subnet; `config` as for the supernet stage.

    Search-validation images give `val/top1` after every epoch. The test set is looked at once,
    after the last epoch: `test/top1` and `test/loss`. Beside the weights lie what a user of them
    needs: the first of the search-validation images as an example, and the normalisation.
    """
    from experiments.stages.epochs import EpochEnd, run_epochs
    from nas.network import Subnet
    from nas.training import evaluate

    content = RetrainContent.model_validate(config["stage"])
    recipe, seed = content.retrain, content.seed
    place = WorkerPlace(**config["place"])
    data = load_images(content.data, place)
    subnet = Subnet(content.space, content.arch, seed=seed, gamma_init=recipe.gamma_init)
    examples: list[npt.NDArray[np.float32]] = []

    def epoch_end(epoch: int) -> EpochEnd:
        metrics: dict[str, float] = {}
        splits = {"val": data.search_val, "test": data.test}
        for split in ("val", "test") if epoch == recipe.epochs else ("val",):
            batches = splits[split].batches(
                recipe.batch_size,
                training=False,
                rank=context.rank,
                world_size=context.world_size,
            )
            if split == "val":  # its first image is decoded here anyway
                first = next(batches)
                examples[:] = [first[0][:1].numpy()]
                batches = chain([first], batches)
            result = evaluate(subnet, batches, device=context.device)
            num_skipped = sum(part.num_skipped for part in (data.train, *splits.values()))
            metrics |= {
                f"{split}/top1": result.top1,
                f"{split}/loss": result.loss,
                f"{split}/num_images": float(result.num_images),
                "data/num_skipped": float(num_skipped),
            }
        return EpochEnd(metrics)

    def save_more(folder: Path) -> None:
        np.save(folder / EXAMPLE, examples[0])
        images = {
            "class_names": data.class_names,
            "mean": data.search_val.mean,
            "std": data.search_val.std,
        }
        (folder / IMAGES).write_text(json.dumps(images), encoding="utf-8")

    run_epochs(
        subnet,
        recipe,
        data,
        context,
        seed=seed,
        checkpoint_s=60.0 * place.checkpoint_minutes,
        passes=lambda step: [()],
        epoch_end=epoch_end,
        save_more=save_more,
    )


def draw_retrain(record: StageRecord, folder: Path) -> None:
    """Write the figures of a finished stage into a folder."""
    from experiments.figures.stage_figures import training_figure
    from experiments.figures.style import save_figure

    figure = training_figure(record.history, title=f"Retraining {record.result['arch']}")
    save_figure(figure, folder / "retrain_training.png")
