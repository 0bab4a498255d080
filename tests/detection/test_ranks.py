"""Two ranks: the loss of all their images, one network, and interruptions without a trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.multiprocessing.spawn import spawn

import detection
from detection import DETECTOR_FILE
from orchestration.jobs.worker import LocalWorkerContext
from tests.detection.heads import head_loss
from tests.detection.runs import assert_same_end, load, small_config, small_scenes, train
from tests.interrupted import CrashError, assert_same_value, without_timings

pytestmark = pytest.mark.slow

NUM_RANKS = 2


class RankContext:
    """One of several processes on this machine; the first keeps the checkpoints."""

    def __init__(self, folder: Path, *, dies_after: int = 0) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.history: list[dict[str, float]] = []
        self._local = LocalWorkerContext(folder)
        self._dies_after = dies_after

    def restore(self) -> Any:
        return self._local.restore()

    def report(
        self, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None
    ) -> None:
        self.history.append(dict(metrics))
        if self.rank == 0:
            self._local.report(metrics, save)
        dist.barrier()
        if metrics["epoch"] == self._dies_after:
            raise CrashError


def trained_by_rank(config: Config, folder: Path) -> dict[str, Any]:
    """What a rank ends with: its network, its moving average, and what it reported."""
    context = RankContext(folder)
    runners: list[Runner] = []
    original = Runner.train

    def collected(self: Runner) -> Any:
        runners.append(self)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "train", collected)
        train(config, context)
    (runner,) = runners
    (average,) = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    return {
        "network": runner.model.module.state_dict(),
        "average": average.state_dict(),
        "history": without_timings(context.history),
    }


def run_rank(rank: int, folder: str) -> None:
    """One rank of the group; finds the scenes in the folder and leaves its results there."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(NUM_RANKS))
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS
    )
    detection.register()
    try:
        place = Path(folder)
        config = small_config(place / "scenes", num_workers=NUM_RANKS, epochs=2)
        result: dict[str, Any] = {}
        with DefaultScope.overwrite_default_scope("mmdet"):
            result["head loss"] = head_loss(slice(rank, rank + 1))
        result["whole"] = trained_by_rank(config, place / "whole")
        with pytest.raises(CrashError):
            train(config, RankContext(place / "pieces", dies_after=1))
        result["pieces"] = trained_by_rank(config, place / "pieces")
        torch.save(result, place / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where two ranks have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    small_scenes(folder / "scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        spawn(run_rank, (str(folder),), nprocs=NUM_RANKS)
    return folder


def of_ranks(folder: Path, what: str) -> list[Any]:
    return [torch.load(folder / f"rank{rank}.pt")[what] for rank in range(NUM_RANKS)]


def test_the_mean_loss_of_two_ranks_is_the_loss_of_all_their_images(together: Path) -> None:
    losses = of_ranks(together, "head loss")
    assert losses[0] != pytest.approx(losses[1], rel=0.01)
    assert sum(losses) / 2 == pytest.approx(head_loss(slice(0, 2)), rel=1e-5)


def test_ranks_end_with_the_same_network_and_the_same_numbers(together: Path) -> None:
    first, second = of_ranks(together, "whole")
    assert_same_value(first, second)
    for part in ("network", "average"):  # also the statistics of every rank's own images
        assert sum("running_" in name for name in first[part]) > 20
    assert [row["epoch"] for row in first["history"]] == [1, 2]
    average = {
        name.removeprefix("module."): value
        for name, value in first["average"].items()
        if name != "steps"
    }
    assert_same_value(load(LocalWorkerContext(together / "whole"), DETECTOR_FILE), average)


def test_ranks_that_were_interrupted_end_as_if_they_had_not_been(together: Path) -> None:
    whole, pieces = (LocalWorkerContext(together / name) for name in ("whole", "pieces"))
    assert_same_end(whole, pieces)
    for resumed, expected in zip(
        of_ranks(together, "pieces"), of_ranks(together, "whole"), strict=True
    ):
        assert_same_value(resumed["network"], expected["network"])
        assert_same_value(resumed["average"], expected["average"])
