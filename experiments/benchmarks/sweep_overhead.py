"""What orchestration adds to a sweep: seconds per Ray Train job, one cell at a time.

    python -m experiments.benchmarks.sweep_overhead [CONFIG] [--set KEY=VALUE ...] [--json]

CONFIG is a sweep whose indicators are sums over layers, by default the quickstart's ablation
without accuracy. `bnnas sweep CONFIG --max-concurrent 1` runs on a new local cluster and an empty
storage, as a user starts it: from the command to its end, the cluster's start and MLflow included.
Then the training function of every stage runs bare, in one process with one thread, and without
Ray, storage or tracking; importing PyTorch is not counted there. The difference, divided by the
number of jobs, is what one job costs beyond its training.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.benchmarks._options import read_options
from experiments.stages import retrain, supernet
from experiments.stages.worker_place import WorkerPlace
from orchestration.jobs.worker import LocalWorkerContext, WorkerContext
from orchestration.store.stage_store import StageStore

_CONFIG = Path(__file__).parents[1] / "configs" / "ablation_quickstart.yaml"
_ADDITIVE = ("grid.indicator=[bn]",)
_WORK: dict[str, Callable[[dict[str, Any], WorkerContext], None]] = {
    "supernet": supernet.work,
    "retrain": retrain.work,
}


def measure(config: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run the sweep, then its training functions bare."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        storage = Path(folder, "runs")
        start_s = time.perf_counter()
        command = [sys.executable, "-m", "experiments", "sweep", str(config), "--json"]
        command += ["--max-concurrent", "1", "--set", f"storage.path={storage}"]
        command += [part for override in overrides for part in ("--set", override)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        sweep_s = time.perf_counter() - start_s
        found = json.loads(done.stdout)
        records = [record for record in StageStore(storage).list() if record.kind in _WORK]
        bare_s = _bare(records, Path(folder, "bare"))
        in_jobs_s = sum(record.wall_s for record in records)
    return {
        "config": config.stem,
        "num_jobs": len(records),
        "num_executed": found["executed"],
        "sweep_s": sweep_s,
        "bare_training_s": bare_s,
        "in_workers_s": in_jobs_s,
        "overhead_s_per_job": (sweep_s - bare_s) / len(records),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def _bare(records: Sequence[Any], folder: Path) -> float:
    import torch

    torch.set_num_threads(1)
    place = asdict(WorkerPlace(str(folder)))
    total_s = 0.0
    for record in records:
        context = LocalWorkerContext(folder / record.fingerprint)
        start_s = time.perf_counter()
        _WORK[record.kind]({"stage": dict(record.config), "place": place}, context)
        total_s += time.perf_counter() - start_s
    return total_s


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, _CONFIG, _ADDITIVE)
    measured = measure(options.config, options.overrides)
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    print(
        "{config}, {num_jobs} Ray Train jobs, one cell at a time, on {machine}".format(**measured)
    )
    print("sweep, from the command to its end   {sweep_s:8.1f} s".format(**measured))
    print("training functions in the workers    {in_workers_s:8.1f} s".format(**measured))
    print("training functions bare              {bare_training_s:8.1f} s".format(**measured))
    print("orchestration per job                {overhead_s_per_job:8.2f} s".format(**measured))


if __name__ == "__main__":
    main()
