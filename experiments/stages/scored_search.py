"""Search by an indicator that scores whole architectures, one generation a round.

:class:`Generations` stays in the driver and holds the suggester; what :func:`make_scorer` gives
lives in the actors of a scoring job and holds supernet and images. Nothing here imports torch
before an actor calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.stages.search_outcome import describe, search_outcome
from experiments.stages.search_suggester import make_suggester
from experiments.stages.setting import WEIGHTS, load_stage_data
from nas.space import Architecture, SearchSpace, space_from_dict
from orchestration.jobs.runner import Outcome

if TYPE_CHECKING:
    from nas.data import DataSplits, ImageSet
    from nas.training import Batches

    StartBatches = Callable[[], Batches]

# Batches that every candidate sees are prepared once where they take no more than this.
_KEPT_BYTES = 512 * 1024**2
_FLOAT_BYTES = 4


class Generations:
    """The rounds of a scoring job: each is a generation of the searcher.

    Args:
        stage: the stage's config.
        space: the space that it searches.
    """

    def __init__(self, stage: Mapping[str, Any], space: SearchSpace) -> None:
        search = stage["search"]
        self._stage = stage
        self._space = space
        self._suggester = make_suggester(search["searcher"], search, space, stage["seed"])
        self._num_left = search["evolution"]["num_iterations"]

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
        search = self._stage["search"]
        result = self._suggester.result()
        num_evaluated = self._suggester.num_evaluated
        best = describe(result.ranked[0], self._space)
        return search_outcome(
            self._stage,
            self._space,
            best=result.ranked[: search["top_k"]],
            found={search["searcher"]: {"num_evaluated": num_evaluated, **best}},
            front=result.front,
            scores_LN=None,
            metrics={"num_evaluated": float(num_evaluated)},
        )


def make_scorer(config: dict[str, Any], device: str) -> Callable[[Architecture], float]:
    """The indicator as a function of one architecture; it holds supernet and images once.

    `config` is {"stage": the stage's config, "place": where things lie}.
    """
    from nas.network import Subnet
    from nas.training import to_device
    from nas.zero_cost import ZERO_COST_PROXIES

    stage = config["stage"]
    search, seed = stage["search"], stage["seed"]
    space = space_from_dict(stage["space"])
    data = load_stage_data(stage, config["place"])
    if search["indicator"] not in ZERO_COST_PROXIES:
        return _make_accuracy(stage, config["place"], space, data, device)
    proxy = ZERO_COST_PROXIES[search["indicator"]]
    batch_size = min(search["batch_size"], len(data.train))
    images_BCHW, _ = next(iter(_training_batches(data.train, batch_size, 1, seed)))
    images_BCHW = to_device(images_BCHW, device)
    return lambda arch: proxy(Subnet(space, arch, seed=seed).to(device), images_BCHW)


def _make_accuracy(
    stage: Mapping[str, Any],
    place: Mapping[str, Any],
    space: SearchSpace,
    data: DataSplits,
    device: str,
) -> Callable[[Architecture], float]:
    from nas.accuracy import subnet_accuracy
    from nas.network import Supernet

    search, seed = stage["search"], stage["seed"]
    supernet = Supernet(space, seed=seed)
    _load_weights(supernet, place)
    supernet.to(device)
    batch_size = min(search["batch_size"], len(data.train))
    num_batches = -(-min(search["recalibration_images"], len(data.train)) // batch_size)
    image_bytes = data.in_channels * data.resolution**2 * _FLOAT_BYTES
    recalibration = _kept(
        lambda: _training_batches(data.train, batch_size, num_batches, seed),
        num_batches * batch_size * image_bytes,
        device,
    )
    validation = _kept(
        lambda: data.search_val.batches(batch_size, training=False),
        len(data.search_val) * image_bytes,
        device,
    )

    def accuracy(arch: Architecture) -> float:
        return subnet_accuracy(
            supernet, arch, recalibration=recalibration, validation=validation, device=device
        ).top1

    return accuracy


def _training_batches(images: ImageSet, batch_size: int, num_batches: int, seed: int) -> Batches:
    return islice(images.batches(batch_size, training=True, seed=seed), num_batches)


def _kept(start: StartBatches, num_bytes: int, device: str) -> StartBatches:
    """The same batches at every start: decoded, augmented and on the device once if they fit."""
    from nas.training import to_device

    if num_bytes > _KEPT_BYTES:
        return start
    batches = [(to_device(images, device), labels.to(device)) for images, labels in start()]
    return lambda: batches


def _load_weights(supernet: Any, place: Mapping[str, Any]) -> None:
    import tempfile

    from experiments.stages.epochs import load_network
    from orchestration.store.stage_store import StageStore

    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(place["storage_path"])
        path = store.fetch(place["inputs"]["supernet"], WEIGHTS, Path(folder) / WEIGHTS)
        load_network(path, supernet, "cpu")
