"""The comparison section: networks beside those that others have published (Table 2).

Only what was trained on ImageNet can stand beside the paper's numbers. What was trained on other
images has a table of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from experiments.report.evidence.cell_groups import CellGroup, CellSet, average, cell_sets, is_done
from experiments.report.evidence.evidence import Evidence, tracked, tracked_mean_std
from experiments.report.evidence.gaps import SWEEP
from experiments.report.evidence.published import counted, published, quoted
from experiments.report.evidence.units import decimals, millions, percent, plain, size
from experiments.report.evidence.values import NOTHING, Block, Cell, Derived, Number, Section, Table
from nas.cost import COST_TABLES
from nas.space import load_space, parse_architecture
from orchestration.tracking.reader import TrackedRun

_COMMAND = "bnnas run experiments/configs/imagenet_spos.yaml --set data.root=IMAGENET"
_IMAGENET, _NUM_CLASSES = "ImageNet", 1000


def comparison_section(evidence: Evidence) -> Section:
    """Own networks on ImageNet, what is published, what was counted again, and other images."""
    blocks: list[Block] = []
    missing: list[str] = []
    found = cell_sets(evidence)
    own = [*_searched_rows(found), *_other_rows(evidence)]
    if own:
        blocks.append(_own_table(own))
    else:
        missing.append(
            "No network was retrained on ImageNet (data imagefolder with 1,000 classes), so that "
            f"no measured accuracy stands beside Table 2: `{_COMMAND}` fills it."
        )
    blocks += [_released_table(), _published_table()]
    elsewhere = _elsewhere_rows(evidence, found)
    if elsewhere:
        blocks.append(_elsewhere_table(elsewhere))
    else:
        missing.append(f"No sweep and no cell on other images is finished: `{SWEEP}` makes one.")
    title = "Comparison with published networks"
    return Section("comparison", title, "Table 2", tuple(blocks), tuple(missing))


def _on_imagenet(run: TrackedRun) -> bool:
    return run.params.get("data.name") == "imagefolder" and run.params.get(
        "space.input.num_classes"
    ) == str(_NUM_CLASSES)


def _searched_rows(found: Sequence[CellSet]) -> list[tuple[Cell, ...]]:
    """Of cells that were retrained on ImageNet; seeds as one."""
    return [
        (
            f"{group.trains}/{group.label('indicator')}/{group.label('epochs')}",
            group.label("space"),
            *_measured(group.cells, group.stages["retrain"]),
            average(group.stages["supernet"], "device_hours", decimals(2)),
            average(group.stages["search"], "device_hours", decimals(4)),
        )
        for cell_set in found
        for group in cell_set.groups
        if group.stages["retrain"] and all(map(_on_imagenet, group.stages["retrain"]))
    ]


def _other_rows(evidence: Evidence) -> list[tuple[Cell, ...]]:
    """Of retrainings on ImageNet that belong to no group, such as that of a detector's backbone."""
    searched = {cell.inputs.get("retrain") for cell in evidence.of("cell")}
    by_config: dict[frozenset[tuple[str, str]], list[TrackedRun]] = {}
    for run in evidence.of("retrain"):
        alone = run.run_id not in searched and run.parent_run_id not in evidence.by_id
        if alone and is_done(run) and _on_imagenet(run):
            same = frozenset(pair for pair in run.params.items() if pair[0] != "seed")
            by_config.setdefault(same, []).append(run)
    return [
        (
            f"given: {runs[-1].params.get('arch', '')}",
            NOTHING,
            *_measured(runs, runs),
            NOTHING,
            NOTHING,
        )
        for runs in by_config.values()
    ]


def _measured(results: Sequence[TrackedRun], retrained: Sequence[TrackedRun]) -> tuple[Cell, ...]:
    """Seeds, epochs of retraining, top-1, test images, FLOPs and parameters."""
    return (
        str(len(results)),
        retrained[0].params.get("retrain.epochs", ""),
        average(results, "top1", percent),
        average(retrained, "num_test_images", plain),
        average(results, "flops", millions),
        average(results, "params", millions),
    )


def _own_table(rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        "comparison-own",
        "Retrained here, on ImageNet",
        (
            "trained/ranked/epochs",
            "space",
            "seeds",
            "retrained (epochs)",
            "test top-1 (%)",
            "test images",
            "FLOPs (M)",
            "params (M)",
            "supernet (device-h)",
            "search (device-h)",
        ),
        tuple(rows),
        "Mean over the seeds ± standard deviation. The search cost of the published rows is in GPU "
        "days.",
    )


def _released_table() -> Table:
    """The architectures that the authors have released, by this program's cost tables."""
    released = published("released")
    rows: list[tuple[Cell, ...]] = []
    for row in released.rows:
        space, arch = load_space(row["space"]), parse_architecture(row["arch"])
        cells: list[Cell] = [row["arch"], row["space"]]
        for cost in ("flops", "params"):
            value = COST_TABLES[cost](space).of(arch)
            rule = f"computed by this program, from the space {row['space']}"
            cells += [
                Number.of(value, millions, Derived(rule)),
                quoted(row[cost], released.source),
            ]
        rows.append(tuple(cells))
    return Table(
        "comparison-released",
        "The architectures that the authors have released",
        (
            "architecture",
            "space",
            "FLOPs (M), computed here",
            "FLOPs (M), published",
            "params (M), computed here",
            "params (M), published",
        ),
        tuple(rows),
        "The authors count (2·in − 1)·out operations for the classifier's linear layer instead of "
        "its multiply-adds, which is 1.7 M more.",
    )


def _published_table() -> Table:
    """The paper's Table 2, and for what torchvision has what is counted here."""
    table = published("table_2")
    fields = ("network", "top1", "params", "flops", "days", "method", "images")
    rows = tuple(
        (
            *cells,
            counted(row["network"], "params", millions) or NOTHING,
            counted(row["network"], "flops", millions) or NOTHING,
        )
        for row, cells in zip(table.rows, table.cells(fields), strict=True)
    )
    return Table(
        "comparison-published",
        f"Published, on ImageNet: {table.source}",
        (
            "network",
            "top-1 (%)",
            "params (M)",
            "FLOPs (M)",
            "search cost (GPU days)",
            "search method",
            "searched on",
            "params (M), counted here",
            "FLOPs (M), counted here",
        ),
        rows,
        "Not measured here. Counted here is torchvision's network at 224×224: multiply-adds of "
        "convolutions and linear layers.",
    )


def _elsewhere_rows(evidence: Evidence, found: Sequence[CellSet]) -> list[tuple[Cell, ...]]:
    """For each data set and space the newest sweep's winner; without a sweep the newest cell."""
    rows: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for cell_set in found:  # sweeps before cells that were run alone
        where = (_images(cell_set), cell_set.space)
        if where in rows or not cell_set.groups or where[0] == _IMAGENET:
            continue
        chosen = _winner(cell_set)
        if chosen is not None:
            rows[where] = _elsewhere_row(evidence, cell_set, *chosen)
    return list(rows.values())


def _images(cell_set: CellSet) -> str:
    """The data set; a folder of images by its name, ImageNet where there are 1,000 classes."""
    retrained = [run for group in cell_set.groups for run in group.stages["retrain"]]
    if cell_set.data != "imagefolder" or not retrained:
        return cell_set.data
    if any(map(_on_imagenet, retrained)):
        return _IMAGENET
    return f"{cell_set.data} {PurePath(retrained[0].params.get('data.root', '')).name}"


def _winner(cell_set: CellSet) -> tuple[TrackedRun, CellGroup] | None:
    """The cell that a sweep names as its winner, or the newest of those that were run alone."""
    done = [(cell, group) for group in cell_set.groups for cell in group.cells]
    if cell_set.sweep is None:
        return max(done, key=lambda pair: pair[0].started_at)
    winner = cell_set.sweep.params.get("winner")
    return next((pair for pair in done if winner == pair[0].name), None)


def _elsewhere_row(
    evidence: Evidence, cell_set: CellSet, cell: TrackedRun, group: CellGroup
) -> tuple[Cell, ...]:
    retrained = evidence.input(cell, "retrain")
    baseline = cell_set.sweep or cell
    made: list[Cell] = [NOTHING, NOTHING]
    if retrained is not None:
        made = [
            tracked(retrained, "val/top1", percent) or NOTHING,
            tracked(retrained, "num_test_images", plain) or NOTHING,
        ]
    validation, num_images = made
    return (
        _images(cell_set),
        cell_set.space,
        f"sweep {cell_set.name}" if cell_set.sweep else "run alone",
        cell.name,
        f"{group.trains}/{group.label('indicator')}/{group.label('epochs')}",
        cell.params.get("seed", ""),
        cell.params.get("winner", ""),
        validation,
        tracked(cell, "top1", percent) or NOTHING,
        num_images,
        average(group.cells, "top1", percent),
        tracked_mean_std(baseline, "random_baseline", percent) or NOTHING,
        tracked(cell, "flops", size) or NOTHING,
        tracked(cell, "params", size) or NOTHING,
    )


def _elsewhere_table(rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        "comparison-elsewhere",
        "Found here on other images: not to be compared with ImageNet",
        (
            "data",
            "space",
            "from",
            "cell",
            "trained/ranked/epochs",
            "seed",
            "architecture",
            "search-validation top-1 (%)",
            "test top-1 (%)",
            "test images",
            "its setting over seeds (%)",
            "best random (%)",
            "FLOPs",
            "params",
        ),
        tuple(rows),
        "A sweep's winner is the cell that does best on the search-validation images, not on the "
        "test images. It is one network of one seed; its setting and the best random architecture "
        "are means over the sweep's seeds ± standard deviation, of which the best random one is "
        "chosen by test top-1, as in the paper.",
    )
