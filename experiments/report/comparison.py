"""Networks beside those that others have published (Table 2).

Only what was trained on ImageNet can stand beside the paper's numbers. What was trained on other
images has a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

import pandas as pd

from experiments.report.cells import CellGroup, CellSet, cell_sets, is_done
from experiments.report.formats import decimals, millions, percent, plain, size
from experiments.report.published import (
    all_on_imagenet,
    counted,
    on_imagenet,
    published,
    published_table,
    quoted,
)
from experiments.report.run_table import Runs, average, grouped, mean_value, texts, value
from experiments.report.tables import NOTHING, Block, Entry, Number, Section, Table
from nas.cost import COST_TABLES
from nas.space import load_space, parse_architecture
from orchestration.tracking.reader import TrackedRun

_MISSING = (
    "`bnnas run experiments/configs/imagenet_spos.yaml --set data.root=IMAGENET` retrains a "
    "network that stands beside the published ones."
)
_TABLE_2 = {
    "network": "network",
    "top1": "top-1 (%)",
    "params": "params (M)",
    "flops": "FLOPs (M)",
    "days": "search cost (GPU days)",
    "method": "search method",
    "images": "searched on",
    "counted_params": "params (M), counted here",
    "counted_flops": "FLOPs (M), counted here",
}


def comparison_section(runs: Runs) -> Section:
    """Own networks on ImageNet among the published ones, and the best ones on other images."""
    sets = cell_sets(runs)
    blocks: list[Block] = []
    own = [
        _Own(group.setting, group.label("space"), group.cells, group.stages["retrain"], group)
        for cell_set in sets
        for group in cell_set.groups
        if all_on_imagenet(runs, group.stages["retrain"].index)
    ]
    own += _given(runs)
    if own:
        note = (
            "Mean over the seeds ± standard deviation. The search cost of the published rows is in "
            "GPU days."
        )
        title = "Retrained here, on ImageNet"
        blocks.append(Table.of("comparison-own", title, map(_own_row, own), note))
        blocks += [_published_table(own), released_table()]

    def is_imagenet(cell_set: CellSet) -> bool:
        return all_on_imagenet(runs, runs.inputs(cell_set.cells, "retrain").index)

    elsewhere: dict[tuple[str, str], dict[str, Entry]] = {}
    for cell_set in sets:  # sweeps before cells that were run alone
        where = (_images(cell_set), cell_set.label("space"))
        if where in elsewhere or not cell_set.groups or is_imagenet(cell_set):
            continue
        if (chosen := _winner(cell_set)) is not None:
            elsewhere[where] = _elsewhere_row(cell_set, *chosen)
    if elsewhere:
        blocks.append(_elsewhere_table(list(elsewhere.values())))
    title = "Comparison with published networks" if own else "The best networks"
    return Section("comparison", title, "Table 2", tuple(blocks), "" if own else _MISSING)


class _Own(NamedTuple):
    """A network that was retrained here, its seeds as one; without a group no search chose it."""

    setting: str
    space: str
    results: pd.DataFrame
    retrained: pd.DataFrame
    group: CellGroup | None


def _given(runs: Runs) -> list[_Own]:
    """Retrainings on ImageNet that belong to no group, such as that of a detector's backbone."""
    rows = runs.of_kind("retrain")
    searched = set(texts(runs.of_kind("cell"), "input.retrain"))
    rows = rows[~rows.index.isin(searched) & ~rows["parent_run_id"].isin(runs.frame.index)]
    rows = rows[is_done(rows)]
    rows = rows.loc[[run_id for run_id in rows.index if on_imagenet(runs.by_id[run_id])]]
    return [
        _Own(f"given: {texts(own, 'params.arch').iloc[-1]}", NOTHING, own, own, None)
        for own in grouped(rows, lambda run_id: runs.params(run_id, ("seed",)))
    ]


def _own_row(own: _Own) -> dict[str, Entry]:
    none = own.results[:0]
    supernets, searches = (
        none if own.group is None else own.group.stages[kind] for kind in ("supernet", "search")
    )
    return {
        "trained/ranked/epochs": own.setting,
        "space": own.space,
        "seeds": str(len(own.results)),
        "retrained (epochs)": str(texts(own.retrained, "params.retrain.epochs").iloc[0]),
        "test top-1 (%)": average(own.results, "top1", percent),
        "test images": average(own.retrained, "num_test_images", plain),
        "FLOPs (M)": average(own.results, "flops", millions),
        "params (M)": average(own.results, "params", millions),
        "supernet (device-h)": average(supernets, "device_hours", decimals(2)),
        "search (device-h)": average(searches, "device_hours", decimals(4)),
    }


def _published_table(own: list[_Own]) -> Table:
    """The paper's Table 2, and for what torchvision has what is counted here."""
    measured: list[Mapping[str, Entry]] = [
        {
            "network": f"here: {each.setting}",
            "top1": average(each.results, "top1", percent),
            "params": average(each.results, "params", millions),
            "flops": average(each.results, "flops", millions),
        }
        for each in own
    ]
    note = (
        "Counted here is torchvision's network at 224×224: multiply-adds of convolutions and "
        "linear layers."
    )
    extra = [
        {f"counted_{cost}": counted(row["network"], cost, millions) for cost in ("params", "flops")}
        for row in published("table_2")["rows"]
    ]
    return published_table("table_2", "comparison-published", _TABLE_2, measured, note, extra)


def released_table() -> Table:
    """The architectures that the authors have released, by this program's cost tables."""
    rows = []
    for row in published("released")["rows"]:
        space, arch = load_space(row["space"]), parse_architecture(row["arch"])
        cells: dict[str, Entry] = {"architecture": row["arch"], "space": row["space"]}
        for cost, heading in (("flops", "FLOPs (M)"), ("params", "params (M)")):
            here = Number(COST_TABLES[cost](space).of(arch), millions)
            cells[f"{heading}, computed here"] = here
            cells[f"{heading}, published"] = quoted(row[cost])
        rows.append(cells)
    note = (
        "The authors count (2·in − 1)·out operations for the classifier's linear layer instead of "
        "its multiply-adds, which is 1.7 M more."
    )
    title = "The architectures that the authors have released"
    return Table.of("comparison-released", title, rows, note)


def _images(cell_set: CellSet) -> str:
    """The data set; a folder of images by its name."""
    data = cell_set.label("data")
    roots = texts(cell_set.runs.inputs(cell_set.cells, "retrain"), "params.data.root")
    is_folder = data == "imagefolder" and len(roots) > 0
    return f"{data} {PurePath(roots.iloc[0]).name}" if is_folder else data


def _winner(cell_set: CellSet) -> tuple[TrackedRun, CellGroup] | None:
    """The cell that a sweep names as its winner, or the newest of those that were run alone."""
    done = [
        (cell_set.runs.by_id[run_id], group)
        for group in cell_set.groups
        for run_id in group.cells.index
    ]
    if cell_set.sweep is None:
        return max(done, key=lambda pair: pair[0].started_at)
    winner = cell_set.sweep.params.get("winner")
    return next((pair for pair in done if winner == pair[0].name), None)


def _elsewhere_row(cell_set: CellSet, cell: TrackedRun, group: CellGroup) -> dict[str, Entry]:
    retrained = cell_set.runs.input(cell.run_id, "retrain")
    return {
        "data": _images(cell_set),
        "space": cell_set.label("space"),
        "from": f"sweep {cell_set.name}" if cell_set.sweep else "run alone",
        "cell": cell.name,
        "trained/ranked/epochs": group.setting,
        "seed": cell.params.get("seed", ""),
        "architecture": cell.params.get("winner", ""),
        "search-validation top-1 (%)": value(retrained, "val/top1", percent),
        "test top-1 (%)": value(cell, "top1", percent),
        "test images": value(retrained, "num_test_images", plain),
        "its setting over seeds (%)": average(group.cells, "top1", percent),
        "best random (%)": mean_value(cell_set.sweep or cell, "random_baseline", percent),
        "FLOPs": value(cell, "flops", size),
        "params": value(cell, "params", size),
    }


def _elsewhere_table(rows: list[dict[str, Entry]]) -> Table:
    note = (
        "A sweep's winner is the cell that does best on the search-validation images, not on the "
        "test images. It is one network of one seed; its setting and the best random architecture "
        "are means over the sweep's seeds ± standard deviation, of which the best random one is "
        "chosen by test top-1, as in the paper."
    )
    title = "Found here on other images: not to be compared with ImageNet"
    return Table.of("comparison-elsewhere", title, rows, note)
