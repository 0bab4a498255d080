"""digits, Fashion-MNIST and CIFAR-10: formats, normalisation, augmentation, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.data import MissingDataError, load_data
from nas.data.digits import read_digits
from nas.data.fashion_mnist import DEBIAN_FASHION_MNIST
from nas.data.image_set import ImageSet
from nas.data.memory import MemoryImageSet, crop_and_flip
from tests.nas.data_files import truncate, write_cifar10, write_fashion_mnist


def all_images(images: ImageSet) -> torch.Tensor:
    return torch.cat([batch for batch, _ in images.batches(1000, training=False)])


def test_digits_splits_are_stratified_and_their_test_set_never_changes() -> None:
    first, second = load_data("digits"), load_data("digits", split_seed=1, search_val_fraction=0.5)
    assert (len(first.train), len(first.search_val), len(first.test)) == (1294, 144, 359)
    # A fifth of 178, 182, 177, 183, 181, 182, 181, 179, 174, 180, largest remainders rounded up.
    assert np.bincount(first.test.labels_N).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert torch.equal(all_images(first.test) > 0, all_images(second.test) > 0)
    assert first.test.labels_N.tolist() == second.test.labels_N.tolist()
    assert first.search_val.labels_N.tolist() != second.search_val.labels_N.tolist()
    assert first.train.num_skipped == 0


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, expected = read_digits(), load_digits()
    pixels_NCHW = np.concatenate([data.train_NCHW, data.test_NCHW])
    labels_N = np.concatenate([data.train_labels_N, data.test_labels_N])
    rows = {
        (*pixels.ravel().tolist(), label)
        for pixels, label in zip(pixels_NCHW, labels_N, strict=True)
    }
    assert len(pixels_NCHW) == len(expected.images)
    assert rows == {
        (*(image / 16).ravel().tolist(), label)
        for image, label in zip(expected.images, expected.target, strict=True)
    }
    assert data.class_names == tuple(map(str, expected.target_names))


def test_digits_are_normalised_by_their_training_split() -> None:
    splits = load_data("digits")
    train = all_images(splits.train).double()
    assert abs(float(train.mean())) < 1e-6
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-6)
    # Blank paper is 0 in every split, and the darkest ink 16/16.
    ends = [(float(s.min()), float(s.max())) for s in map(all_images, (splits.train, splits.test))]
    assert ends[0] == ends[1]


def test_crop_and_flip_by_hand() -> None:
    images = np.array([[[[1, 2], [3, 4]]]] * 4, dtype=np.uint8)
    offsets_B2 = np.array([[1, 1], [0, 1], [1, 2], [2, 2]])
    flips_B = np.array([False, False, False, True])
    result = crop_and_flip(images, offsets_B2, flips_B, 1)[:, 0].tolist()
    assert result == [
        [[1, 2], [3, 4]],
        [[0, 0], [1, 2]],  # the window one up: the image moves down
        [[2, 0], [4, 0]],  # the window one to the right: the image moves left
        [[0, 4], [0, 0]],  # down and to the right, then mirrored
    ]


def test_augmentation_uses_every_shift_and_mirrors_half() -> None:
    pixels = np.zeros((400, 1, 8, 8), dtype=np.float32)
    pixels[:, 0, 4, 3] = 1.0
    images = MemoryImageSet(
        pixels, np.zeros(400, dtype=np.int64), mean=[0.0], std=[1.0], max_shift_px=1, flip=True
    )
    batch, _ = next(images.batches(400, training=True))
    places = batch.flatten(1).argmax(1)
    assert set((places // 8).tolist()) == {3, 4, 5}
    # Column 3 shifted is 2, 3 or 4, and mirrored 5, 4 or 3.
    counts = torch.bincount(places % 8, minlength=8).tolist()
    assert sum(counts[2:6]) == 400
    assert 160 < counts[2] + counts[3] < 240
    assert min(counts[2], counts[5]) > 40


@pytest.mark.parametrize(
    ("folder", "gzipped"), [("FashionMNIST/raw", False), (".", True), ("fashion-mnist", True)]
)
def test_fashion_mnist_is_what_torchvision_reads(
    tmp_path: Path, folder: str, gzipped: bool
) -> None:
    from torchvision.datasets import FashionMNIST

    write_fashion_mnist(tmp_path / "ours" / folder, gzipped=gzipped)
    write_fashion_mnist(tmp_path / "theirs/FashionMNIST/raw", gzipped=False)
    splits = load_data("fashion_mnist", root=str(tmp_path / "ours"))
    train, test = (FashionMNIST(tmp_path / "theirs", train=part) for part in (True, False))
    assert splits.class_names == tuple(test.classes)
    assert splits.test.labels_N.tolist() == test.targets.tolist()
    expected = (test.data[:, None].float() / 255 - 0.2860) / 0.3530
    torch.testing.assert_close(all_images(splits.test), expected)
    assert (len(splits.train), len(splits.search_val)) == (50, 10)
    labels = [*splits.train.labels_N, *splits.search_val.labels_N]
    assert sorted(labels) == sorted(train.targets.tolist())


def test_small_images_are_resized_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST
    from torchvision.transforms.v2.functional import resize

    write_fashion_mnist(tmp_path / "FashionMNIST/raw", gzipped=False)
    splits = load_data("fashion_mnist", root=str(tmp_path), resolution=14)
    assert splits.resolution == 14
    pixels = FashionMNIST(tmp_path, train=False).data[:, None].float()
    expected = (resize(pixels, [14, 14], antialias=True) / 255 - 0.2860) / 0.3530
    # uint8 images are rounded to grey levels.
    one_grey_level = 1 / 255 / 0.3530
    torch.testing.assert_close(
        all_images(splits.test), expected, rtol=0, atol=1.01 * one_grey_level
    )


@pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_packaged_fashion_mnist() -> None:
    splits = load_data("fashion_mnist")
    assert np.bincount(splits.train.labels_N).tolist() == [5400] * 10
    assert np.bincount(splits.search_val.labels_N).tolist() == [600] * 10
    assert np.bincount(splits.test.labels_N).tolist() == [1000] * 10
    train = all_images(splits.train)
    assert abs(float(train.mean())) < 2e-3
    assert float(train.std()) == pytest.approx(1, abs=2e-3)


def test_damaged_fashion_mnist_files_are_named(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_data("fashion_mnist", root=str(tmp_path))

    write_fashion_mnist(tmp_path / "fashion-mnist", gzipped=True)
    truncate(tmp_path / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")
    refused("t10k-images-idx3-ubyte.gz is not a complete gzip")
    write_fashion_mnist(tmp_path / "FashionMNIST/raw", gzipped=False)  # which is looked at first
    images, labels = (
        tmp_path / "FashionMNIST/raw" / f"train-{name}-ubyte"
        for name in ("images-idx3", "labels-idx1")
    )
    complete = images.read_bytes()
    truncate(images)
    refused("train-images-idx3-ubyte holds .* announces 47056")
    images.write_bytes(b"<html>")
    refused("does not begin like an idx file")
    images.write_bytes(complete)
    labels.write_bytes(labels.with_name("t10k-labels-idx1-ubyte").read_bytes())
    refused("train-.* hold 60 images and 20 labels")


def test_cifar10_is_read_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar10(tmp_path, monkeypatch)
    splits = load_data("cifar10", root=str(tmp_path), search_val_fraction=0.2)
    assert (len(splits.train), len(splits.search_val), len(splits.test)) == (80, 20, 20)
    assert (splits.in_channels, splits.resolution, splits.num_classes) == (3, 32, 10)
    assert splits.class_names[0] == "plane"
    official = CIFAR10(tmp_path, train=False)
    mean = torch.tensor([0.4914, 0.4822, 0.4465])
    std = torch.tensor([0.2470, 0.2435, 0.2616])
    expected = ((torch.from_numpy(official.data).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(all_images(splits.test), expected)
    assert splits.test.labels_N.tolist() == official.targets


def test_cifar10_files_with_other_checksums_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch, accept=False)
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged"):
        load_data("cifar10", root=str(tmp_path))
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(MissingDataError, match="looked for data_batch_3 in .*download=True"):
        load_data("cifar10", root=str(tmp_path))


def test_missing_files_say_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError) as missing:
        load_data("fashion_mnist", root=str(tmp_path))
    for part in (
        "t10k-labels-idx1-ubyte",
        str(tmp_path / "FashionMNIST" / "raw"),
        "apt-get install dataset-fashion-mnist",
        "download=True",
    ):
        assert part in str(missing.value)
    with pytest.raises(MissingDataError, match="cifar10 needs a root"):
        load_data("cifar10")
    with pytest.raises(MissingDataError, match="imagefolder needs a root.*ROOT/train/<class>"):
        load_data("imagefolder")


def test_arguments_out_of_range_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"search_val_fraction": 0.0}, "search_val_fraction is 0.0"),
        ({"resolution": 3}, "resolution is 3 pixels; it must be at least 4"),
        ({"max_train_images": 0}, "max_train_images is 0"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            load_data("digits", **arguments)
    with pytest.raises(ValueError, match="'mnist'; known are cifar10, digits, fashion_mnist, imag"):
        load_data("mnist")
