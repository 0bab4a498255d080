"""What the connected cluster has room for, asked before anything is started on it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.cluster.connect import ClusterError
from orchestration.cluster.scaling import Scaling
from orchestration.store.storage import Storage


def require(scaling: Scaling) -> None:
    """Make sure at once that the connected cluster can hold a job's least number of workers.

    A cluster that grows by itself counts with what it may grow to.

    Raises:
        ClusterError: it never can; waiting would be for ever.
    """
    nodes = [node["Resources"] for node in _nodes()]
    fitting = num_workers_that_fit(nodes, scaling.resources_per_worker)
    wanted = scaling.min_workers
    if fitting < wanted and not _may_grow_to(scaling):
        size = _format(scaling.resources_per_worker)
        have = "; ".join(_format(node) for node in nodes) or "no node"
        raise ClusterError(
            f"{wanted} workers of {size} each were asked for, and the cluster holds {fitting} "
            f"({len(nodes)} nodes: {have}): lower cluster.num_workers, set cluster.use_gpu to "
            "false, or add nodes."
        )


def num_jobs_at_once(scaling: Scaling) -> int:
    """How many jobs the connected cluster has room for, at their least number of workers."""
    nodes = [node["Resources"] for node in _nodes()]
    fitting = num_workers_that_fit(nodes, scaling.resources_per_worker)
    return max(1, fitting // scaling.min_workers)


def driver_room(driver_bytes: int) -> int:
    """How many drivers the memory of this process's node holds."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (memory,) = [
        node["Resources"].get("memory", 0.0) for node in _nodes() if node["NodeID"] == here
    ]
    return int(memory // driver_bytes)


def check_storage_is_shared(path: str) -> None:
    """Make sure that every node of the connected cluster sees the same storage.

    Args:
        path: a folder from the root, or a URI.

    Raises:
        ClusterError: a node does not; its workers' results would be lost.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _nodes()
    if len(nodes) < 2:
        return
    storage, probe = Storage(path), f".probe-{uuid.uuid4().hex}"
    storage.write(probe, b"probe")
    try:
        looks = {
            node["NodeManagerAddress"]: ray.remote(_sees)
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(path, probe)
            for node in nodes
        }
        blind = [address for address, look in looks.items() if not ray.get(look)]
    finally:
        storage.delete(probe)
    if blind:
        raise ClusterError(
            f"storage.path {path!r} is not shared: what is written to it here is not seen on "
            f"{', '.join(blind)}; give a folder that all nodes mount, or a URI such as "
            "s3://bucket/folder."
        )


def _sees(path: str, probe: str) -> bool:
    """Runs on a node: whether the probe is there."""
    return Storage(path).read(probe) is not None


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _may_grow_to(scaling: Scaling) -> bool:
    """Whether the cluster's autoscaler, if it has one, may bring enough for the job."""
    import ray

    limits = ray._private.state.state.get_max_resources_from_cluster_config()
    if not limits:
        return False
    return all(
        limits.get(name, 0.0) >= amount * scaling.min_workers
        for name, amount in scaling.resources_per_worker.items()
    )


def num_workers_that_fit(
    nodes: Sequence[Mapping[str, float]], per_worker: Mapping[str, float]
) -> int:
    """How many workers find room, each of them on one node.

    Args:
        nodes: the resources of every node.
        per_worker: the resources of one worker.
    """
    needs = {name: amount for name, amount in per_worker.items() if amount > 0}
    return sum(
        min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items())
        for node in nodes
    )


def _format(resources: Mapping[str, float]) -> str:
    known = {name: resources[name] for name in ("CPU", "GPU") if resources.get(name)}
    return " + ".join(f"{amount:g} {name}" for name, amount in known.items()) or "nothing"
