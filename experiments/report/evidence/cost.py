"""The cost section: what a search takes, part by part (Table 1), and the searchers compared."""

from __future__ import annotations

from experiments.report.evidence.cell_groups import CellGroup, CellSet, average, cell_sets
from experiments.report.evidence.evidence import Evidence, mean_std
from experiments.report.evidence.fronts import fronts
from experiments.report.evidence.gaps import SWEEP
from experiments.report.evidence.published import published
from experiments.report.evidence.searches import scored_table, search_groups, searcher_table
from experiments.report.evidence.units import decimals, percent, plain
from experiments.report.evidence.values import NOTHING, Block, Cell, Section, Table
from nas.indicators import INDICATORS
from orchestration.tracking.reader import TrackedRun

_COLUMNS = (
    "supernet trains",
    "ranked by",
    "epochs",
    "seeds",
    "epochs trained",
    "trained parameters",
    "of",
    "searcher",
    "search (s)",
    "candidates",
    "supernet (device-h)",
    "search (device-h)",
    "retraining (device-h)",
    "whole (device-h)",
    "whole (s)",
    "test top-1 (%)",
)


def cost_section(evidence: Evidence) -> Section:
    """Cells with their cost, the paper's Table 1, and the searchers against each other."""
    blocks: list[Block] = []
    missing: list[str] = []
    found = [cell_set for cell_set in cell_sets(evidence) if cell_set.groups]
    blocks += map(_table, found)
    if not found:
        missing.append(f"No cell is finished, so nothing has a cost yet: `{SWEEP}` makes some.")
    missing += _without_sizes(found)
    blocks.append(_published_table())
    additive = search_groups(evidence, additive=True)
    scored = search_groups(evidence, additive=False)
    if additive:
        blocks.append(searcher_table(additive))
    missing += _untimed(evidence)
    if scored:
        blocks.append(scored_table(scored, additive))
    else:
        missing.append(
            "No search by accuracy is tracked, so the counterpart of the paper's 1 GPU day is "
            f"missing: `{SWEEP}` makes some."
        )
    pictures, undrawn = fronts(evidence, additive)
    return Section(
        "cost",
        "What the search costs",
        "Table 1",
        (*blocks, *pictures),
        (*missing, *undrawn),
    )


def _table(cell_set: CellSet) -> Table:
    rest = len(cell_set.cells) - cell_set.num_finished
    notes = [
        "Mean over the seeds ± standard deviation. Cells that share a supernet or a network each "
        "count it, so that rows do not add up to what a sweep has taken. A search by an additive "
        "indicator times all searchers."
    ]
    if rest:
        notes.append(f"{rest} of {len(cell_set.cells)} cells have no result and are left out.")
    labels = [
        (group.trains, group.label("indicator"), group.label("epochs")) for group in cell_set.groups
    ]
    if len(set(labels)) < len(labels):
        notes.append("Rows of equal names differ in a setting that is not shown.")
    return Table(
        f"cost-{cell_set.name}",
        f"{cell_set.name}: cost of a cell ({cell_set.space} on {cell_set.data})",
        _COLUMNS,
        tuple(map(_row, cell_set.groups)),
        " ".join(notes),
    )


def _row(group: CellGroup) -> tuple[Cell, ...]:
    supernets, searches, retrained = (
        group.stages[kind] for kind in ("supernet", "search", "retrain")
    )
    return (
        group.trains,
        group.label("indicator"),
        NOTHING if group.has_no_supernet else group.label("epochs"),
        str(len(group.cells)),
        average(supernets, "epochs", plain),
        average(supernets, "trained_params", plain),
        average(supernets, "supernet_params", plain),
        group.searcher,
        average(searches, "wall_s", decimals(2)),
        _candidates(searches, group.searcher),
        average(supernets, "device_hours", decimals(4)),
        average(searches, "device_hours", decimals(4)),
        average(retrained, "device_hours", decimals(4)),
        average(group.cells, "device_hours", decimals(4)),
        average(group.cells, "wall_s", decimals(1)),
        average(group.cells, "top1", percent),
    )


def _candidates(searches: tuple[TrackedRun, ...], searcher: str) -> Cell:
    """How many the searcher has evaluated; exact search evaluates none one by one."""
    if searcher == "exact":
        return "none"
    names = "num_evaluated", f"{searcher}/num_evaluated"
    found = [mean_std(searches, name, plain) for name in names]
    return found[0] or found[1] or NOTHING


def _published_table() -> Table:
    rows = published("table_1")
    fields = ("method", "top1", "flops", "epochs", "trains", "search", "images")
    return Table(
        "cost-published",
        f"Published, on ImageNet: {rows.source}",
        (
            "method",
            "top-1 (%)",
            "FLOPs (M)",
            "supernet epochs",
            "supernet trains",
            "searching",
            "searching data",
        ),
        rows.cells(fields),
        "Not measured here, and not to be compared with networks on other images.",
    )


def _without_sizes(found: list[CellSet]) -> list[str]:
    """Old supernets do not say how much of them trains."""
    supernets = {
        run.run_id: run
        for cell_set in found
        for group in cell_set.groups
        for run in group.stages["supernet"]
    }
    num = sum("trained_params" not in run.metrics for run in supernets.values())
    if not num:
        return []
    return [
        f"{num} of {len(supernets)} supernets do not say how many parameters they train, because "
        "an older version has made them: the same `bnnas sweep` in another storage.path fills it."
    ]


def _untimed(evidence: Evidence) -> list[str]:
    """Searches by a sum over layers that do not say how long each searcher took."""
    additive = {name for name, indicator in INDICATORS.items() if indicator.additive}
    done = [
        run
        for run in evidence.of("search")
        if run.status == "FINISHED" and run.params.get("search.indicator") in additive
    ]
    if not done:
        return [
            "No search by BN scores is tracked, so exact search and evolution cannot be compared: "
            "`bnnas run experiments/configs/quickstart.yaml` makes one."
        ]
    num = sum("exact/wall_s" not in run.metrics for run in done)
    if not num:
        return []
    return [
        f"{num} of {len(done)} searches do not say how long exact search and evolution took, "
        "because an older version has made them: the same command in another storage.path fills it."
    ]
