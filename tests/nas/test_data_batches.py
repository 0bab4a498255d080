"""Laws that hold for every data set: what ranks, epochs and resumption make of its batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.data import DataSplits, ImageSet, load_data
from tests.nas.data_files import write_fashion_mnist, write_image_tree


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    write_fashion_mnist(root / "fashion", gzipped=True)
    write_image_tree(root / "tree", {"ant": 14, "bee": 14}, {"ant": 4, "bee": 3})
    return {"fashion_mnist": str(root / "fashion"), "imagefolder": str(root / "tree")}


@pytest.fixture(params=["digits", "fashion_mnist", "imagefolder"])
def splits(request: pytest.FixtureRequest, roots: dict[str, str]) -> DataSplits:
    return load(request.param, roots)


def load(name: str, roots: dict[str, str]) -> DataSplits:
    resolution = 24 if name == "imagefolder" else None
    return load_data(name, root=roots.get(name), resolution=resolution)


def equal(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    """Bit for bit."""
    return len(left) == len(right) and all(
        torch.equal(a, b) and torch.equal(i, j) for (a, i), (b, j) in zip(left, right, strict=True)
    )


def join_ranks(
    images: ImageSet, batch_size: int, world_size: int, *, training: bool
) -> list[tuple[Tensor, Tensor]]:
    ranks = [
        list(
            images.batches(
                batch_size, training=training, seed=5, epoch=2, rank=rank, world_size=world_size
            )
        )
        for rank in range(world_size)
    ]
    return [
        (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))
        for parts in zip(*ranks, strict=True)
    ]


def test_ranks_together_get_the_batches_of_one(splits: DataSplits) -> None:
    whole = list(splits.train.batches(8, training=True, seed=5, epoch=2))
    assert len(whole) == splits.train.num_batches(8, training=True) == len(splits.train) // 8
    assert {len(labels_B) for _, labels_B in whole} == {8}
    assert equal(join_ranks(splits.train, 8, 4, training=True), whole)


def test_evaluation_loses_and_repeats_nothing(splits: DataSplits) -> None:
    # A last batch smaller than the number of ranks: some ranks get an empty slice of it.
    batch_size = len(splits.test) - 2
    whole = list(splits.test.batches(batch_size, training=False))
    assert [len(labels_B) for _, labels_B in whole] == [batch_size, 2]
    assert splits.test.num_batches(batch_size, training=False) == 2
    assert torch.cat([labels_B for _, labels_B in whole]).tolist() == splits.test.labels_N.tolist()
    assert equal(join_ranks(splits.test, batch_size, 5, training=False), whole)


@pytest.mark.parametrize("training", [True, False])
def test_start_leaves_out_batches_and_changes_none(splits: DataSplits, training: bool) -> None:
    whole = list(splits.train.batches(8, training=training, seed=1, epoch=3))
    rest = list(splits.train.batches(8, training=training, seed=1, epoch=3, start=2))
    assert len(rest) == len(whole) - 2 > 0
    assert equal(rest, whole[2:])
    assert list(splits.train.batches(8, training=training, start=len(whole))) == []


def test_seed_and_epoch_decide_order_and_augmentation(splits: DataSplits) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 - to see that it stays
    first, again, next_epoch, other = (
        list(splits.train.batches(8, training=True, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert equal(first, again)
    assert not equal(first, next_epoch)
    assert not equal(first, other)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state(legacy=False)) == str(numpy_state)  # noqa: NPY002


def test_an_epoch_shows_every_image_at_most_once_with_its_own_label(
    roots: dict[str, str],
) -> None:
    for name in ("digits", "imagefolder"):
        splits = load_data(name, root=roots.get(name), resolution=24, augment=False)
        by_content = {
            image.numpy().tobytes(): int(label)
            for images, labels in splits.train.batches(100, training=False)
            for image, label in zip(images, labels, strict=True)
        }
        shown = [
            (image.numpy().tobytes(), int(label))
            for images, labels in splits.train.batches(8, training=True)
            for image, label in zip(images, labels, strict=True)
        ]
        assert len(by_content) == len(splits.train)
        assert len({content for content, _ in shown}) == len(shown)
        assert all(by_content[content] == label for content, label in shown)


def test_splits_share_no_image(splits: DataSplits) -> None:
    parts = (splits.train, splits.search_val, splits.test)
    contents = [
        image.numpy().tobytes()
        for part in parts
        for images_BCHW, _ in part.batches(50, training=False)
        for image in images_BCHW
    ]
    assert len(set(contents)) == len(contents) == sum(map(len, parts))


def test_bad_arguments_are_refused_at_the_call(splits: DataSplits) -> None:
    train = splits.train
    too_many = len(train) + 1
    for attempt in (train.num_batches, train.batches):
        with pytest.raises(ValueError, match=f"batch_size is {too_many}, .* only {len(train)}"):
            attempt(too_many, training=True)
    for arguments, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"world_size": 9}, "batch_size is 8, .* each of 9 ranks"),
        ({"rank": 2, "world_size": 2}, "rank is 2 and world_size 2"),
        ({"start": 99999}, "start is 99999"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            train.batches(**{"batch_size": 8, **arguments}, training=True)
