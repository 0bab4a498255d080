"""Short measurements on this machine of what an epoch, or a search's candidate, costs.

The real network, the real images and the real training loop, on one device and a few batches. Large
batches are cut down: a CPU would take minutes for 1024 images of ImageNet, and an image takes much
the same in a smaller batch. With several workers each is taken to do its share as fast.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, cycle, islice
from typing import TYPE_CHECKING, Any

from experiments.config.places import scaling
from experiments.config.training import Recipe
from experiments.plan.decides import (
    RetrainContent,
    ScoreContent,
    SearchContent,
    SupernetContent,
)
from experiments.plan.forecast import UNKNOWN, Rate, likeness
from experiments.plan.graph import PlannedStage
from experiments.stages.worker_place import WorkerPlace, load_images
from nas.cost import flops_table

if TYPE_CHECKING:
    from torch import nn

    from nas.data import DataSplits, ImageSet
    from nas.training import Batches, Passes

Content = SupernetContent | SearchContent | ScoreContent | RetrainContent
_CONTENTS: dict[str, type[Content]] = {
    "supernet": SupernetContent,
    "search": SearchContent,
    "score": ScoreContent,
    "retrain": RetrainContent,
}
_PROBE_S = 2.0
_MIN_STEPS = 2
# In a batch at most; small images come in larger batches.
_MAX_PIXELS = {"cpu": 8 * 224**2, "cuda": 128 * 224**2}
_HOUR_S = 3600.0


@dataclass(frozen=True)
class _Bench:
    """What one kind of stage is measured with."""

    one: PlannedStage
    content: Content
    data: DataSplits
    device: str
    place: WorkerPlace

    def batch_size(self, wanted: int) -> int:
        """One worker's part of a batch, or as much of it as is measured."""
        share = max(1, wanted // scaling(self.one.config).max_workers)
        most = _MAX_PIXELS[self.device] // self.data.resolution**2
        return min(share, len(self.data.train), max(1, most))


class Probe:
    """Measures each kind of stage once; stages that only differ in length are one kind.

    Args:
        say: told what is being measured, for people.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._say = say
        self._rates: dict[str, Rate] = {}
        self._data: dict[str, tuple[DataSplits, float]] = {}
        self._import_s = 0.0

    def __call__(self, one: PlannedStage) -> Rate | str:
        """The rate of a stage, or why it is not measured."""
        kind, config = one.stage.kind, one.stage.config
        if kind not in _CONTENTS:
            return UNKNOWN
        if config["data"]["skip_unreadable"]:
            return "not measured: data.skip_unreadable would decode every image first"
        key = likeness(kind, config)
        if key not in self._rates:
            self._say(one.name)
            self._import()
            with _threads_of_a_worker(one):
                self._rates[key] = self._measure(one)
        return self._rates[key]

    def _import(self) -> None:
        """Import what every worker imports, and remember how long the first time takes."""
        start_s = time.perf_counter()
        import experiments.stages.epochs  # noqa: F401

        self._import_s = max(self._import_s, time.perf_counter() - start_s)

    def _measure(self, one: PlannedStage) -> Rate:
        import torch

        cluster, place = one.config.cluster, WorkerPlace.of(one.config)
        device = "cuda" if cluster.use_gpu and torch.cuda.is_available() else "cpu"
        content = _CONTENTS[one.stage.kind].model_validate(one.stage.config)
        splits, load_s = self._load(content, place)
        bench = _Bench(one, content, splits, device, place)
        flops = None
        if isinstance(content, SupernetContent):
            unit_s, once_s = _supernet_s(bench, content)
        elif isinstance(content, RetrainContent):
            unit_s, once_s = _retrain_s(bench, content)
            flops = flops_table(content.space).of(content.arch)
        else:
            unit_s, once_s = _candidate_s(bench, content)
        basis = f"measured on this machine's {'GPU' if device == 'cuda' else 'CPU'}"
        if cluster.use_gpu and device == "cpu":
            basis += ", there is no GPU here"
        once_s += self._import_s + load_s
        return Rate(unit_s / _HOUR_S, once_s / _HOUR_S, flops, basis)

    def _load(self, content: Content, place: WorkerPlace) -> tuple[DataSplits, float]:
        """The images of a stage, and the seconds that loading them took."""
        assert content.data is not None  # what is measured reads images
        key = repr(content.data)
        if key not in self._data:
            start_s = time.perf_counter()
            splits = load_images(content.data, place)
            self._data[key] = (splits, time.perf_counter() - start_s)
        return self._data[key]


def _supernet_s(bench: _Bench, content: SupernetContent) -> tuple[float, float]:
    """Seconds of an epoch of the supernet, and besides."""
    from nas.network import Supernet
    from nas.sampling import SAMPLERS
    from nas.trainable import freeze_except

    recipe, space, seed = content.supernet, content.space, content.seed
    start_s = time.perf_counter()
    supernet = Supernet(space, seed=seed, gamma_init=recipe.gamma_init)
    freeze_except(supernet, recipe.trainable)
    build_s = time.perf_counter() - start_s
    sampler = SAMPLERS[recipe.sampler]
    image_s = _training_image_s(
        supernet, recipe, bench, lambda step: [(arch,) for arch in sampler(space, seed, step)]
    )
    return image_s * _num_images(bench.data, recipe.batch_size), build_s


def _retrain_s(bench: _Bench, content: RetrainContent) -> tuple[float, float]:
    """Seconds of an epoch of a subnet with its validation; besides, those of the test."""
    from nas.network import Subnet
    from nas.training import evaluate

    recipe, data, device = content.retrain, bench.data, bench.device
    subnet = Subnet(content.space, content.arch, seed=0, gamma_init=recipe.gamma_init)
    train_s = _training_image_s(subnet, recipe, bench, lambda step: [()])
    batches = _endless(data.train, bench.batch_size(recipe.batch_size))
    evaluate_s = _image_s(batches, lambda some: evaluate(subnet, some, device=device))
    epoch_s = train_s * _num_images(data, recipe.batch_size) + evaluate_s * len(data.search_val)
    return epoch_s, evaluate_s * len(data.test)


def _candidate_s(bench: _Bench, content: SearchContent | ScoreContent) -> tuple[float, float]:
    """Seconds that an indicator takes for one architecture, and besides."""
    from experiments.stages.indicator import make_scorer
    from nas.network import Supernet, extract_subnet
    from nas.training import evaluate, recalibrate
    from nas.zero_cost import ZERO_COST_PROXIES

    cell, data, device = bench.one.cell, bench.data, bench.device
    assert cell is not None  # nothing else has scores
    search, arch = content.search, cell.some_architecture()
    if search.indicator in ZERO_COST_PROXIES:
        score = make_scorer({"stage": bench.one.stage.config, "place": asdict(bench.place)}, device)
        return _call_s(lambda: score(arch)), 0.0
    start_s = time.perf_counter()
    supernet = Supernet(content.space, seed=0).to(device)
    build_s = time.perf_counter() - start_s
    subnet = extract_subnet(supernet, arch)
    batches = _endless(data.train, bench.batch_size(search.batch_size))
    if data.name != "imagefolder":  # small ones are prepared once, for all candidates
        batches = cycle(list(islice(batches, 4)))
    recalibrate_s = _image_s(batches, lambda some: recalibrate(subnet, some, device=device))
    evaluate_s = _image_s(batches, lambda some: evaluate(subnet, some, device=device))
    num_images = min(search.recalibration_images, len(data.train))
    candidate_s = (
        _call_s(lambda: extract_subnet(supernet, arch))
        + recalibrate_s * num_images
        + evaluate_s * len(data.search_val)
    )
    return candidate_s, build_s


def _training_image_s(network: nn.Module, recipe: Recipe, bench: _Bench, passes: Passes) -> float:
    """Seconds that training takes for an image; the weights stay as they are."""
    import torch

    from nas.schedule import WarmupCosine
    from nas.training import build_optimizer, train_epoch

    network.to(bench.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, momentum=recipe.momentum)
    autocast = None if recipe.precision == "float32" else getattr(torch, recipe.precision)
    still = WarmupCosine(start=0.0, peak=0.0, warmup_steps=0, num_steps=1)
    return _image_s(
        _endless(bench.data.train, bench.batch_size(recipe.batch_size)),
        lambda some: train_epoch(
            network,
            some,
            optimizer,
            still,
            first_step=0,
            passes=passes,
            label_smoothing=recipe.label_smoothing,
            clip_norm=recipe.clip_norm,
            device=bench.device,
            autocast=autocast,
        ),
    )


def _image_s(batches: Iterator[Any], run: Callable[[Batches], object]) -> float:
    """Seconds that `run` takes for an image, after a first batch that does not count."""
    run(islice(batches, 1))
    num_images = 0
    start_s = time.perf_counter()

    def some() -> Iterator[Any]:
        nonlocal num_images
        for number in count():
            if number >= _MIN_STEPS and time.perf_counter() - start_s > _PROBE_S:
                return
            images, labels = next(batches)
            num_images += len(labels)
            yield images, labels

    run(some())
    return (time.perf_counter() - start_s) / num_images


def _call_s(call: Callable[[], object]) -> float:
    """Seconds of a call, after a first one that does not count."""
    call()
    start_s = time.perf_counter()
    for number in count(1):
        call()
        spent_s = time.perf_counter() - start_s
        if number >= _MIN_STEPS and spent_s > _PROBE_S / 4:
            break
    return spent_s / number


def _endless(images: ImageSet, batch_size: int) -> Iterator[Any]:
    for epoch in count():
        yield from images.batches(batch_size, training=True, epoch=epoch)


def _num_images(data: DataSplits, batch_size: int) -> int:
    """How many images an epoch trains on: whole batches only."""
    return data.train.num_batches(batch_size, training=True) * batch_size


@contextlib.contextmanager
def _threads_of_a_worker(one: PlannedStage) -> Iterator[None]:
    """As many threads as Ray gives a worker: one for each of its cores, unless the user says."""
    import torch

    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, int(one.config.cluster.cpus_per_worker)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
