"""An augmented image is a function of (seed, epoch, index), whoever loads it, whenever."""

from __future__ import annotations

import multiprocessing
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from torch import Tensor

from detection.reproducible import EpochSampler, SeededCocoDataset
from tests.detection.runs import (
    NUM_TRAIN,
    assert_same_end,
    run,
    small_config,
    small_scenes,
)

EPOCHS = (0, 1, 7)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_scenes(tmp_path_factory.mktemp("scenes") / "64")


def dataset_of(scenes: Path, seed: int = 3, **changes: Any) -> SeededCocoDataset:
    config = small_config(scenes, seed=seed, **changes)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset: SeededCocoDataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == NUM_TRAIN
    return dataset


def look(dataset: SeededCocoDataset, epoch: int, index: int) -> dict[str, Any]:
    packed = dataset[epoch * len(dataset) + index]
    sample = packed["data_samples"]
    return {
        "pixels": packed["inputs"],
        "boxes": sample.gt_instances.bboxes.tensor,
        "labels": sample.gt_instances.labels,
        "img_id": sample.img_id,
        "flip": sample.flip,
        "scale": sample.scale_factor,
    }


def is_same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return all(
        torch.equal(value, theirs[name]) if isinstance(value, Tensor) else value == theirs[name]
        for name, value in ours.items()
    )


@pytest.fixture(scope="module")
def expected(scenes: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Every image in three epochs, in order."""
    dataset = dataset_of(scenes)
    places = [(epoch, index) for epoch in EPOCHS for index in range(NUM_TRAIN)]
    return {place: look(dataset, *place) for place in places}


def test_the_order_of_access_changes_nothing(
    scenes: Path, expected: dict[tuple[int, int], dict[str, Any]]
) -> None:
    dataset = dataset_of(scenes)
    places = list(expected)
    for place in [*reversed(places), *np.random.default_rng(0).permutation(places).tolist()]:
        assert is_same(look(dataset, *place), expected[tuple(place)])


def test_global_random_states_neither_count_nor_change(
    scenes: Path, expected: dict[tuple[int, int], dict[str, Any]]
) -> None:
    dataset = dataset_of(scenes)
    for seed, place in enumerate(expected):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        assert is_same(look(dataset, *place), expected[place])
        drawn = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        assert drawn == (random.random(), np.random.random(), torch.rand(1))  # noqa: NPY002


def test_a_failing_image_leaves_the_global_random_states_alone(scenes: Path) -> None:
    dataset = dataset_of(scenes)
    before = random.getstate()

    def fail(results: Any) -> Any:
        random.random()
        raise OSError("no such file")

    dataset.pipeline.transforms.insert(0, fail)
    with pytest.raises(OSError, match="no such file"):
        look(dataset, 0, 0)
    assert random.getstate() == before


def test_other_epochs_and_seeds_give_other_augmentations(
    scenes: Path, expected: dict[tuple[int, int], dict[str, Any]]
) -> None:
    other_seed = dataset_of(scenes, seed=4)
    for index in range(NUM_TRAIN):
        first, second, third = (expected[epoch, index] for epoch in EPOCHS)
        assert first["img_id"] == second["img_id"] == third["img_id"]
        found = [first, second, third, look(other_seed, 0, index)]
        assert not any(is_same(ours, theirs) for ours, theirs in combinations(found, 2))
    assert {one["flip"] for one in expected.values()} == {True, False}
    # Nor are the images of an epoch augmented alike.
    assert len({expected[0, index]["scale"] for index in range(NUM_TRAIN)}) > NUM_TRAIN / 2


def test_without_augmentations_epochs_are_alike(scenes: Path) -> None:
    dataset = dataset_of(scenes, scale_range=(1.0, 1.0), flip_prob=0.0)
    for index in range(NUM_TRAIN):
        assert is_same(look(dataset, 0, index), look(dataset, 5, index))


# --- who loads what ---


def of_rank(
    rank: int, num_ranks: int, length: int, epoch: int, *, shuffle: bool = True
) -> list[int]:
    """The indices that a rank's sampler gives in an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.dataset.sampler, "get_dist_info", lambda: (rank, num_ranks))
        sampler = EpochSampler(range(length), shuffle=shuffle, seed=5)
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(sampler) == len(indices)
    return indices


def steps(indices: list[int], batch_size: int) -> list[list[int]]:
    return [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]


@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_an_epoch_has_every_image_once(epoch: int, num_ranks: int) -> None:
    found = [i for rank in range(num_ranks) for i in of_rank(rank, num_ranks, 12, epoch)]
    assert sorted(found) == [epoch * 12 + index for index in range(12)]


def test_ranks_have_equally_many_steps_where_images_do_not_go_round() -> None:
    first, second = (of_rank(rank, 2, 7, epoch=1) for rank in range(2))
    assert len(first) == len(second) == 4
    assert set(first) | set(second) == set(range(7, 14))


@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_step_of_all_ranks_is_the_step_of_one(epoch: int, num_ranks: int) -> None:
    alone = steps(of_rank(0, 1, 24, epoch), 8)
    together = zip(
        *(steps(of_rank(rank, num_ranks, 24, epoch), 8 // num_ranks) for rank in range(num_ranks)),
        strict=True,
    )
    for whole, parts in zip(alone, together, strict=True):
        assert sorted(whole) == sorted(index for part in parts for index in part)
    assert len(alone) == 3


def test_epochs_are_shuffled_each_in_its_own_way() -> None:
    orders = [tuple(i % 24 for i in of_rank(0, 1, 24, epoch)) for epoch in EPOCHS]
    assert len({*orders, tuple(range(24))}) == 4
    assert of_rank(0, 1, 24, 2, shuffle=False) == list(range(48, 72))


def test_loaders_change_nothing_and_end_with_the_training(scenes: Path, tmp_path: Path) -> None:
    alone, loaded = (
        run(small_config(scenes, epochs=3, num_loaders=number), tmp_path / str(number))
        for number in (0, 2)
    )
    assert_same_end(alone, loaded)
    assert multiprocessing.active_children() == []
