"""What a supernet training step costs in each trainable scope, as a ratio to `all`.

    python -m experiments.benchmarks.train_step [--space spos] [--batch 16] [--steps 12] [--json]

The scopes take turns, step by step, so that a machine whose speed drifts slows all of them; the
same steps sample the same paths. Channels last, float32, the paper's optimiser. Reports the median
of the measured steps and the median of the step-by-step ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time

import torch

from nas.network import Supernet
from nas.sampling import uniform_paths
from nas.schedule import WarmupCosine
from nas.space import load_space
from nas.trainable import TRAINABLES, freeze_except
from nas.training import build_optimizer, train_epoch

_SEED = 0


def measure(space_name: str, batch_size: int, num_steps: int) -> dict[str, object]:
    """Seconds per step by scope, after two steps of warm-up each."""
    space = load_space(space_name)
    generator = torch.Generator().manual_seed(_SEED)
    shape = (batch_size, space.in_channels, space.resolution, space.resolution)
    images_BCHW = torch.randn(shape, generator=generator)
    labels_B = torch.randint(space.num_classes, (batch_size,), generator=generator)
    schedule = WarmupCosine(start=0.01, peak=0.01, warmup_steps=0, num_steps=10_000)
    training = {}
    for scope in TRAINABLES:
        supernet = Supernet(space, seed=_SEED).to(memory_format=torch.channels_last)
        freeze_except(supernet, scope)
        training[scope] = (supernet, build_optimizer(supernet))
    times_s: dict[str, list[float]] = {scope: [] for scope in TRAINABLES}
    for step in range(num_steps + 2):
        for scope, (supernet, optimizer) in training.items():
            start_s = time.perf_counter()
            train_epoch(
                supernet,
                [(images_BCHW, labels_B)],
                optimizer,
                schedule,
                first_step=step,
                passes=lambda step: [(arch,) for arch in uniform_paths(space, _SEED, step)],
            )
            if step >= 2:
                times_s[scope].append(time.perf_counter() - start_s)
    return {
        "space": space_name,
        "batch_size": batch_size,
        "num_steps": num_steps,
        "seed": _SEED,
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "scopes": {
            scope: {
                "step_s": statistics.median(times),
                "ratio_to_all": statistics.median(
                    own / full for own, full in zip(times, times_s["all"], strict=True)
                ),
                "min_ratio": min(o / f for o, f in zip(times, times_s["all"], strict=True)),
                "max_ratio": max(o / f for o, f in zip(times, times_s["all"], strict=True)),
            }
            for scope, times in times_s.items()
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default="spos")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.space, arguments.batch, arguments.steps)
    if arguments.json:
        print(json.dumps(result))
        return
    scopes = result.pop("scopes")
    assert isinstance(scopes, dict)
    print(", ".join(f"{key} {value}" for key, value in result.items()))
    for scope, numbers in scopes.items():
        print(
            f"{scope:8} {numbers['step_s']:.3f} s a step, {numbers['ratio_to_all']:.2f} of all "
            f"({numbers['min_ratio']:.2f} to {numbers['max_ratio']:.2f})"
        )


if __name__ == "__main__":
    main()
