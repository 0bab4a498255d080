"""What joins the workers of a Ray Train job into a torch process group.

``ray.train.torch`` imports torch when it is imported itself, hence in every job's controller, which
needs none of it. This backend does for CPUs (gloo) and GPUs (NCCL) what Ray's own does, and leaves
torch to the workers.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from orchestration.jobs import progress


@dataclass
class TorchBackendConfig(BackendConfig):
    """Configuration of the process group.

    Attributes:
        events: the file that tells the driver how many workers there are, on the driver's node.
        timeout_s: seconds after which a collective that not every worker joins is an error.
    """

    events: str
    timeout_s: float = 1800.0

    @property
    def backend_cls(self) -> type[TorchBackend]:
        """Ray asks here for the class that does the work."""
        return TorchBackend


class TorchBackend(Backend):
    """Joins the workers into one group before the work and takes it down after it."""

    # Workers on one node see each other's GPUs, so that NCCL can copy between them directly.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called in the controller when the workers are there."""
        assert isinstance(backend_config, TorchBackendConfig)
        progress.append(backend_config.events, progress.Workers(len(worker_group)))
        if len(worker_group) == 1:
            return  # one has nobody to join
        uses_gpu = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        address, port = worker_group.execute_single(0, _free_address)
        arguments = {
            "backend": "nccl" if uses_gpu else "gloo",
            "address": address,
            "port": port,
            "timeout_s": backend_config.timeout_s,
        }
        ray.get(worker_group.execute_async(_join, **arguments))

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called in the controller when the work is over; a dead worker does not hold it up."""
        if len(worker_group) == 1:
            return
        futures = worker_group.execute_async(_leave)
        ray.wait(futures, num_returns=len(futures), timeout=5.0)


def _free_address() -> tuple[str, int]:
    """An address of this node that the other workers reach, and a port that is free on it."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


def _join(*, backend: str, address: str, port: int, timeout_s: float) -> None:
    import ray.train
    import torch

    context = ray.train.get_context()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
    )
    if address == "127.0.0.1" and Path("/sys/class/net/lo").exists():
        # Otherwise gloo announces the address of the host's name, which loopback workers that
        # stand behind a firewall cannot reach.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if backend == "nccl":
        # A collective that hangs ends as an error, which the job then retries.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    torch.distributed.init_process_group(
        backend=backend, init_method="env://", timeout=timedelta(seconds=timeout_s)
    )


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
