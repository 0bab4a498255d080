"""Run a sweep in this process, as `bnnas sweep` does in its own."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from experiments.config.load import load_sweep
from experiments.config.places import open_tracker
from experiments.plan.sweep import plan_sweep
from experiments.run.sweep import run_sweep
from experiments.run.sweep_result import SweepResult
from experiments.run.table_display import SweepDisplay
from nas.data import describe_data


def run_sweep_in(folder: Path, display: SweepDisplay | None = None) -> SweepResult:
    """The sweep of `sweep.yaml` in a folder."""
    sweep = load_sweep(folder / "sweep.yaml")
    data = sweep.shared.data
    images = describe_data(data.name, root=data.root, resolution=data.resolution)
    display = display or SweepDisplay(Console(), quiet=True)
    return run_sweep(plan_sweep(sweep, images), open_tracker(sweep.shared), display)
