"""From the config of a cell to its stages, and what cannot be, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.config.data import DataConfig
from experiments.config.detect import DetectConfig
from experiments.config.experiment import CellConfig
from experiments.config.places import scaling
from experiments.plan.decides import (
    detect_stage,
    retrain_stage,
    score_stage,
    search_stage,
    searched_backbone,
    supernet_stage,
)
from nas.data import ImageSpec, MissingDataError, describe_data
from nas.indicators import INDICATORS
from nas.search import draw_legal, search_within
from nas.space import Architecture, SearchSpace, load_space
from nas.taps import select_taps
from orchestration.cluster.scaling import Scaling
from orchestration.store.stage import Stage

# A prime apart, so that the random baseline's draw is not the searcher's or a sampler's.
_BASELINE_SEED_OFFSET = 7919


@dataclass(frozen=True)
class CellPlan:
    """The stages of one cell; the retrain stage follows from the search's result."""

    config: CellConfig
    space: SearchSpace
    baseline_archs: tuple[Architecture, ...]
    supernet: Stage | None
    search: Stage

    def retrain(self, arch: Architecture) -> Stage:
        """The retraining of one architecture."""
        config = self.config
        return retrain_stage(self.space, arch, config.data, config.retrain, config.seed)

    def score(self, indicator: str, archs: Sequence[Architecture]) -> Stage:
        """What an indicator that is not additive says of given architectures."""
        return score_stage(self.space, self.config, indicator, archs, self.supernet)

    def detect(self, arch: Architecture) -> Stage:
        """The detector whose backbone is the retrained `arch`; for configs that ask for one."""
        assert self.config.detect is not None
        return detect_stage(
            searched_backbone(self.space, arch),
            self.config.detect,
            self.config.seed,
            retrain=self.retrain(arch).fingerprint,
        )

    @property
    def until_search(self) -> tuple[Stage, ...]:
        """The supernet, where the indicator reads one, and the search."""
        return (self.search,) if self.supernet is None else (self.supernet, self.search)

    @property
    def known(self) -> tuple[Stage, ...]:
        """The stages that are known before the search: all but the retraining of its winner."""
        return (*self.until_search, *map(self.retrain, self.baseline_archs))

    def some_architecture(self) -> Architecture:
        """A legal architecture, to stand for one that is not found yet."""
        budgets = self.config.search.budgets(self.space)
        return draw_legal(self.space, budgets, np.random.default_rng(self.config.seed), 1)[0]


def plan_cell(config: CellConfig, images: ImageSpec) -> CellPlan:
    """Work out the stages of one cell.

    Raises ValueError where the space or the budgets cannot be, before anything runs.
    """
    space = load_space(config.space).for_images(
        in_channels=images.in_channels,
        resolution=images.resolution,
        num_classes=images.num_classes,
    )
    budgets = config.search.budgets(space)
    check_batches(
        {"supernet": config.supernet.batch_size, "retrain": config.retrain.batch_size},
        config.data,
        images,
        scaling(config),
    )
    if config.detect is not None:
        select_taps(space, config.detect.out_strides)  # raises where the space lacks them
        check_detector_batch(config.detect, scaling(config))
    search_within(budgets[0].cost.table_LN, budgets)  # raises where nothing keeps them all
    if config.supernet.sampler == "fair":
        from nas.sampling import fair_paths

        fair_paths(space, config.seed, 0)  # raises where strict fairness is impossible
    needs_supernet = INDICATORS[config.search.indicator].needs_supernet
    supernet = supernet_stage(space, config) if needs_supernet else None
    rng = np.random.default_rng(config.seed + _BASELINE_SEED_OFFSET)
    return CellPlan(
        config=config,
        space=space,
        baseline_archs=tuple(
            draw_legal(space, budgets, rng, config.random_baseline.num_architectures)
        ),
        supernet=supernet,
        search=search_stage(space, config, supernet),
    )


def describe_images(data: DataConfig) -> ImageSpec:
    """The images of an experiment, as far as planning needs them.

    Raises MissingDataError where they are not there.
    """
    try:
        return describe_data(data.name, root=data.root, resolution=data.resolution)
    except MissingDataError as error:
        raise MissingDataError(f"data.root: {error}") from error


def num_training_images(data: DataConfig, images: ImageSpec) -> int | None:
    """How many images a training sees; None where only reading the data would tell."""
    limit = data.max_train_images
    if images.num_train_images is None:
        return limit
    carved = int(images.num_train_images * data.search_val_fraction + 0.5)
    left = images.num_train_images - carved
    return left if limit is None else min(limit, left)


def check_batches(
    batch_sizes: Mapping[str, int], data: DataConfig, images: ImageSpec, scale: Scaling
) -> None:
    """Raise ValueError where training could not fill a batch, or not share it among the workers.

    `batch_sizes` are those of the sections by their names.
    """
    limit = data.max_train_images
    if limit is not None and limit < images.num_classes:
        raise ValueError(
            f"data.max_train_images is {limit}, less than one image for each of the "
            f"{images.num_classes} classes of {data.name}."
        )
    num_images = num_training_images(data, images)
    for section, batch_size in batch_sizes.items():
        if num_images is not None and batch_size > num_images:
            raise ValueError(
                f"{section}.batch_size is {batch_size}, but only {num_images} images of "
                f"{data.name} train: give at most that."
            )
        if batch_size < scale.max_workers:
            raise ValueError(
                f"{section}.batch_size is {batch_size}, less than one image for each of "
                f"{scale.max_workers} workers (cluster.num_workers): give a larger batch or fewer "
                "workers."
            )


def check_detector_batch(detect: DetectConfig, scale: Scaling) -> None:
    """Raise ValueError where workers cannot train a detector with this batch.

    They cannot share it evenly, as MMEngine does, the precision needs a GPU, or batch norm has a
    single value.
    """
    for num_workers in range(scale.min_workers, scale.max_workers + 1):
        if detect.batch_size % num_workers:
            raise ValueError(
                f"detect.batch_size is {detect.batch_size}, which {num_workers} workers "
                "(cluster.num_workers) cannot share evenly: give a multiple."
            )
    if detect.precision != "float32" and not scale.use_gpu:
        raise ValueError(
            f"detect.precision is {detect.precision!r}, which MMEngine has on GPUs only: set "
            "float32, or cluster.use_gpu."
        )
    is_one_cell = detect.image_size == 4 * detect.out_strides[-1]
    is_synchronised = scale.use_gpu and scale.min_workers > 1
    if is_one_cell and detect.batch_size == scale.max_workers and not is_synchronised:
        raise ValueError(
            f"detect.batch_size is {detect.batch_size}, one image for each worker, and the "
            f"pyramid's last level has a single cell at image_size {detect.image_size}: batch norm "
            "needs two values at least. Give a larger batch or larger images."
        )
