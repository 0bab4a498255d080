"""Data sets that need no download: whether their files are there."""

from __future__ import annotations

from pathlib import Path

from experiments.doctor.check import Check
from experiments.doctor.libraries import INSTALL
from nas.data import MissingDataError
from nas.data.digits import digits_file
from nas.data.fashion_mnist import DEBIAN_FASHION_MNIST, FASHION_MNIST_FILES

_GET_FASHION_MNIST = (
    "apt-get install dataset-fashion-mnist; or download it with torchvision and name the folder: "
    "python -c \"import torchvision; torchvision.datasets.FashionMNIST('data', download=True)\", "
    "then --set data.root=data"
)


def check_digits() -> Check:
    """The scans inside scikit-learn, which the demo uses."""
    try:
        digits_file()
    except MissingDataError:
        return Check("data digits", "missing", "not found inside scikit-learn", INSTALL)
    return Check("data digits", "ok", "embedded in scikit-learn")


def check_fashion_mnist(folder: Path = DEBIAN_FASHION_MNIST) -> Check:
    """The four files of Fashion-MNIST, gzipped or not, where Debian's package puts them."""
    absent = [
        n for n in FASHION_MNIST_FILES if not any((folder / f).is_file() for f in (n, f"{n}.gz"))
    ]
    if not absent:
        return Check("data fashion_mnist", "ok", f"in {folder}")
    if len(absent) == len(FASHION_MNIST_FILES):
        detail = f"not in {folder} (optional)"
    else:
        detail = f"incomplete: no {', '.join(absent)} in {folder} (optional)"
    return Check("data fashion_mnist", "warn", detail, _GET_FASHION_MNIST)
