"""What the connected cluster has room for, asked before anything is started on it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.cluster.connect import ClusterError
from orchestration.cluster.scaling import Scaling
from orchestration.store.storage import Storage

_GIB = 1024**3


def require(scaling: Scaling) -> None:
    """Make sure at once that the connected cluster can hold a job's least number of workers.

    A cluster that grows by itself counts with what it may grow to, `scaling.cluster_workers`.

    Raises:
        ClusterError: it never can; waiting would be for ever.
    """
    nodes = _nodes()
    fitting = _room(nodes, scaling)
    if fitting < scaling.min_workers:
        have = "; ".join(_format(node["Resources"]) for node in nodes) or "no node"
        raise ClusterError(
            f"{scaling.min_workers} workers of {_format(_needs(scaling))} each were asked for, and "
            f"the cluster holds {fitting} ({len(nodes)} nodes: {have}): lower cluster.num_workers, "
            "set cluster.use_gpu to false, add nodes, or say in cluster.cluster_workers how far "
            "the cluster grows by itself."
        )


def num_jobs_at_once(scaling: Scaling) -> int:
    """How many jobs the connected cluster has room for, at their least number of workers."""
    return max(1, _room(_nodes(), scaling) // scaling.min_workers)


def driver_room(driver_bytes: int, scaling: Scaling) -> int:
    """How many drivers the memory of this process's node holds, beside one job's worker.

    Raises:
        ClusterError: not even one, which would wait for ever.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    (memory,) = [
        node["Resources"].get("memory", 0.0) for node in _nodes() if node["NodeID"] == here
    ]
    beside = scaling.resources_per_worker.get("memory", 0.0)
    if memory < driver_bytes:
        raise ClusterError(
            f"This node gives Ray {memory / _GIB:.1f} GiB of memory, and what drives a cell takes "
            f"{driver_bytes / _GIB:.1f}: run it where more is free, or raise Ray's --memory."
        )
    return max(1, int((memory - beside) // driver_bytes))


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


def _room(nodes: Sequence[Mapping[str, Any]], scaling: Scaling) -> int:
    """How many workers these nodes hold, or those that may come."""
    suitable = [node["Resources"] for node in nodes if has_labels(node["Labels"], scaling.labels)]
    return max(num_workers_that_fit(suitable, _needs(scaling)), scaling.cluster_workers or 0)


def _needs(scaling: Scaling) -> dict[str, float]:
    """A worker's resources with what Ray adds to them for a kind of accelerator."""
    kind = scaling.accelerator_type
    return scaling.resources_per_worker | ({f"accelerator_type:{kind}": 0.001} if kind else {})


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node of these labels is what a Ray label selector asks for.

    Args:
        labels: of the node.
        selector: label → ``value``, ``!value``, ``in(a, b)`` or ``!in(a, b)``.
    """

    def is_met(name: str, condition: str) -> bool:
        positive = condition.removeprefix("!")
        listed = re.fullmatch(r"in\((.*)\)", positive)
        values = [value.strip() for value in listed[1].split(",")] if listed else [positive]
        return (labels.get(name) in values) is (positive == condition)

    return all(is_met(name, condition) for name, condition in selector.items())


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
    known = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    if memory := resources.get("memory"):
        known.append(f"{memory / 1024**3:.1f} GiB")
    known += [name.split(":")[1] for name in resources if name.startswith("accelerator_type:")]
    return " + ".join(known) or "nothing"
