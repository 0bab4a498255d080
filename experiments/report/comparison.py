"""Networks beside those that others have published (Table 2).

Only what was trained on ImageNet can stand beside the paper's numbers. What was trained on other
images has a table of its own.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import PurePath

import pandas as pd

from experiments.report.cells import CellGroup, CellSet, cell_sets, is_done
from experiments.report.formats import decimals, millions, percent, plain, size
from experiments.report.published import (
    all_on_imagenet,
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
_ELSEWHERE_NOTE = (
    "A sweep's winner is the cell that does best on the search-validation images, not on the test "
    "images. It is one network of one seed; its setting and the best random architecture are means "
    "over the sweep's seeds ± standard deviation, of which the best random one is chosen by test "
    "top-1, as in the paper."
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
    own = [
        _own_row(group.setting, group.label("space"), group.cells, group.stages)
        for cell_set in sets
        for group in cell_set.groups
        if all_on_imagenet(group.stages["retrain"])
    ]
    own += [
        _own_row(f"given: {texts(rows, 'params.arch').iloc[-1]}", NOTHING, rows, {"retrain": rows})
        for rows in _given(runs)
    ]
    blocks: list[Block] = []
    if own:
        note = (
            "Mean over the seeds ± standard deviation. The search cost of the published rows is in "
            "GPU days."
        )
        blocks.append(Table.of("comparison-own", "Retrained here, on ImageNet", own, note))
        blocks.append(_published_table(own))
        retrained = runs.of_kind("retrain")
        released = _released_table(set(texts(retrained[on_imagenet(retrained)], "params.arch")))
        blocks += [released] if released.rows else []
    elsewhere: dict[tuple[str, str], dict[str, Entry]] = {}
    for cell_set in sets:  # sweeps before cells that were run alone
        where = (_images(cell_set), cell_set.label("space"))
        is_imagenet = all_on_imagenet(runs.inputs(cell_set.cells, "retrain"))
        if where in elsewhere or not cell_set.groups or is_imagenet:
            continue
        if (chosen := _winner(cell_set)) is not None:
            elsewhere[where] = _elsewhere_row(cell_set, *chosen)
    if elsewhere:
        title = "Found here on other images: not to be compared with ImageNet"
        rows = elsewhere.values()
        blocks.append(Table.of("comparison-elsewhere", title, rows, _ELSEWHERE_NOTE))
    title = "Comparison with published networks" if own else "The best networks"
    return Section("comparison", title, "Table 2", tuple(blocks), "" if own else _MISSING)


def _given(runs: Runs) -> list[pd.DataFrame]:
    """Retrainings on ImageNet that belong to no group, such as that of a detector's backbone."""
    rows = runs.of_kind("retrain")
    searched = set(texts(runs.of_kind("cell"), "input.retrain"))
    is_given = ~rows.index.isin(searched) & ~rows["parent_run_id"].isin(runs.frame.index)
    rows = rows[is_given & is_done(rows) & on_imagenet(rows)]
    return grouped(rows, lambda run_id: runs.params(run_id, ("seed",)))


def _own_row(
    setting: str, space: str, results: pd.DataFrame, stages: Mapping[str, pd.DataFrame]
) -> dict[str, Entry]:
    """A network that was retrained here, its seeds as one."""
    retrained, none = stages["retrain"], results[:0]
    supernets, searches = (stages.get(kind, none) for kind in ("supernet", "search"))
    return {
        "trained/ranked/epochs": setting,
        "space": space,
        "seeds": str(len(results)),
        "retrained (epochs)": str(texts(retrained, "params.retrain.epochs").iloc[0]),
        "test top-1 (%)": average(results, "top1", percent),
        "test images": average(retrained, "num_test_images", plain),
        "FLOPs (M)": average(results, "flops", millions),
        "params (M)": average(results, "params", millions),
        "supernet (device-h)": average(supernets, "device_hours", decimals(2)),
        "search (device-h)": average(searches, "device_hours", decimals(4)),
    }


def _published_table(own: list[dict[str, Entry]]) -> Table:
    """The paper's Table 2, and for what torchvision has what is counted here."""
    measured = [
        {
            "network": f"here: {row['trained/ranked/epochs']}",
            "top1": row["test top-1 (%)"],
            "params": row["params (M)"],
            "flops": row["FLOPs (M)"],
        }
        for row in own
    ]
    note = (
        "Counted here is torchvision's network at 224×224: multiply-adds of convolutions and "
        "linear layers."
    )
    return published_table("table_2", "comparison-published", _TABLE_2, measured, note)


def _released_table(retrained: Container[str]) -> Table:
    """Which of the authors' released architectures were retrained here, by our cost tables."""
    rows = []
    for row in published("released")["rows"]:
        if row["arch"] not in retrained:
            continue
        space, arch = load_space(row["space"]), parse_architecture(row["arch"])
        entries: dict[str, Entry] = {"architecture": row["arch"], "space": row["space"]}
        for cost, heading in (("flops", "FLOPs (M)"), ("params", "params (M)")):
            here = Number(COST_TABLES[cost](space).of(arch), millions)
            entries[f"{heading}, computed here"] = here
            entries[f"{heading}, published"] = quoted(row[cost])
        rows.append(entries)
    note = (
        "The authors count (2·in − 1)·out operations for the classifier's linear layer instead of "
        "its multiply-adds, which is 1.7 M more."
    )
    title = "The architectures that the authors have released, and that were retrained here"
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
