"""scikit-learn's scanned digits: real images that are there as soon as the package is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from nas.data.request import MissingDataError
from nas.data.small import SmallData
from nas.data.splits import TEST_STREAM, carve

_TEST_FRACTION = 0.2
# A constant, not the user's split_seed: accuracies on digits stay comparable between any two runs.
_TEST_SEED = 0


def read_digits() -> SmallData:
    """scikit-learn's 1,797 scans of handwritten digits, 8x8, one channel, values 0 to 16.

    They come without an official test set: a fixed stratified fifth (359 images) serves as one.
    """
    rows = np.loadtxt(digits_file(), delimiter=",")  # 64 pixels and the label
    pixels_NCHW = (rows[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels_N = rows[:, -1].astype(np.int64)
    class_names = tuple(str(digit) for digit in range(10))
    train, test = carve(labels_N, _TEST_FRACTION, class_names, seed=_TEST_SEED, stream=TEST_STREAM)
    return SmallData(
        train_NCHW=pixels_NCHW[train],
        train_labels_N=labels_N[train],
        test_NCHW=pixels_NCHW[test],
        test_labels_N=labels_N[test],
        class_names=class_names,
        mean=None,
        std=None,
        flip=False,
    )


def digits_file() -> Path:
    """What scikit-learn's own `load_digits` reads, after a second of imports in every worker.

    Raises:
        MissingDataError: it is not there.
    """
    package = importlib.util.find_spec("sklearn")
    for place in (package and package.submodule_search_locations) or ():
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            return file
    raise MissingDataError("digits are missing from scikit-learn: install it again.")
