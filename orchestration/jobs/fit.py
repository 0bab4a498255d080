"""One attempt at a job: Ray Train's ``fit`` in a process of its own, which can be made to end.

``fit`` blocks, and ends its job in order at Ctrl-C and at nothing else. So a Ray task on the
driver's node calls it: cancelling that task is its Ctrl-C, and the task dies with its driver. What
the workers of a job that died so had reserved is freed by Ray Train's own cleaner.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.job_result import stopped
from orchestration.jobs.progress import EpochWriter
from orchestration.jobs.torch_backend import TorchBackendConfig
from orchestration.jobs.worker import RayWorkerContext, naming_batch_sizes
from orchestration.store import json_text
from orchestration.store.stage import JOBS
from orchestration.store.storage import Storage

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.train.v2.api.result import Result

    from orchestration.jobs.train_job import Work

# How long a job that was told to end may take for it, before its process is killed.
_STOP_TIMEOUT_S = 30.0
_PREFIXES = ("RAY_TRAIN_", "RAY_CHDIR_")
# Settings that Ray Train reads from the environment; what the user has set stays.
_ENVIRONMENT = {
    # Relative paths in a config mean the user's working directory, in workers too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@dataclass(frozen=True)
class FitArguments:
    """What an attempt is started with; it must pickle.

    Attributes:
        work: runs on every worker.
        config: its first argument.
        name: of the job.
        storage: where its checkpoints lie.
        scaling: its workers.
        events: the file that its driver reads; see `orchestration.jobs.progress`.
        lost_wall_s, lost_device_s: see `RayWorkerContext`.
    """

    work: Work
    config: dict[str, Any]
    name: str
    storage: Storage
    scaling: Scaling
    events: str
    lost_wall_s: float
    lost_device_s: float


class Fit:
    """An attempt that is under way."""

    def __init__(self, arguments: FitArguments) -> None:
        environment = {k: v for k, v in os.environ.items() if k.startswith(_PREFIXES)}
        context = ray.get_runtime_context()
        here = NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False)
        # Which of several clusters on a machine is ours: the cleaner would have to guess.
        cluster = {"env_vars": {"RAY_ADDRESS": context.gcs_address}}
        task = ray.remote(_fit).options(
            name=f"fit-{arguments.name}",
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=here,
            runtime_env=cluster,
        )
        self._result: ObjectRef[Any] = task.remote(arguments, environment)

    def is_done(self, timeout_s: float) -> bool:
        """Whether it has ended, or does so within the time given."""
        return bool(ray.wait([self._result], timeout=timeout_s)[0])

    def result(self) -> Result:
        """What Ray Train returns when all went well.

        Raises:
            ray.train.TrainingFailedError, ray.exceptions.RayError: it did not.
        """
        return cast("Result", ray.get(self._result))

    def stop(self) -> None:
        """End it with its workers, and wait until it has ended."""
        ray.cancel(self._result, recursive=False)
        if not self.is_done(_STOP_TIMEOUT_S):
            ray.cancel(self._result, force=True)
            self.is_done(_STOP_TIMEOUT_S)


def _fit(arguments: FitArguments, environment: dict[str, str]) -> Result:
    """Runs in a process of its own."""
    num_workers = arguments.scaling.max_workers
    # How often the controller asks every worker. Ray's 2 s would be a lower bound for an epoch.
    interval_s = min(2.0, 0.05 * num_workers)
    os.environ.update(
        {**_ENVIRONMENT, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(interval_s), **environment}
    )
    storage, scaling = arguments.storage, arguments.scaling
    # It and the result are declared with the classes of Ray Train's first version.
    run_config: Any = RunConfig(
        name=arguments.name,
        storage_path=storage.place(JOBS),
        storage_filesystem=storage.filesystem,
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        failure_config=FailureConfig(max_failures=0),
        callbacks=[EpochWriter(arguments.events)],
    )
    trainer: Any = DataParallelTrainer(
        _work,
        train_loop_config={"arguments": arguments},
        backend_config=TorchBackendConfig(events=arguments.events),
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker=scaling.resources_per_worker,
            accelerator_type=scaling.accelerator_type,
            label_selector=dict(scaling.labels) or None,
        ),
        run_config=run_config,
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        return cast("Result", trainer.fit())
    except SystemExit:  # Ray Train's answer to Ctrl-C, when the workers have ended
        raise stopped(arguments.name) from None
    finally:
        signal.signal(signal.SIGINT, before)  # its handler would keep the controller alive


def _work(payload: dict[str, FitArguments]) -> str:
    """The training function as Ray calls it, on every worker; rank 0's value comes back."""
    arguments = payload["arguments"]
    context = RayWorkerContext(
        lost_wall_s=arguments.lost_wall_s,
        lost_device_s=arguments.lost_device_s,
        upload_later=arguments.storage.is_remote,
    )
    if context.device.startswith("cuda"):
        import torch

        torch.cuda.set_device(context.device)  # a setting of this thread
    with naming_batch_sizes(arguments.config):
        arguments.work(arguments.config, context)
    return json_text.dumps(vars(context.ledger()))
