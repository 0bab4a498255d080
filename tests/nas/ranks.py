"""What the ranks of `test_distributed` run; spawned processes import it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from nas.network import Supernet, extract_subnet
from nas.sampling import uniform_paths
from nas.schedule import WarmupCosine
from nas.space import Architecture
from nas.sync_batch_norm import synchronise_batch_norm
from nas.trainable import freeze_except
from nas.training import (
    build_optimizer,
    evaluate,
    recalibrate,
    sum_gradients,
    train_epoch,
)
from tests.nas.examples import TINY

if TYPE_CHECKING:
    from tests.nas.examples import Batch

SHARES = (9, 4, 3)  # images of each rank in a batch of 16
NUM_RANKS = len(SHARES)
NUM_STEPS = 3
SCHEDULE = WarmupCosine(start=0.05, peak=0.1, warmup_steps=1, num_steps=NUM_STEPS)
SAMPLING_SEED = 3
PATH: Architecture = (0, -1, 1, 2, 0)


def sampled_paths() -> list[Architecture]:
    return [uniform_paths(TINY, SAMPLING_SEED, step)[0] for step in range(NUM_STEPS)]


def shard(batch: Batch, rank: int, num_ranks: int) -> Batch:
    """The rank's slice of a batch, in double precision."""
    images_BCHW, labels_B = batch
    if num_ranks == 1:
        return images_BCHW.double(), labels_B
    first = sum(SHARES[:rank])
    part = slice(first, first + SHARES[rank])
    return images_BCHW[part].double(), labels_B[part]


def run(whole_batches: Sequence[Batch], rank: int, num_ranks: int) -> dict[str, Any]:
    """Everything that the tests compare between one rank and many, on `NUM_STEPS` batches."""
    batches = [shard(batch, rank, num_ranks) for batch in whole_batches]
    results: dict[str, Any] = {}
    for trainable in ("all", "bn"):
        supernet = Supernet(TINY, seed=0).double()
        if num_ranks > 1:
            synchronise_batch_norm(supernet, "cpu")
        freeze_except(supernet, trainable)
        stats = train_epoch(
            supernet,
            batches,
            build_optimizer(supernet, weight_decay=0.1),
            SCHEDULE,
            first_step=0,
            global_batch=sum(SHARES) if num_ranks > 1 else None,
            passes=lambda step: [(arch,) for arch in uniform_paths(TINY, SAMPLING_SEED, step)],
        )
        results[f"weights, {trainable}"] = {k: v.clone() for k, v in supernet.state_dict().items()}
        results[f"stats, {trainable}"] = (stats.loss, stats.top1, stats.num_steps)

        supernet.zero_grad(set_to_none=True)
        supernet(batches[0][0], PATH).sum().backward()
        results[f"numbers moved, {trainable}"] = sum_gradients(supernet.parameters())

    # Statistics that are plain averages over batches, as recalibration wants them.
    subnet = extract_subnet(Supernet(TINY, seed=0), PATH).double()
    if num_ranks > 1:
        synchronise_batch_norm(subnet, "cpu")
    recalibrate(subnet, batches)
    results["recalibrated"] = subnet.state_dict()

    # The last batch has one image: the others get none of it.
    images_BCHW, labels_B = whole_batches[0]
    last = (images_BCHW[:1].double(), labels_B[:1])
    batches.append(last if rank == 0 else (last[0][:0], last[1][:0]))
    supernet = Supernet(TINY, seed=0).double()
    with torch.no_grad():
        supernet.classifier.weight.mul_(100)
    result = evaluate(supernet, batches, (PATH,))
    results["evaluation"] = (result.top1, result.loss, result.num_images)
    return results


def run_rank(rank: int, folder: str) -> None:
    """One rank of the group; finds batches.pt in the folder and leaves its results there."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS
    )
    try:
        batches = torch.load(Path(folder) / "batches.pt", weights_only=True)
        torch.save(run(batches, rank, NUM_RANKS), Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
