"""How long `bnnas report` takes: for one sweep with long histories, and for a thousand runs.

    python -m experiments.benchmarks.report_speed [--runs 1000] [--json]

The sweeps are tracked without training (`_tracked_sweeps`): twelve cells, each with a supernet of
its own of up to 100 epochs, in the `spos` space; no two sweeps have one learning rate. The report
is made by the command in a process of its own, imports and all; for the first sweep alone, for the
same one among all of them, and for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from experiments.benchmarks._tracked_sweeps import TrackedSweep
from experiments.config.load import load_experiment
from orchestration.tracking.reader import read_experiment
from orchestration.tracking.tracker import Tracker

_EXPERIMENT: dict[str, Any] = {
    "space": "spos",
    "data": {"name": "digits", "max_train_images": 128},
    "supernet": {"batch_size": 64},
    "search": {"top_k": 1},
    "retrain": {"epochs": 12, "batch_size": 64, "warmup_epochs": 1},
    "random_baseline": {"num_architectures": 0},
    "grid": {"trainable": ["all", "bn", "last_bn"], "epochs": [10, 30, 60, 100]},
}


def measure(num_runs: int) -> dict[str, Any]:
    """Track sweeps until there are so many runs, and time the reports."""
    with tempfile.TemporaryDirectory(prefix="report-") as name:
        folder = Path(name)
        tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "bnnas")
        first = _track(folder, tracker, 0)
        single = _time(tracker.uri, folder / "one", "--run", first)
        number = 1
        while len(read_experiment(tracker.uri, "bnnas").runs) < num_runs:
            _track(folder, tracker, number)
            number += 1
        runs = read_experiment(tracker.uri, "bnnas").runs
        among_all = _time(tracker.uri, folder / "among", "--run", first)
        every = _time(tracker.uri, folder / "all")
    return {
        "sweep_s": single,
        "sweep_among_all_s": among_all,
        "num_runs": len(runs),
        "num_sweeps": number,
        "all_s": every,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def _track(folder: Path, tracker: Tracker, number: int) -> str:
    # Sweeps of one recipe would be drawn as one.
    supernet = {**_EXPERIMENT["supernet"], "lr": 0.1 * (1 + number)}
    values = {**_EXPERIMENT, "supernet": supernet, "name": f"sweep{number}", "seed": number}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return TrackedSweep(load_experiment(path), tracker, seed=number).track()


def _time(uri: str, folder: Path, *more: str) -> float:
    program = "from experiments.cli import main; main()"
    command = [sys.executable, "-c", program, "report", "--uri", uri, "--out", str(folder), *more]
    start_s = time.perf_counter()
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="at least so many")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    measured = measure(options.runs)
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    print("on {machine}".format(**measured))
    print("report of a sweep of 12 cells, up to 100 epochs  {sweep_s:6.1f} s".format(**measured))
    print("the same sweep among all {sweep_among_all_s:25.1f} s".format(**measured))
    print("report of {num_runs} runs in {num_sweeps} sweeps {all_s:18.1f} s".format(**measured))


if __name__ == "__main__":
    main()
