"""Supernets that the early-bird stop was allowed to end, beside equal ones of fixed length."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.cell import EarlyBirdConfig
from experiments.report.evidence.evidence import Evidence, tracked
from experiments.report.evidence.gaps import SWEEP, as_sweep, with_settings
from experiments.report.evidence.supernets import (
    EARLY_BIRD,
    EPOCHS,
    SEED,
    TRAINABLE,
    Supernet,
    grouped,
    titles,
    yes_or_no,
)
from experiments.report.evidence.units import decimals, percent, plain
from experiments.report.evidence.values import NOTHING, Cell, Section, Table
from orchestration.tracking.reader import TrackedRun

_SETTINGS = ("window", "threshold")
_GRID = "grid.indicator=[bn]"  # whose cells the table shows
_COLUMNS = (
    "supernet",
    "supernet trains",
    "seed",
    "window, threshold",
    "epochs configured",
    "epochs done",
    "device hours",
    "device hours, fixed length",
    "same winner",
    "test top-1 (%)",
    "test top-1, fixed length (%)",
)


def stopped_section(evidence: Evidence, supernets: Sequence[Supernet]) -> Section:
    """As if it were a section of its own; `supernets` are all finished ones."""
    stopped = [supernet for supernet in supernets if supernet.has_early_bird]
    fixed = [supernet for supernet in supernets if not supernet.has_early_bird]
    if not stopped:
        return Section("", "", "", (), (_none_stopped(fixed),))
    missing = []
    alone = [supernet.run for supernet in stopped if _twin(supernet, fixed) is None]
    if alone:
        command = as_sweep(alone[-1], _GRID, f"{EARLY_BIRD}=null", "name=fixed_length")
        missing.append(
            f"{len(alone)} of {len(stopped)} supernets with the early-bird stop have none of fixed "
            f"length beside them: {command} trains some."
        )
    return Section("", "", "", (_stopped_table(evidence, stopped, fixed),), tuple(missing))


def _none_stopped(fixed: Sequence[Supernet]) -> str:
    settings = _GRID, f"{EARLY_BIRD}.window={EarlyBirdConfig().window}", "name=early_bird"
    command = as_sweep(fixed[-1].run, *settings) if fixed else with_settings(SWEEP, *settings)
    return f"No supernet has run with the early-bird stop: {command} trains some."


def _stopped_table(
    evidence: Evidence, stopped: Sequence[Supernet], fixed: Sequence[Supernet]
) -> Table:
    ordered = sorted(stopped, key=lambda each: (each.order[:2], each.epochs, each.seed))
    but = {TRAINABLE, EPOCHS, SEED, *(f"{EARLY_BIRD}.{name}" for name in _SETTINGS)}
    groups = grouped(stopped, but=but)
    titled = {
        supernet.run.run_id: title
        for group, title in zip(groups, titles(evidence, groups), strict=True)
        for supernet in group.supernets
    }
    return Table(
        "early-bird-stopped",
        "Supernets that ran with the early-bird stop, beside those of fixed length",
        _COLUMNS,
        tuple(
            (titled[each.run.run_id], *_stopped_row(evidence, each, _twin(each, fixed)))
            for each in ordered
        ),
        "Winner and top-1 are those of cells that ranked by the BN indicator; the two of a row "
        "differ in the early-bird stop only.",
    )


def _twin(supernet: Supernet, fixed: Sequence[Supernet]) -> Supernet | None:
    """The supernet that differs in the early-bird stop only."""
    return next((each for each in fixed if each.fixed_length == supernet.fixed_length), None)


def _stopped_row(evidence: Evidence, supernet: Supernet, twin: Supernet | None) -> tuple[Cell, ...]:
    ours, theirs = _cells(evidence, supernet, twin)
    winners = [cell.params.get("winner") for cell in (ours, theirs) if cell is not None]
    same: Cell = NOTHING
    if ours is not None and theirs is not None and all(winners):
        same = yes_or_no(
            winners[0] == winners[1], "whether the param winner of both is one", (ours, theirs)
        )
    params = supernet.run.params
    hours = decimals(4)
    return (
        supernet.trainable,
        str(supernet.seed),
        ", ".join(params.get(f"{EARLY_BIRD}.{name}", "?") for name in _SETTINGS),
        str(supernet.epochs),
        tracked(supernet.run, "epochs", plain) or NOTHING,
        tracked(supernet.run, "device_hours", hours) or NOTHING,
        (twin and tracked(twin.run, "device_hours", hours)) or NOTHING,
        same,
        (ours and tracked(ours, "top1", percent)) or NOTHING,
        (theirs and tracked(theirs, "top1", percent)) or NOTHING,
    )


def _cells(
    evidence: Evidence, supernet: Supernet, twin: Supernet | None
) -> tuple[TrackedRun | None, TrackedRun | None]:
    """A cell of each supernet that are alike in all else; the second is None where none is."""
    ours = _cells_of(evidence, supernet)
    theirs = [] if twin is None else _cells_of(evidence, twin)
    for cell in ours:
        for other in theirs:
            if _settings(evidence, cell) == _settings(evidence, other):
                return cell, other
    return (ours[0] if ours else None), None


def _cells_of(evidence: Evidence, supernet: Supernet) -> list[TrackedRun]:
    return [
        cell
        for cell in evidence.of("cell")
        if cell.status == "FINISHED"
        and cell.inputs.get("supernet") == supernet.run.run_id
        and cell.params.get("indicator") == "bn"
    ]


def _settings(evidence: Evidence, cell: TrackedRun) -> tuple[dict[str, str], ...]:
    """What a cell searched and retrained with, the architecture left out."""
    search, retrain = evidence.input(cell, "search"), evidence.input(cell, "retrain")
    told = {name: cell.params.get(name, "") for name in ("max_flops", "retrain_epochs")}
    return (
        told,
        {} if search is None else dict(search.params),
        {}
        if retrain is None
        else {key: text for key, text in retrain.params.items() if key != "arch"},
    )
