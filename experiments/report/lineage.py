"""Where the numbers come from: runs with commit, command and machine, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from experiments.report.formats import decimals
from experiments.report.run_table import Runs, numbers
from experiments.report.tables import Entry, Section, Table, number
from orchestration.tracking.reader import TrackedRun

_UNKNOWN = "not known"


def lineage_section(runs: Runs) -> Section:
    """Every run, and the device time by kind of stage."""
    if not runs.tracked:
        return Section("lineage", "Lineage and cost", "")
    rows: list[dict[str, Entry]] = [
        {
            "run": run.name,
            "kind": run.kind,
            "run id": run.run_id,
            "fingerprint": (run.fingerprint or "")[:12],
            "seed": run.params.get("seed", run.params.get("seeds", "")),
            "status": run.status.lower(),
            "commit": str(run.code.get("commit") or _UNKNOWN),
            "command": run.command or _UNKNOWN,
            "machine": _machine(run),
        }
        for run in runs.tracked
    ]
    lineage = Table.of("lineage", "Runs that the numbers come from", rows)
    return Section("lineage", "Lineage and cost", "", (_cost_table(runs), lineage, _summary(runs)))


def _cost_table(runs: Runs) -> Table:
    """Wall and device time by kind of stage: what cells share counts once."""
    stages = runs.frame[runs.frame["fingerprint"] != ""]
    rows: list[dict[str, Entry]] = [
        {
            "stage": str(kind),
            "runs": str(len(group)),
            "wall (s)": number(numbers(group, "wall_s").sum(), decimals(1)),
            "device time (s)": number(numbers(group, "device_hours").sum(), decimals(1, 3600)),
        }
        for kind, group in stages.groupby("kind", sort=False)
    ]
    return Table.of("stages", "What it cost, by kind of stage", rows)


def _machine(run: TrackedRun) -> str:
    hardware = run.code.get("hardware")
    if not isinstance(hardware, dict):
        return _UNKNOWN
    return f"{hardware.get('processor')} {hardware.get('machine')}, {hardware.get('num_cpus')} CPUs"


def _summary(runs: Runs) -> str:
    """Commits, machines and versions at a glance."""
    commits = (str(run.code.get("commit") or _UNKNOWN) for run in runs.tracked)
    versions = (
        ", ".join(
            f"{name} {run.code[name]}" for name in ("torch", "ray", "mlflow") if name in run.code
        )
        or _UNKNOWN
        for run in runs.tracked
    )
    num = runs.num_foreign
    foreign = f" {num} runs of other programs are left out." if num else ""
    return (
        f"{len(runs.tracked)} runs of the MLflow experiment {runs.experiment!r}; commits: "
        f"{_counted(commits)}; machines: {_counted(map(_machine, runs.tracked))}; versions: "
        f"{_counted(versions)}.{foreign}"
    )


def _counted(values: Iterable[str]) -> str:
    """Each once, the most frequent first."""
    return "; ".join(f"{each} ({num})" for each, num in Counter(values).most_common())
