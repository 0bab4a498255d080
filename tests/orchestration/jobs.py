"""Training functions for the tests: Ray's workers import them from here."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestration.jobs.worker import WorkerContext


def count(config: dict[str, Any], context: WorkerContext) -> None:
    """Adds up 1, 2, 3 …, one term an epoch."""
    total, first = 0, 1
    with context.restore() as folder:
        if folder is not None:
            state = json.loads((folder / "state.json").read_text())
            total, first = state["total"], state["epoch"] + 1
    for epoch in range(first, config["epochs"] + 1):
        total += epoch
        _record_execution(config, context, epoch)
        time.sleep(config.get("epoch_s", 0.0))

        def save(folder: Path, epoch: int = epoch, total: int = total) -> None:
            state = {"epoch": epoch, "total": total}
            (folder / "state.json").write_text(json.dumps(state))

        loss = math.nan if epoch == config.get("nan_epoch") else total / 7.0
        context.report({"epoch": epoch, "train/loss": loss}, save)


def train_torch(config: dict[str, Any], context: WorkerContext) -> None:
    """Ten steps an epoch of a linear model on noise; momentum and noise survive a restart.

    It saves in the middle of every epoch, too, and dies there once if ``die`` names the epoch;
    ``marks`` is a folder that remembers it.
    """
    import torch

    generator = torch.Generator().manual_seed(config["seed"])
    model = torch.nn.Linear(4, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    first = 0
    with context.restore() as folder:
        if folder is not None:
            state = torch.load(folder / "state.pt", weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            generator.set_state(state["generator"])
            first = state["num_steps"]
    for epoch in range(1 + first // 10, config["epochs"] + 1):
        num_steps = max(first, 10 * epoch - 10)

        def save(folder: Path) -> None:
            state = {
                "num_steps": num_steps,  # noqa: B023  # called at once
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
            }
            torch.save(state, folder / "state.pt")

        while num_steps < 10 * epoch:
            _record_execution(config, context, num_steps)
            batch_BI = torch.randn((8, 4), generator=generator)
            loss = model(batch_BI).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if context.world_size > 1:
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= context.world_size
            optimizer.step()
            num_steps += 1
            if num_steps % 10 == 5:
                context.checkpoint_now(save)
                _maybe_die(config, context, epoch)

        context.report({"epoch": epoch, "train/loss": loss.item()}, save)


def refuse(config: dict[str, Any], context: WorkerContext) -> None:
    """What a stage does with a request that is wrong."""
    _record_execution(config, context, 0)
    raise ValueError("data.root is '/nowhere': give the folder that holds train/ and val/.")


def break_down(config: dict[str, Any], context: WorkerContext) -> None:
    """A failure that may go away, but does not."""
    _record_execution(config, context, 0)
    raise RuntimeError("the fan is loud")


def count_in_job(
    argument: dict[str, Any], report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """A task of a sweep whose job takes both cores."""
    from orchestration.cluster.scaling import Scaling
    from orchestration.jobs.train_job import run_train_job

    result = run_train_job(
        count, argument, scaling=Scaling(cpus_per_worker=2), on_progress=report, **argument["job"]
    )
    return {"losses": [row["train/loss"] for row in result.history]}


def nothing(config: dict[str, Any], context: WorkerContext) -> None:
    """The cheapest job there is."""
    context.report({"epoch": 1})


def _maybe_die(config: dict[str, Any], context: WorkerContext, epoch: int) -> None:
    if context.rank != 0 or config.get("die") != epoch:
        return
    mark = Path(config["marks"], "died")
    if not mark.exists():
        import ray.train

        ray.train.get_all_reported_checkpoints()  # waits until the controller has the last one
        mark.touch()
        os._exit(1)


def _record_execution(config: dict[str, Any], context: WorkerContext, epoch: int) -> None:
    if "executions" in config and context.rank == 0:
        with Path(config["executions"]).open("a") as file:
            file.write(f"{epoch}\n")


def count_down(
    argument: dict[str, Any], report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """A task of a sweep: reports what is left, and raises or dies where told to."""
    marks = Path(argument["marks"])
    if "die" in argument:
        mark = marks / f"died-{argument['die']}"
        if argument["die"] == "always" or not mark.exists():
            mark.touch()
            os._exit(1)
    inside = marks / "inside"
    if argument.get("alone"):
        inside.touch(exist_ok=False)
        time.sleep(0.5)
    for left in reversed(range(argument["from"])):
        report({"left": left})
    if "raise" in argument:
        raise RuntimeError(argument["raise"])
    if argument.get("alone"):
        inside.unlink()
    return {"counted": argument["from"]}
