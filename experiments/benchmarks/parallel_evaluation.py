"""How much faster two actors score a generation by accuracy than one, as a ratio.

    python -m experiments.benchmarks.parallel_evaluation [--data digits] [--candidates 50]
                                                         [--repeats 5] [--json]

The first generation of the evolutionary search in the `micro` space, by an untrained supernet: what
a candidate costs does not depend on the weights. Both pools of actors are loaded and have scored
before the clock starts, and take turns, so that a machine whose speed drifts slows both. Reports
the median time of each and the median of the turn-by-turn ratios, and makes sure that the scores
are the same. It means what it says only where two cores have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from experiments.config.experiment import CellConfig
from experiments.plan.cell_plan import plan_cell
from experiments.plan.decides import SearchContent
from experiments.stages.indicator import make_scorer
from experiments.stages.search import Generations
from experiments.stages.worker_place import WEIGHTS, WorkerPlace
from nas.data import describe_data
from nas.space import SearchSpace
from orchestration.cluster.connect import cluster
from orchestration.cluster.scaling import Scaling
from orchestration.jobs.scorer_pool import ScorerPool
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

_SEED = 0


def measure(data_name: str, num_candidates: int, num_repeats: int) -> dict[str, object]:
    """Seconds to score one generation, on one actor and on two."""
    config = CellConfig.model_validate(
        {
            "name": "parallel_evaluation",
            "space": "micro",
            "seed": _SEED,
            "data": {"name": data_name},
            "supernet": {"epochs": 1, "warmup_epochs": 0, "batch_size": 64},
            "search": {
                "indicator": "accuracy",
                "evolution": {
                    "population": num_candidates,
                    "num_mutations": num_candidates // 2,
                    "num_crossovers": num_candidates // 2,
                },
            },
        }
    )
    plan = plan_cell(config, describe_data(data_name, root=None, resolution=None))
    archs = Generations(SearchContent.model_validate(plan.search.config)).suggest()
    times_s: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, cluster(num_cpus=3):
        assert plan.supernet is not None
        _store_untrained(plan.supernet, plan.space, StageStore(folder))
        payload = {
            "stage": dict(plan.search.config),
            "place": asdict(WorkerPlace(folder, supernet=plan.supernet.fingerprint)),
        }
        with (
            ScorerPool(make_scorer, payload, Scaling(1)) as one,
            ScorerPool(make_scorer, payload, Scaling(2)) as two,
        ):
            # All of them twice: an actor that loads slowly has its turn to warm up, too.
            expected = one.score(archs + archs)[: len(archs)]
            two.score(archs + archs)
            for _ in range(num_repeats):
                for num_actors, pool in ((1, one), (2, two)):
                    start_s = time.perf_counter()
                    scores = pool.score(archs)
                    times_s[num_actors].append(time.perf_counter() - start_s)
                    assert scores == expected, "the scores depend on who computed them"
    ratios = [alone / both for alone, both in zip(times_s[1], times_s[2], strict=True)]
    return {
        "space": "micro",
        "data": data_name,
        "num_candidates": len(archs),
        "num_repeats": num_repeats,
        "seed": _SEED,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "load_average": os.getloadavg()[0],
        "one_s": statistics.median(times_s[1]),
        "two_s": statistics.median(times_s[2]),
        "ratio": statistics.median(ratios),
        "min_ratio": min(ratios),
        "max_ratio": max(ratios),
    }


def _store_untrained(stage: Stage, space: SearchSpace, store: StageStore) -> None:
    """What the search reads of a supernet stage."""
    import torch

    from nas.network import Supernet

    record = StageRecord(
        kind=stage.kind,
        fingerprint=stage.fingerprint,
        config=stage.config,
        inputs=stage.inputs,
        result={},
        history=[],
        metrics={},
        device_hours=0.0,
        wall_s=0.0,
        started_at=0.0,
        finished_at=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.save(Supernet(space, seed=_SEED).state_dict(), Path(folder) / WEIGHTS)
        store.put(record, Path(folder))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.data, arguments.candidates, arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
        return
    numbers = {name: result.pop(name) for name in ("one_s", "two_s", "ratio")}
    low, high = result.pop("min_ratio"), result.pop("max_ratio")
    print(", ".join(f"{key} {value}" for key, value in result.items()))
    print(
        f"one actor {numbers['one_s']:.2f} s, two {numbers['two_s']:.2f} s: "
        f"{numbers['ratio']:.2f} times as fast ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
