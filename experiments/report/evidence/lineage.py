"""The lineage section: where every number comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.values import Derived, MeanStd, Number, Section, Table, Tracked
from orchestration.tracking.reader import TrackedRun

_COLUMNS = (
    "run",
    "kind",
    "run id",
    "fingerprint",
    "seed",
    "status",
    "commit",
    "command",
    "machine",
)


def lineage_section(evidence: Evidence, sections: Iterable[Section]) -> Section:
    """Every run that a number of these sections comes from, with all that they were made from."""
    used = _used(evidence, sections)
    runs = [run for run in evidence.runs if run.run_id in used]
    if not runs:
        return Section("lineage", "Lineage", "", (), ("No number of this page is tracked.",))
    rows = tuple(
        (
            run.name,
            run.kind,
            run.run_id,
            (run.fingerprint or "")[:12],
            run.params.get("seed", run.params.get("seeds", "")),
            run.status.lower(),
            str(run.code.get("commit") or "not known"),
            run.command or "not known",
            _machine(run),
        )
        for run in runs
    )
    table = Table("lineage", "Runs that the numbers come from", _COLUMNS, rows)
    return Section("lineage", "Lineage", "", (_summary(runs), table))


def _used(evidence: Evidence, sections: Iterable[Section]) -> set[str]:
    """The run ids of all numbers, and of everything that these were made from."""
    waiting = [
        run_id
        for section in sections
        for table in section.tables
        for row in table.rows
        for cell in row
        for number in _numbers(cell)
        if isinstance(number.source, Tracked | Derived)
        for run_id in number.source.run_ids
    ]
    found: set[str] = set()
    while waiting:
        run = evidence.by_id.get(waiting.pop())
        if run is not None and run.run_id not in found:
            found.add(run.run_id)
            waiting += [one.run_id for one in evidence.experiment.sources(run)]
    return found


def _numbers(cell: object) -> tuple[Number, ...]:
    if isinstance(cell, MeanStd):
        return (cell.mean,) if cell.std is None else (cell.mean, cell.std)
    return (cell,) if isinstance(cell, Number) else ()


def _machine(run: TrackedRun) -> str:
    hardware = run.code.get("hardware")
    if not isinstance(hardware, dict):
        return "not known"
    return f"{hardware.get('processor')} {hardware.get('machine')}, {hardware.get('num_cpus')} CPUs"


def _summary(runs: list[TrackedRun]) -> str:
    """Commits and machines at a glance."""
    commits = Counter(str(run.code.get("commit") or "not known") for run in runs)
    machines = Counter(map(_machine, runs))
    versions = Counter(
        ", ".join(
            f"{name} {run.code[name]}" for name in ("torch", "ray", "mlflow") if name in run.code
        )
        for run in runs
    )
    return (
        f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}; "
        f"{'commit' if len(commits) == 1 else 'commits'} {_listed(commits)}; on "
        f"{_listed(machines)}; with {_listed(versions)}."
    )


def _listed(counted: Counter[str]) -> str:
    """As many as there are, the most frequent first."""
    if len(counted) == 1:
        return next(iter(counted)) or "versions not known"
    return ", ".join(f"{name or 'not known'} ({num})" for name, num in counted.most_common())
