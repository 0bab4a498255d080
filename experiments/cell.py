"""Run one cell for real: supernet → search → retrain, and the random baseline beside it.

The baseline's architectures are known from the start, so their retraining fills the cores that the
chain leaves idle. Ray is started by the first stage that is not in the store; when all are there,
it is not started at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import Config, dump_config
from experiments.plan import CellPlan
from experiments.provenance import provenance
from experiments.stages.retrain import draw_retrain, make_retrain
from experiments.stages.search import draw_search, make_search
from experiments.stages.setting import Setting
from experiments.stages.supernet import draw_supernet, make_supernet
from experiments.terminal import Display
from experiments.tracking_uri import local_folder
from nas.space import parse_architecture
from orchestration import cluster
from orchestration.fingerprint import fingerprint
from orchestration.scaling import Scaling
from orchestration.stage_runner import Done, StageRunner
from orchestration.stage_store import StageStore
from orchestration.tracking import Tracker, TrackingError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        chain: what led to the result, in order: supernet (where the indicator reads one), search,
            retrain.
        baseline: the retrainings of the random architectures.
        run_id: the MLflow run that the stages' runs are nested under.
        figures: the folder of the chain's figures.
    """

    plan: CellPlan
    chain: tuple[Done, ...]
    baseline: tuple[Done, ...]
    run_id: str
    figures: Path

    @property
    def search(self) -> Done:
        """The search stage."""
        return self.chain[-2]

    @property
    def retrained(self) -> Done:
        """The retraining of the architecture that the search chose."""
        return self.chain[-1]

    @property
    def best_random(self) -> Done | None:
        """The best of the random architectures by test top-1; None without a baseline."""
        return max(self.baseline, key=lambda done: done.record.metrics["top1"], default=None)

    @property
    def metrics(self) -> dict[str, float]:
        """The cell's numbers, as its MLflow run shows them."""
        # The search may choose what the baseline has drawn: that was retrained once.
        stages = {done.record.fingerprint: done for done in (*self.chain, *self.baseline)}
        metrics = {
            name: self.retrained.record.metrics[name] for name in ("top1", "flops", "params")
        }
        metrics["device_hours"] = sum(done.record.device_hours for done in stages.values())
        metrics["wall_s"] = sum(done.record.wall_s for done in stages.values())
        if self.best_random is not None:
            metrics["random_baseline"] = self.best_random.record.metrics["top1"]
        return metrics

    def summary(self) -> str:
        """What was found, in Markdown: the description of the cell's MLflow run."""
        rows = [("searched", self.retrained)]
        rows += [("random", done) for done in self.baseline]
        lines = [
            f"| {what} | `{done.record.result['arch']}` | {done.record.metrics['flops']:,.0f} "
            f"| {done.record.metrics['params']:,.0f} | {done.record.metrics['top1']:.2%} |"
            for what, done in rows
        ]
        head = ["| | architecture | FLOPs | params | test top-1 |", "|---|---|--:|--:|--:|"]
        return "\n".join([*head, *lines])

    def to_json(self) -> dict[str, Any]:
        """What `bnnas run --json` prints; top-1 is a fraction, FLOPs are multiply-adds."""
        return {
            "status": "done",
            "name": self.plan.config.name,
            "arch": self.search.record.result["arch"],
            "random_baseline": None,
            **self.metrics,
            "num_test_images": int(self.retrained.record.metrics["num_test_images"]),
            "num_skipped": int(self.retrained.record.metrics["num_skipped"]),
            "random_architectures": [dict(done.record.result) for done in self.baseline],
            "stages": [
                {
                    "kind": done.stage.kind,
                    "name": done.stage.name,
                    "fingerprint": done.record.fingerprint,
                    "cached": done.cached,
                    "mlflow_run_id": done.run_id,
                    "device_hours": done.record.device_hours,
                }
                for done in (*self.chain, *self.baseline)
            ],
            "mlflow_run_id": self.run_id,
            "figures": str(self.figures),
        }


def run_cell(plan: CellPlan, tracker: Tracker, display: Display) -> CellResult:
    """Have or make every stage of the cell.

    Raises ValueError (a wrong request) before anything is started where that can be known, and
    `JobError` when a stage fails for good; what was finished by then stays in the store.
    """
    config = plan.config
    store = StageStore(config.storage.path)
    # A server is asked before anything is written; a database lies in the storage, mostly.
    database = tracker.uri.startswith("sqlite:")
    for check in (store.check, tracker.check) if database else (tracker.check, store.check):
        check()
    with ExitStack() as stack:
        jobs_cluster = _LazyCluster(config, stack)
        missing = [stage for stage in plan.known if store.get(stage.fingerprint) is None]
        num_at_once = 1
        if missing:  # a cluster that will not do is an error before any run is begun
            display.say("[dim]Connecting to Ray …[/]")
            num_at_once = jobs_cluster.num_jobs_at_once()
        code = provenance()
        source = {
            "mlflow.source.name": code["command"],
            "mlflow.source.type": "LOCAL",
        }
        if code["commit"] is not None:
            source["mlflow.source.git.commit"] = code["commit"]
        run_id = stack.enter_context(_tracked(config, tracker, source))
        runner = StageRunner(
            store=store,
            tracker=tracker,
            scaling=jobs_cluster.scaling,
            max_failures=config.cluster.max_failures,
            code=code,
            parent_run_id=run_id,
            tags={"bnnas.cell": config.name, **source},
            before_job=jobs_cluster.start,
        )
        place = {
            "data_root": _absolute(config.data.root),
            "num_loaders": config.data.num_workers,
            "storage_path": _absolute(config.storage.path),
        }
        stack.enter_context(display.live())
        chain, baseline = _make_all(plan, Setting(runner, place, display), num_at_once)
        figures = _draw(config, chain)
        result = CellResult(plan, chain, baseline, run_id, figures)
        note = {"mlflow.note.content": result.summary()}
        _finish(tracker, run_id, metrics=result.metrics, artifacts=figures, tags=note)
        return result


@contextmanager
def _tracked(config: Config, tracker: Tracker, tags: Mapping[str, str]) -> Iterator[str]:
    """The cell's MLflow run, marked as failed or killed unless all goes well."""
    values = config.model_dump(mode="json")
    run_id = tracker.start_group(
        config.name,
        tags={"bnnas.cell": config.name, **tags},
        params=values,
        group=fingerprint("cell", values, code_version=1),
    )
    try:
        yield run_id
    except BaseException as error:
        _finish(tracker, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _finish(tracker: Tracker, run_id: str, status: str = "FINISHED", **shown: Any) -> None:
    """End the cell's MLflow run; a server that went away meanwhile costs a warning, no result."""
    try:
        tracker.finish_group(run_id, status, **shown)
    except TrackingError as error:
        _log.warning(
            "The results are stored, but MLflow does not show the cell as %s: %s", status, error
        )


def _draw(config: Config, chain: tuple[Done, ...]) -> Path:
    """The figures of the chain and the resolved config, in one folder on this machine."""
    folder = local_folder(config.storage) / "figures" / config.name
    drawers = {"supernet": draw_supernet, "search": draw_search, "retrain": draw_retrain}
    for done in chain:
        drawers[done.stage.kind](done.record, folder)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


def _absolute(path: str | None) -> str | None:
    """A path on this machine from its root, for workers that stand elsewhere; URIs as they are."""
    return path if path is None or "://" in path else str(Path(path).expanduser().absolute())


class _LazyCluster:
    """Connects to Ray when the first job needs it, and stays until the stack is closed."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        section = config.cluster
        self.scaling = Scaling(section.num_workers, section.use_gpu, section.cpus_per_worker)
        self._address = section.address
        self._stack = stack
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        with self._lock:
            if not self._started:
                self._stack.enter_context(cluster.cluster(self._address))
                cluster.require(self.scaling)
                self._started = True

    def num_jobs_at_once(self) -> int:
        """How many jobs the cluster has room for."""
        self.start()
        have = cluster.available()
        return max(
            1,
            min(
                int(have.get(name, 0.0) / (amount * self.scaling.min_workers))
                for name, amount in self.scaling.resources_per_worker.items()
            ),
        )


def _make_all(
    plan: CellPlan, setting: Setting, num_at_once: int
) -> tuple[tuple[Done, ...], tuple[Done, ...]]:
    """The chain and the baseline, so many jobs at once."""

    def chain() -> tuple[Done, ...]:
        inputs = {}
        if plan.supernet is not None:
            inputs["supernet"] = make_supernet(plan.supernet, setting)
        search = make_search(plan.search, setting, inputs)
        arch = parse_architecture(search.record.result["arch"])
        retrained = make_retrain(plan.retrain(arch), setting, {"search": search})
        return (*inputs.values(), search, retrained)

    pool = ThreadPoolExecutor(num_at_once)
    main = pool.submit(chain)
    others = [pool.submit(make_retrain, stage, setting) for stage in plan.baseline]
    running_jobs_end = True
    try:
        return main.result(), tuple(other.result() for other in others)
    except KeyboardInterrupt:
        running_jobs_end = False  # they go on from their checkpoints next time
        raise
    finally:  # after a failure, what has not begun does not begin
        pool.shutdown(wait=running_jobs_end, cancel_futures=True)
