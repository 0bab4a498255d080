"""How many workers a job gets, and of what size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_GIB = 1024**3


@dataclass(frozen=True)
class Scaling:
    """The workers of one job.

    Attributes:
        num_workers: a fixed number, or (least, most) for a job that grows and shrinks with the
            cluster.
        use_gpu: one GPU for each worker.
        cpus_per_worker: CPU cores reserved for each worker.
        memory_per_worker: GiB of memory reserved for each worker; none if not given.
        gpus_per_scorer: of a process that scores, with `use_gpu`; 0.25 puts four on one GPU.
        accelerator_type: what Ray calls the kind of GPU that a worker needs, such as ``A100``.
        labels: of the nodes that workers may run on, in the language of Ray's label selectors.
        cluster_workers: how many workers a cluster that grows by itself may have room for.
    """

    num_workers: int | tuple[int, int] = 1
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    memory_per_worker: float | None = None
    gpus_per_scorer: float = 1.0
    accelerator_type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster_workers: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            raise ValueError(
                f"cluster.num_workers is {self.num_workers}: expected a number of at least 1, or "
                "a pair (least, most) of such numbers."
            )
        if self.cpus_per_worker < 0 or (self.cpus_per_worker == 0 and not self.use_gpu):
            raise ValueError(
                f"cpus_per_worker is {self.cpus_per_worker}: expected a positive number of cores."
            )

    @property
    def min_workers(self) -> int:
        """The least number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def resources_per_worker(self) -> dict[str, float]:
        """What Ray reserves for each worker: cores, GPUs, bytes of memory."""
        gpu = {"GPU": 1.0} if self.use_gpu else {}
        memory = {"memory": self.memory_per_worker * _GIB} if self.memory_per_worker else {}
        return {"CPU": float(self.cpus_per_worker), **gpu, **memory}
