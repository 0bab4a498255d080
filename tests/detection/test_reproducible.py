"""An augmented image is a function of (seed, epoch, index), whoever loads it, whenever."""

from __future__ import annotations

import random
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS

from detection.reproducible import EpochSampler, SeededCocoDataset
from tests.detection.runs import NUM_TRAIN, small_config

EPOCHS = (0, 1, 7)
Images = dict[tuple[int, int], dict[str, Any]]


def dataset_of(scenes: Path, seed: int = 3, **changes: Any) -> SeededCocoDataset:
    config = small_config(scenes, seed=seed, **changes)
    dataset: SeededCocoDataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == NUM_TRAIN
    return dataset


def load_image(dataset: SeededCocoDataset, epoch: int, index: int) -> dict[str, Any]:
    packed = dataset[epoch * len(dataset) + index]
    sample = packed["data_samples"]
    return {
        "pixels": packed["inputs"].tolist(),
        "boxes": sample.gt_instances.bboxes.tensor.tolist(),
        "labels": sample.gt_instances.labels.tolist(),
        "img_id": sample.img_id,
        "flip": sample.flip,
        "scale": sample.scale_factor,
    }


@pytest.fixture
def expected(scenes: Path) -> Images:
    """Every image in three epochs, in order."""
    dataset = dataset_of(scenes)
    places = [(epoch, index) for epoch in EPOCHS for index in range(NUM_TRAIN)]
    return {place: load_image(dataset, *place) for place in places}


def test_neither_the_order_nor_global_random_states_count_and_none_changes(
    scenes: Path, expected: Images
) -> None:
    dataset = dataset_of(scenes)

    def seed_all(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)

    def draw() -> tuple[Any, ...]:
        return random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002

    for seed, place in enumerate(np.random.default_rng(0).permutation([*expected]).tolist()):
        seed_all(seed)
        assert load_image(dataset, *place) == expected[tuple(place)]
        drawn = draw()
        seed_all(seed)
        assert drawn == draw()


def test_a_failing_image_leaves_the_global_random_states_alone(scenes: Path) -> None:
    dataset = dataset_of(scenes)
    before = random.getstate()

    def fail(results: Any) -> Any:
        random.random()
        raise OSError("no such file")

    dataset.pipeline.transforms.insert(0, fail)
    with pytest.raises(OSError, match="no such file"):
        load_image(dataset, 0, 0)
    assert random.getstate() == before


def test_other_epochs_and_seeds_give_other_augmentations(scenes: Path, expected: Images) -> None:
    other_seed = dataset_of(scenes, seed=4)
    for index in range(NUM_TRAIN):
        first, second, third = (expected[epoch, index] for epoch in EPOCHS)
        assert first["img_id"] == second["img_id"] == third["img_id"]
        images = [first, second, third, load_image(other_seed, 0, index)]
        assert not any(ours == theirs for ours, theirs in combinations(images, 2))
    assert {one["flip"] for one in expected.values()} == {True, False}
    # Nor are the images of an epoch augmented alike.
    assert len({expected[0, index]["scale"] for index in range(NUM_TRAIN)}) > NUM_TRAIN / 2
    plain = dataset_of(scenes, scale_range=(1.0, 1.0), flip_prob=0.0)
    for index in range(NUM_TRAIN):
        assert load_image(plain, 0, index) == load_image(plain, 5, index)


# --- which rank loads what ---


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


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_step_of_all_ranks_is_the_step_of_one_and_an_epoch_has_every_image_once(
    num_ranks: int,
) -> None:
    for epoch in EPOCHS:
        alone = steps(of_rank(0, 1, 24, epoch), 8)
        assert sorted(chain(*alone)) == list(range(epoch * 24, epoch * 24 + 24))
        by_rank = (
            steps(of_rank(rank, num_ranks, 24, epoch), 8 // num_ranks) for rank in range(num_ranks)
        )
        for whole, parts in zip(alone, zip(*by_rank, strict=True), strict=True):
            assert sorted(whole) == sorted(chain(*parts))


def test_ranks_have_equally_many_steps_where_images_do_not_go_round() -> None:
    first, second = (of_rank(rank, 2, 7, epoch=1) for rank in range(2))
    assert len(first) == len(second) == 4
    assert set(first) | set(second) == set(range(7, 14))


def test_epochs_are_shuffled_each_in_its_own_way() -> None:
    orders = [tuple(i % 24 for i in of_rank(0, 1, 24, epoch)) for epoch in EPOCHS]
    assert len({*orders, tuple(range(24))}) == 4
    assert of_rank(0, 1, 24, 2, shuffle=False) == list(range(48, 72))
