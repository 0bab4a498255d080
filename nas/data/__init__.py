"""Data sets and their three splits, as seeded streams of batches.

The method needs images three times: to train a supernet or a subnet, to judge candidates while
searching, and to report the winner's accuracy once. `load_data` gives one `ImageSet` for each.
Importing this package needs NumPy only; torch, torchvision and scikit-learn come with the first
data set that uses them.
"""

from __future__ import annotations

from nas.data.image_set import DataSplits, ImageSet, Split
from nas.data.registry import DATASETS, DataSet, ImageSpec, describe_data, load_data
from nas.data.request import DataRequest, MissingDataError, UnreadableImageError

__all__ = [
    "DATASETS",
    "DataRequest",
    "DataSet",
    "DataSplits",
    "ImageSet",
    "ImageSpec",
    "MissingDataError",
    "Split",
    "UnreadableImageError",
    "describe_data",
    "load_data",
]
