"""An indicator that looks at whole architectures, as a function of one of them.

It lives in the actors of a scoring job and holds supernet and images. Nothing here imports torch
before an actor calls it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.plan.decides import ScoreContent, SearchContent
from experiments.stages.worker_place import WEIGHTS, WorkerPlace, load_images
from nas.space import Architecture
from orchestration.store.stage_store import StageStore

if TYPE_CHECKING:
    from nas.data import DataSplits, ImageSet
    from nas.training import Batches

    StartBatches = Callable[[], Batches]

# Batches that every candidate sees are prepared once where they take no more than this.
_KEPT_BYTES = 512 * 1024**2
_FLOAT_BYTES = 4


def make_scorer(config: dict[str, Any], device: str) -> Callable[[Architecture], float]:
    """The indicator of a search or score stage; it loads supernet and images once.

    `config` is {"stage": the stage's content, "place": a `WorkerPlace`'s values}.
    """
    from nas.network import Subnet
    from nas.training import to_device
    from nas.zero_cost import ZERO_COST_PROXIES

    kind = ScoreContent if "archs" in config["stage"] else SearchContent
    content = kind.model_validate(config["stage"])
    assert content.data is not None  # an indicator that looks at images has some
    search, space, seed = content.search, content.space, content.seed
    place = WorkerPlace(**config["place"])
    data = load_images(content.data, place)
    if search.indicator not in ZERO_COST_PROXIES:
        return _make_accuracy(content, place, data, device)
    proxy = ZERO_COST_PROXIES[search.indicator]
    batch_size = min(search.batch_size, len(data.train))
    images_BCHW, _ = next(iter(_training_batches(data.train, batch_size, 1, seed)))
    images_BCHW = to_device(images_BCHW, device)
    return lambda arch: proxy(Subnet(space, arch, seed=seed).to(device), images_BCHW)


def _make_accuracy(
    content: ScoreContent | SearchContent,
    place: WorkerPlace,
    data: DataSplits,
    device: str,
) -> Callable[[Architecture], float]:
    from experiments.stages.epochs import load_network
    from nas.network import Supernet
    from nas.training import subnet_accuracy

    search, seed = content.search, content.seed
    supernet = Supernet(content.space, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(place.storage_path)
        assert place.supernet is not None  # whose accuracy it is
        path = store.fetch(place.supernet, WEIGHTS, Path(folder) / WEIGHTS)
        load_network(path, supernet, "cpu")
    supernet.to(device)
    batch_size = min(search.batch_size, len(data.train))
    num_batches = -(-min(search.recalibration_images, len(data.train)) // batch_size)
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
