"""Stratified splits: which images train, which judge the search, which are kept for the end.

Legend: N images, C classes. Every function is deterministic in its arguments.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.data.request import DataRequest

IntArray = npt.NDArray[np.int64]

# Separate random streams, so that the choices made with one seed stay independent of each other.
SEARCH_VAL_STREAM = 0
LIMIT_STREAM = 1
TEST_STREAM = 2


def stratified_counts(class_sizes_C: IntArray, total: int) -> IntArray:
    """How many images of each class make a stratified subset of `total` images.

    Largest remainder: every class gets its exact share rounded down, and what is left over goes to
    the classes with the largest fractional parts, the lower class first where they are equal. No
    class gets less than one; the class that this favours least pays for it.

    Args:
        class_sizes_C: images of each class, all at least 1.
        total: number of classes <= total <= number of images.
    """
    num_classes, num_images = len(class_sizes_C), int(class_sizes_C.sum())
    assert class_sizes_C.min() >= 1
    assert num_classes <= total <= num_images
    shares_C = class_sizes_C * (total / num_images)
    counts_C = np.maximum((class_sizes_C * total) // num_images, 1)
    while counts_C.sum() < total:
        counts_C[np.argmax(shares_C - counts_C)] += 1
    while counts_C.sum() > total:
        counts_C[np.argmin(np.where(counts_C > 1, shares_C - counts_C, np.inf))] -= 1
    return counts_C


def stratified_subset(labels_N: IntArray, counts_C: IntArray, seed: int, stream: int) -> IntArray:
    """Ascending indices of a random subset with `counts_C[c]` images of each class c."""
    chosen = []
    for class_index, count in enumerate(counts_C):
        members = np.flatnonzero(labels_N == class_index)
        generator = np.random.default_rng((stream, seed, class_index))
        chosen.append(generator.permutation(members)[:count])
    return np.sort(np.concatenate(chosen))


def carve(
    labels_N: IntArray, fraction: float, class_names: tuple[str, ...], *, seed: int, stream: int
) -> tuple[IntArray, IntArray]:
    """Split indices into (what stays, the stratified `fraction` that is carved out).

    The carved part holds `fraction` of the images, rounded half up, and at least one of each class;
    at least one image of each class stays.

    Raises:
        ValueError: a class with fewer than two images.
    """
    class_sizes_C = np.bincount(labels_N, minlength=len(class_names))
    if class_sizes_C.min() < 2:
        smallest = int(class_sizes_C.argmin())
        raise ValueError(
            f"class {class_names[smallest]!r} has {class_sizes_C[smallest]} training image(s); at "
            "least 2 per class are needed to carve one out for search validation: add images or "
            "remove the class."
        )
    total = max(len(class_names), int(fraction * len(labels_N) + 0.5))
    counts_C = stratified_counts(class_sizes_C, total)
    carved = stratified_subset(labels_N, counts_C, seed, stream)
    return np.setdiff1d(np.arange(len(labels_N)), carved), carved


def split_train(
    labels_N: IntArray,
    class_names: tuple[str, ...],
    request: DataRequest,
) -> tuple[IntArray, IntArray]:
    """Indices (train, search_val) of the official training images.

    `request.max_train_images` takes a stratified subset of what is left after carving, so that
    search-validation stays the same when it changes.

    Raises:
        ValueError: a class with fewer than two images, or `max_train_images` below the number of
            classes.
    """
    train, search_val = carve(
        labels_N,
        request.search_val_fraction,
        class_names,
        seed=request.split_seed,
        stream=SEARCH_VAL_STREAM,
    )
    max_train_images = request.max_train_images
    if max_train_images is None or max_train_images >= len(train):
        return train, search_val
    if max_train_images < len(class_names):
        raise ValueError(
            f"max_train_images is {max_train_images}, but there are {len(class_names)} classes; "
            "give at least one image per class."
        )
    train_labels = labels_N[train]
    sizes_C = np.bincount(train_labels, minlength=len(class_names))
    counts_C = stratified_counts(sizes_C, max_train_images)
    limited = stratified_subset(train_labels, counts_C, request.split_seed, LIMIT_STREAM)
    return train[limited], search_val
