"""Ray actors that score items, each of them loaded once with all that scoring needs.

An item's score is a function of the item alone, and scores come back in the order of the items: how
many actors there are, which one scored what, and which of them died on the way cannot be seen in
them. An actor takes its next item when it is done with one, so a slow item holds up no other.

Nothing is reserved for all actors together: each begins as soon as there is room for it, and one is
enough to go on. So two pools that share a cluster's last cores do not wait for each other, and as
actors end with the process that started them, nothing stays reserved for one that was killed.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestration.cluster.scaling import Scaling
from orchestration.jobs import failure
from orchestration.jobs.device import describe_device
from orchestration.jobs.failure import Decision
from orchestration.jobs.job_result import KeepGoing, always, stopped
from orchestration.jobs.worker import naming_batch_sizes

if TYPE_CHECKING:
    from ray import ObjectRef

Score = Callable[[Any], float]
MakeScorer = Callable[[dict[str, Any], str], Score]

_log = logging.getLogger(__name__)

# How long a wait may last before this process looks around.
_WAKE_UP_S = 0.5


class ScorerPool:
    """The actors; a context manager that starts them and, whatever happens, ends them.

    Args:
        make_scorer: ``make_scorer(config, device)``, a function of an importable module, is called
            once in every actor; what it returns scores one item. ``device`` is ``cuda`` where Ray
            gave the actor a GPU, else ``cpu``.
        config: its first argument; must pickle.
        scaling: as many actors as fit in the place of its least number of workers, once all have
            room.
        name: of the job, for messages.
        max_failures: how often one item, or the loading of one actor, may fail for reasons that
            may go away.
        keep_going: asked now and then; with False the pool stops.
    """

    def __init__(
        self,
        make_scorer: MakeScorer,
        config: dict[str, Any],
        scaling: Scaling,
        *,
        name: str = "scoring",
        max_failures: int = 3,
        keep_going: KeepGoing = always,
    ) -> None:
        self._share = scaling.gpus_per_scorer if scaling.use_gpu else 1.0
        self.num_actors = scaling.min_workers * int(1.0 / self._share)
        self.device: dict[str, Any] = {}  # what the actor runs on that was loaded last
        self._make_scorer = make_scorer
        self._config = config
        self._scaling = scaling
        self._name = name
        self._max_failures = max_failures
        self._keep_going = keep_going
        self._load_failures: Counter[int] = Counter()
        self._actors: dict[int, Any] = {}
        self._idle: deque[int] = deque()
        # What each busy actor is doing: its number, and the item's position or None for loading.
        self._busy: dict[ObjectRef[Any], tuple[int, int | None]] = {}
        self._began_s: dict[int, float] = {}  # when each of those that are loaded got its room
        self._first_began_s = math.inf
        self._ended_s = 0.0  # what those that were replaced have taken

    def __enter__(self) -> Self:
        for actor in range(self.num_actors):
            self._start(actor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        if ray.is_initialized():
            for actor in self._actors.values():
                ray.kill(actor)

    def spent_s(self) -> tuple[float, float]:
        """Seconds since the first actor had room; and of devices, summed over the actors."""
        now_s = time.monotonic()
        device_s = self._ended_s + sum(now_s - began_s for began_s in self._began_s.values())
        return max(0.0, now_s - self._first_began_s), device_s * self._share

    def score(self, items: Sequence[Any]) -> list[float]:
        """The scores of the items, in their order.

        Raises:
            ValueError: the scorer raised it; nothing is tried again.
            JobError: an item, or the loading of an actor, failed for good, or as `check`.
        """
        import ray

        scores: dict[int, float] = {}
        failures: Counter[int] = Counter()
        waiting = deque(range(len(items)))
        while len(scores) < len(items):
            while waiting and self._idle:
                actor, item = self._idle.popleft(), waiting.popleft()
                self._busy[self._actors[actor].score.remote(items[item])] = (actor, item)
            for ref in self._done():
                actor, done = self._busy.pop(ref)
                try:
                    value = ray.get(ref)
                except failure.attempt_errors() as error:
                    if done is None:
                        self._load_failures[actor] += 1
                        self._replace(actor, error, self._load_failures[actor])
                    else:
                        failures[done] += 1
                        self._replace(actor, error, failures[done])
                        waiting.appendleft(done)
                else:
                    self._idle.append(actor)
                    if done is None:
                        loading_s, self.device = value
                        self._began_s[actor] = time.monotonic() - loading_s
                        self._first_began_s = min(self._first_began_s, self._began_s[actor])
                    else:
                        scores[done] = value
        return [scores[item] for item in range(len(items))]

    def check(self) -> None:
        """Raise JobStoppedError where the pool must stop, or has lost the cluster.

        Without a connection this process is about to end, and Ray would start a new cluster.
        """
        import ray

        if not self._keep_going() or not ray.is_initialized():
            raise stopped(self._name)

    def _start(self, actor: int) -> None:
        import ray

        scaling = self._scaling
        # As many as share a GPU share what goes with it.
        needs = {k: self._share * v for k, v in scaling.resources_per_worker.items()}
        options = {
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0.0),
            "memory": needs.get("memory"),
            "accelerator_type": scaling.accelerator_type,
            "label_selector": dict(scaling.labels) or None,
            "scheduling_strategy": "DEFAULT",  # not in the room of the trial that drives this job
        }
        self._actors[actor] = ray.remote(_Scorer).options(**options).remote()
        load = self._actors[actor].load.remote(self._make_scorer, self._config)
        self._busy[load] = (actor, None)

    def _done(self) -> list[ObjectRef[Any]]:
        """Whatever is done, after a wait for the first of it."""
        import ray

        while True:
            self.check()
            done, _ = ray.wait(list(self._busy), timeout=_WAKE_UP_S)
            if done:
                return list(done)

    def _replace(self, actor: int, error: Exception, num_failures: int) -> None:
        """Start an actor in the place of one that failed, unless it failed for good.

        Also where its process is alive: after some errors (of a GPU, say) it is good for nothing.
        """
        import ray

        (cause,) = failure.causes_of(error).values()
        causes = {actor: cause}
        decision = failure.decide(causes.values(), num_failures, self._max_failures)
        if decision is Decision.GIVE_UP:
            raise failure.final_error(self._name, causes, num_failures, str(error)) from error
        _log.warning("%s: %s; trying again.", self._name, failure.describe(causes))
        self.check()
        ray.kill(self._actors[actor])
        if (began_s := self._began_s.pop(actor, None)) is not None:
            self._ended_s += time.monotonic() - began_s
        self._start(actor)


class _Scorer:
    """One actor."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def load(self, make_scorer: MakeScorer, config: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds since the actor had room, and what it runs on.

        A method and not the constructor, whose errors Ray would wrap beyond recognition.
        """
        import ray

        has_gpu = ray.get_runtime_context().get_accelerator_ids().get("GPU")
        device = "cuda" if has_gpu else "cpu"
        self._config = config
        with naming_batch_sizes(config):
            self._score = make_scorer(config, device)
        return time.monotonic() - self._began_s, describe_device(device)

    def score(self, item: Any) -> float:
        with naming_batch_sizes(self._config):
            return float(self._score(item))
