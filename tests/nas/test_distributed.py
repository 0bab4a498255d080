"""N ranks on shards do what one rank does on the whole batch, and only the active path travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from nas.network import Supernet
from nas.sync_batch_norm import synchronise_batch_norm
from tests.nas import ranks
from tests.nas.examples import TINY, digit_batches

Results = dict[str, Any]


@pytest.fixture(scope="module")
def alone() -> Results:
    return ranks.run(digit_batches(ranks.NUM_STEPS), rank=0, num_ranks=1)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(digit_batches(ranks.NUM_STEPS), folder / "batches.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        spawn(ranks.run_rank, (str(folder),), nprocs=ranks.NUM_RANKS)
    files = [folder / f"rank{rank}.pt" for rank in range(ranks.NUM_RANKS)]
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.parametrize("trainable", ["all", "bn"])
def test_ranks_with_uneven_shares_equal_one_rank_with_the_whole_batch(
    alone: Results, together: list[Results], trainable: str
) -> None:
    initial = Supernet(TINY, seed=0).double().state_dict()
    expected = alone[f"weights, {trainable}"]
    num_moved = sum(not torch.equal(initial[name], value) for name, value in expected.items())
    assert num_moved > 10
    used = {(str(i), str(c)) for path in ranks.sampled_paths() for i, c in enumerate(path)}
    unused = [
        name
        for name in initial
        if name.startswith("layers.") and tuple(name.split(".")[1:3]) not in used
    ]
    assert unused
    for result in together:  # a candidate that no path used is bit-identical
        for name in unused:
            assert torch.equal(result[f"weights, {trainable}"][name], initial[name]), name
    for name, value in expected.items():
        first, *others = (result[f"weights, {trainable}"][name] for result in together)
        assert all(torch.equal(first, other) for other in others), name
        torch.testing.assert_close(first, value, rtol=1e-10, atol=1e-12)
    for result in together:
        assert result[f"stats, {trainable}"] == pytest.approx(
            alone[f"stats, {trainable}"], rel=1e-6
        )


def test_exactly_the_gradients_of_the_path_travel(alone: Results, together: list[Results]) -> None:
    supernet = Supernet(TINY, seed=0)
    on_path = [
        supernet.stem,
        supernet.first_block,
        *supernet.path(ranks.PATH),
        supernet.head,
        supernet.classifier,
    ]
    norms = [m for part in on_path for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    expected = {
        "all": sum(p.numel() for part in on_path for p in part.parameters()),
        "bn": sum(p.numel() for norm in norms for p in norm.parameters()),
    }
    assert expected["bn"] < expected["all"] < sum(p.numel() for p in supernet.parameters())
    for trainable, count in expected.items():
        assert alone[f"numbers moved, {trainable}"] == 0
        assert [result[f"numbers moved, {trainable}"] for result in together] == [count] * 3


def test_recalibration_is_that_of_the_whole_batches(
    alone: Results, together: list[Results]
) -> None:
    for name, value in alone["recalibrated"].items():
        for result in together:
            torch.testing.assert_close(result["recalibrated"][name], value, rtol=1e-10, atol=1e-12)


def test_evaluation_counts_every_image_once(alone: Results, together: list[Results]) -> None:
    assert alone["evaluation"][2] == 16 * ranks.NUM_STEPS + 1
    for result in together:
        assert result["evaluation"] == pytest.approx(alone["evaluation"], rel=1e-6)


def test_in_bfloat16_images_are_counted_and_averaged_in_float32(tmp_path: Path) -> None:
    images_BCHW = torch.randn(300, 3, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    synchronised, plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    where = f"file://{tmp_path}/group"
    dist.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        synchronise_batch_norm(synchronised, "cpu")
        with torch.autocast("cpu", torch.bfloat16):
            normalised_BCHW = synchronised(images_BCHW)
    finally:
        dist.destroy_process_group()
    assert normalised_BCHW.dtype == torch.bfloat16
    expected_BCHW = plain(images_BCHW.float())
    torch.testing.assert_close(normalised_BCHW.float(), expected_BCHW, rtol=1e-2, atol=1e-2)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synchronised.state_dict()[name], value, rtol=1e-5, atol=1e-6)
