"""How long an experiment would take on a cluster, and what it would move: its plan, played through.

Chains take places in the order of their names in the plan, one job at a time each; a stage that two
need is made once, and the second waits for it, as drivers do. Every job costs its start besides.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.config.experiment import CellConfig
from experiments.config.places import scaling
from experiments.plan.cell_plan import describe_images, num_training_images
from experiments.plan.chain import Chain
from experiments.plan.forecast import Forecast
from experiments.plan.graph import DETECTION, ExperimentPlan
from nas.cost import params_table
from nas.space import SearchSpace, parse_architecture
from orchestration.jobs.trials import max_concurrent
from orchestration.store.stage import Stage

# Seconds that a job takes beyond its work: the mean of three one-worker jobs that did nothing, one
# after the other on two idle cores (docs/decisions/ray-train.md).
JOB_START_S = 5.7
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class ClusterSize:
    """Equal nodes.

    Attributes:
        nodes: how many there are.
        cpus: cores of each.
        gpus: of each.
    """

    nodes: int = 1
    cpus: int = 1
    gpus: int = 0

    @classmethod
    def parse(cls, text: str) -> ClusterSize:
        """Of ``nodes=16,gpus=8``; what is left out is 1 node, 1 core, no GPU.

        Raises:
            ValueError: it is something else.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            name, _, number = part.partition("=")
            if name not in ("nodes", "cpus", "gpus") or not number.isdecimal():
                raise ValueError(
                    f"--cluster {text!r}: expected nodes=, cpus= and gpus= with whole numbers, "
                    "such as nodes=16,gpus=8."
                )
            sizes[name] = int(number)
        return cls(**sizes)


@dataclass(frozen=True)
class Elapsed:
    """What an experiment takes on a cluster.

    Attributes:
        wall_s: from its beginning to its end; None where a stage's cost is not known.
        jobs_at_once: how many the cluster has room for.
        rank_bytes: that ranks send to each other, at most.
        storage_bytes: that checkpoints bring to the storage, at most.
    """

    wall_s: float | None
    jobs_at_once: int
    rank_bytes: float
    storage_bytes: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def elapsed(plan: ExperimentPlan, forecast: Forecast, size: ClusterSize) -> Elapsed:
    """Play a plan through on a cluster.

    Raises:
        ValueError: the cluster has no room for a job.
    """
    scale = scaling(plan.experiment.shared)
    per_node = size.gpus if scale.use_gpu else int(size.cpus / scale.cpus_per_worker)
    jobs_at_once = size.nodes * per_node // scale.min_workers
    if jobs_at_once < 1:
        what = "GPU" if scale.use_gpu else f"{scale.cpus_per_worker:g} cores"
        raise ValueError(
            f"--cluster has no room for {scale.min_workers} workers of {what} each: give more "
            "nodes, cores or GPUs, or lower cluster.num_workers."
        )
    hours, known = _hours_by_stage(forecast), _known(forecast)
    rank_bytes = storage_bytes = 0.0
    for one in forecast.listed.stages:
        if one.record is None and one.cell is not None:
            moved = _moved(one.stage, one.cell.space, one.cell.config, scale.min_workers)
            rank_bytes, storage_bytes = rank_bytes + moved[0], storage_bytes + moved[1]
    num_drivers = max_concurrent(jobs_at_once, plan.sharing, len(plan.chains), len(plan.chains))
    wall_s = _play(plan.chains, hours, known, scale.min_workers, jobs_at_once, num_drivers)
    if wall_s is not None and plan.detects_last:
        # Its chain begins when all others have ended; what comes before it is the best cell's.
        device_hours = hours["detect", known.get(("detect", DETECTION), DETECTION)]
        if device_hours:
            wall_s += 3600.0 * device_hours / scale.min_workers + JOB_START_S
    return Elapsed(wall_s, jobs_at_once, rank_bytes, storage_bytes)


def _hours_by_stage(forecast: Forecast) -> dict[tuple[str, str], float | None]:
    """Kind and fingerprint, or where that is not known yet member → device hours."""
    hours = {}
    for one, estimate in zip(forecast.listed.stages, forecast.estimates, strict=True):
        for key in [one.fingerprint] if one.fingerprint else one.members:
            hours[one.stage.kind, key] = estimate.device_hours
    return hours


def _known(forecast: Forecast) -> dict[tuple[str, str], str]:
    """Kind and member → fingerprint, where it is known by now."""
    return {
        (one.stage.kind, member): one.fingerprint
        for one in forecast.listed.stages
        if one.fingerprint
        for member in one.members
    }


def _play(
    chains: tuple[Chain, ...],
    hours: Mapping[tuple[str, str], float | None],
    known: Mapping[tuple[str, str], str],
    num_workers: int,
    jobs_at_once: int,
    num_drivers: int,
) -> float | None:
    if None in hours.values():
        return None
    free_s = [0.0] * jobs_at_once
    done_s: dict[str, float] = {}
    waiting = list(range(num_drivers, len(chains)))
    ready = [(0.0, number, 0) for number in range(min(num_drivers, len(chains)))]
    end_s = 0.0
    while ready:
        now_s, number, place = heapq.heappop(ready)
        end_s = max(end_s, now_s)
        chain = chains[number]
        if place == chain.size:
            if waiting:
                heapq.heappush(ready, (now_s, waiting.pop(0), 0))
            continue
        stage = chain.stages[place] if place < len(chain.stages) else None
        kind = stage.kind if stage is not None else chain.follow[place - len(chain.stages)]
        key = chain.member if stage is None else stage.fingerprint
        if stage is None:
            key = known.get((kind, key), key)
        if key in done_s:
            heapq.heappush(ready, (max(now_s, done_s[key]), number, place + 1))
            continue
        device_hours = hours.get((kind, key)) or 0.0
        then_s = now_s
        if device_hours:
            then_s = max(now_s, free_s[0]) + 3600.0 * device_hours / num_workers + JOB_START_S
            heapq.heapreplace(free_s, then_s)
        if key != chain.member:
            done_s[key] = then_s
        heapq.heappush(ready, (then_s, number, place + 1))
    return end_s


def _moved(
    stage: Stage, space: SearchSpace, config: CellConfig, num_workers: int
) -> tuple[float, float]:
    """Bytes between ranks and to the storage, as if all parameters were trained."""
    if stage.kind not in ("supernet", "retrain"):
        return 0.0, 0.0
    params = params_table(space)
    recipe = stage.config[stage.kind]
    if stage.kind == "retrain":
        on_path = kept = params.of(parse_architecture(stage.config["arch"]))
    else:
        kept = params.constant + float(np.nansum(params.table_LN))
        on_path = params.maximum
    num_images = num_training_images(config.data, describe_images(config.data)) or 0
    num_steps = recipe["epochs"] * (num_images // recipe["batch_size"])
    passes = space.num_candidates if recipe.get("sampler") == "fair" else 1
    shares = 2 * (num_workers - 1)  # of a ring, summed over its ranks
    return (
        float(_FLOAT_BYTES * on_path * passes * num_steps * shares),
        float(2 * _FLOAT_BYTES * kept * recipe["epochs"]),  # weights and momentum
    )
