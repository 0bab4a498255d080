"""Ray Train's ``TorchTrainer`` without what a small job pays for and does not use.

``ray.train.torch`` imports torch when it is imported itself, hence in every driver and in every
job's controller, which need none of it. This trainer does for CPUs (gloo) and GPUs (NCCL) what
``TorchTrainer`` does, leaves torch to the workers, and does without two of Ray's helper actors.
The process that leads a job, which Ray starts anew for each, leads the driver's next job, too.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.result import Result

# Each of them starts an actor for every job. The jobs here read their data themselves, and their
# driver frees what a killed controller leaves behind (see orchestration.jobs.progress).
_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)


class TorchTrainer(DataParallelTrainer):
    """A data-parallel job whose workers form a torch process group.

    Args:
        train_loop: called on every worker with ``train_loop_config``.
        train_loop_config: must pickle.
        scaling_config: the workers.
        run_config: name, storage, checkpoints.
    """

    def __init__(
        self,
        train_loop: Callable[[dict[str, Any]], Any],
        train_loop_config: dict[str, Any],
        scaling_config: ScalingConfig,
        run_config: RunConfig,
    ) -> None:
        new_api: Any = run_config  # its parameter is declared with the old API's class
        super().__init__(
            train_loop,
            train_loop_config=train_loop_config,
            backend_config=TorchBackendConfig(),
            scaling_config=scaling_config,
            run_config=new_api,
        )
        self._controller: Any = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """Have `fit`, which runs in another thread, end at once; the workers end after it."""
        self._is_cancelled = True
        if self._controller is not None:
            ray.kill(self._controller)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, _UNUSED)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        with _job_controller() as controller:
            self._controller = controller
            if self._is_cancelled:
                raise KeyboardInterrupt
            result: Result = ray.get(controller.run.remote(arguments))
        return result


class JobController:
    """An actor that runs Ray's controllers of jobs, one after the other."""

    async def ready(self) -> bool:
        """Whether it is still there: who asks a dead one gets an error."""
        return True

    async def run(self, arguments: dict[str, Any]) -> Result:
        """Run a job to its end, good or bad."""
        controller = TrainController(**arguments)
        await controller.run()
        return controller.get_result()


# By the session of the cluster that they are part of, and by what this process is called there.
_idle_controllers: dict[tuple[str, str], list[Any]] = {}
_lock = threading.Lock()


@contextmanager
def _job_controller() -> Iterator[Any]:
    """A controller for one job on this process's node; one that dies over it serves no other."""
    context = ray.get_runtime_context()
    with _lock:
        place = (context.get_session_name(), context.get_worker_id())
        idle = _idle_controllers.setdefault(place, [])
        controller = idle.pop() if idle else None
    if controller is not None and not _is_alive(controller):
        controller = None
    if controller is None:
        # Ray's controllers wait for the cluster inside their event loop, and know it.
        variables = {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0", **get_env_vars_to_propagate()}
        controller = (
            ray.remote(JobController)
            .options(
                num_cpus=0,
                label_selector={"ray.io/node-id": context.get_node_id()},
                runtime_env={"env_vars": variables},
            )
            .remote()
        )
    yield controller
    with _lock:
        idle.append(controller)


def _is_alive(controller: Any) -> bool:
    try:
        return bool(ray.get(controller.ready.remote(), timeout=5))
    except ray.exceptions.RayError:
        return False


@dataclass
class TorchBackendConfig(BackendConfig):
    """Configuration of the process group.

    Attributes:
        timeout_s: seconds after which a collective that not every worker joins is an error.
    """

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

    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.destroy_process_group()
