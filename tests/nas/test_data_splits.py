"""Stratified splits, against counts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nas.data.request import DataRequest
from nas.data.splits import carve, split_train, stratified_counts

NAMES = ("a", "b", "c")
# 6, 30 and 14 images, interleaved.
LABELS_N = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [6, 30, 14])).astype(np.int64)


@pytest.mark.parametrize(
    ("class_sizes", "total", "expected"),
    [
        ([10, 10], 4, [2, 2]),
        ([6, 30, 14], 10, [1, 6, 3]),  # shares 1.2, 6.0, 2.8
        ([5, 5, 5], 4, [2, 1, 1]),  # shares 1.33 each: the lower class first
        ([98, 1, 1], 10, [8, 1, 1]),  # shares 9.8, 0.1, 0.1: the large class pays for the small
        ([2, 2], 4, [2, 2]),
    ],
)
def test_stratified_counts(class_sizes: list[int], total: int, expected: list[int]) -> None:
    assert stratified_counts(np.array(class_sizes), total).tolist() == expected


def test_carving_keeps_every_class_s_share_and_loses_nothing() -> None:
    train, search_val = split_train(LABELS_N, NAMES, DataRequest("data", search_val_fraction=0.2))
    assert np.bincount(LABELS_N[search_val]).tolist() == [1, 6, 3]
    assert np.bincount(LABELS_N[train]).tolist() == [5, 24, 11]
    assert sorted([*train, *search_val]) == list(range(50))


def test_a_small_class_gives_one_image_and_keeps_one() -> None:
    labels_N = np.array([0] * 40 + [1] * 2)
    stays, carved = carve(labels_N, 0.05, ("big", "small"), seed=0, stream=0)
    assert np.bincount(labels_N[carved]).tolist() == [1, 1]
    assert np.bincount(labels_N[stays]).tolist() == [39, 1]


def test_the_seed_decides_and_the_limit_leaves_search_validation_alone() -> None:
    def split(seed: int, limit: int | None) -> tuple[list[int], list[int]]:
        request = DataRequest(
            "data", search_val_fraction=0.2, split_seed=seed, max_train_images=limit
        )
        train, search_val = split_train(LABELS_N, NAMES, request)
        return train.tolist(), search_val.tolist()

    assert split(1, None) == split(1, None)
    assert split(1, None)[1] != split(2, None)[1]
    limited_train, limited_val = split(1, 20)
    assert limited_val == split(1, None)[1]
    assert set(limited_train) < set(split(1, None)[0])
    # 20 of (5, 24, 11): shares 2.5, 12.0, 5.5, and the lower class wins the tie.
    assert np.bincount(LABELS_N[limited_train]).tolist() == [3, 12, 5]
    assert split(1, 40) == split(1, None)


def test_too_few_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"class 'c' has 1 training image\(s\); at least 2"):
        carve(np.array([0, 0, 1, 1, 2]), 0.2, NAMES, seed=0, stream=0)
    with pytest.raises(ValueError, match="max_train_images is 2, but there are 3 classes"):
        split_train(LABELS_N, NAMES, DataRequest("data", max_train_images=2))
