"""The ablation: test top-1 of what each cell's search chose (section 4.5.1, Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from experiments.config.load import AXES
from experiments.figures.ablation import ablation_figure
from experiments.report.cells import CellSet, cell_sets, is_done, listed
from experiments.report.formats import percent, plain, size
from experiments.report.run_table import Runs, average, mean_value, texts, value
from experiments.report.tables import (
    MOST_PICTURES,
    NOTHING,
    Block,
    Entry,
    Number,
    Picture,
    Section,
    Table,
)
from orchestration.tracking.reader import TrackedRun
from orchestration.tracking.tracker import CELL

_MISSING = "`bnnas run experiments/configs/ablation_quickstart.yaml` makes a small ablation."
_MOST_ROWS = 12  # of cells, that the page shows unfolded
_RANKED = "ranked by "  # before an indicator, in the headings
_RULE = (
    "The winner of a sweep is the cell with the best top-1 on the search-validation images; of "
    "equal ones that with the lower loss there, then that with fewer FLOPs."
)
_ENDED_EARLY = ("FAILED", "KILLED")


def ablation_section(runs: Runs) -> Section:
    """Every sweep, the newest first, and then the cells that were run on their own."""
    blocks: list[Block] = []
    sets = cell_sets(runs)
    for place, cell_set in enumerate(sets):
        if cell_set.sweep is not None:
            blocks += _sweep(cell_set, cell_set.sweep, draw=place < MOST_PICTURES)
        else:
            space = cell_set.label("space")
            title = f"{space} on {cell_set.label('data')}, cells that were run on their own"
            blocks.append(_cells_table(f"cells-{space}", title, cell_set))
    return Section(
        "ablation",
        "Ablation: what trains, what ranks, for how long",
        "Fig. 5",
        tuple(blocks),
        "" if any(each.sweep for each in sets) else _MISSING,
        _summary(sets[0]) if sets and sets[0].num_finished else (),
    )


def _sweep(cell_set: CellSet, sweep: TrackedRun, *, draw: bool) -> list[Block]:
    """The figure and the tables of a sweep."""
    title = f"{sweep.name}: {cell_set.label('space')} on {cell_set.label('data')}"
    blocks: list[Block] = []
    top1s, finished = _by_setting(cell_set)
    if cell_set.num_finished and len(top1s):
        if draw:
            blocks.append(_picture(sweep, title, top1s))
        blocks.append(_ablation_table(cell_set, sweep, top1s, finished))
    blocks.append(_cells_table(f"cells-{sweep.name}", f"{title}, cells", cell_set))
    if failures := _failures(cell_set, sweep):
        blocks.append(failures_table(failures, f"failed-{sweep.name}"))
    return blocks


def failures_table(failures: Mapping[str, str], name: str = "failed") -> Table:
    """What failed, by name, and why."""
    rows: list[Mapping[str, Entry]] = [{"what": k, "why": why} for k, why in failures.items()]
    note = "The same command tries again what failed, and nothing else."
    return Table.of(name, "What failed", rows, note)


def _failures(cell_set: CellSet, sweep: TrackedRun) -> dict[str, str]:
    """The cells that ended early, and the stages outside of cells that did."""
    frame = cell_set.runs.frame
    unfinished = frame[
        (frame["parent_run_id"] == sweep.run_id) & frame["status"].isin(_ENDED_EARLY)
    ]
    failed_runs = [cell_set.runs.by_id[run_id] for run_id in unfinished.index]
    cells = set(cell_set.cells["name"])
    return {
        run.name: run.error or run.status.lower()
        for run in failed_runs
        if run.kind == "cell" or run.tags.get(CELL, run.name) not in cells
    }


def _by_setting(cell_set: CellSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Top-1 by setting (rows) and indicator (columns), and how many cells of each are finished.

    A setting is what trains, for how many epochs, and the values of any further axes of the sweep.
    """
    cells = cell_set.cells[texts(cell_set.cells, "params.epochs").str.isdecimal()]
    params = {} if cell_set.sweep is None else cell_set.sweep.params
    axes = [name.removeprefix("grid.") for name in params if name.startswith("grid.")]
    keys = {
        "supernet trains": texts(cells, "params.trainable").replace("", "?"),
        "epochs": texts(cells, "params.epochs").astype(int),
        **{axis: texts(cells, f"params.{axis}") for axis in axes if axis not in AXES},
        "indicator": texts(cells, "params.indicator").replace("", "?"),
    }
    groups = dict(iter(cells.groupby([key.rename(name) for name, key in keys.items()])))
    index = pd.MultiIndex.from_tuples(list(groups), names=list(keys))
    entries = [_top1(cell_set, group) for group in groups.values()]
    counts = [f"{is_done(group).sum()} of {len(group)}" for group in groups.values()]
    top1s, finished = (pd.Series(each, index, dtype=object).unstack() for each in (entries, counts))
    return top1s.where(top1s.notna(), NOTHING), finished.where(finished.notna(), "0 of 0")


def _top1(cell_set: CellSet, group: pd.DataFrame) -> Entry:
    """Over seeds; in a sweep of one seed with the standard error that its test images leave."""
    done = group[is_done(group)]
    top1 = average(done, "top1", percent)
    if isinstance(top1, str):
        return _why_not(group)
    if cell_set.num_seeds > 1:
        return top1
    error = _standard_error(cell_set.runs, cell_set.runs.by_id[done.index[0]])
    return Number(top1.value, percent, error)


def _standard_error(runs: Runs, cell: TrackedRun) -> float | None:
    """Of a cell's test top-1; None where it is not known on how many images."""
    retrained = runs.input(cell.run_id, "retrain")
    num_images = 0.0 if retrained is None else retrained.metrics.get("num_test_images", 0.0)
    top1 = cell.metrics["top1"]
    return _binomial(top1, num_images) if num_images >= 1 and 0 <= top1 <= 1 else None


def _why_not(group: pd.DataFrame) -> str:
    """What stands where a number is missing."""
    if group["status"].isin(_ENDED_EARLY).all():
        return "failed"
    return "not finite" if (group["status"] == "FINISHED").all() else "not yet"


def _ablation_table(
    cell_set: CellSet, sweep: TrackedRun, top1s: pd.DataFrame, finished: pd.DataFrame
) -> Table:
    """Setting and indicator as in the paper; how many seeds each mean has, where they differ."""
    note = "± is one standard error."
    if cell_set.num_seeds > 1:
        note = f"Mean over {cell_set.num_seeds} seeds ± standard deviation."
    shown = top1s.add_prefix(_RANKED)
    brief = (*shown.index.names, *shown.columns)
    done, _, asked = finished.iloc[0, 0].partition(" of ")
    if done != asked or (finished != finished.iloc[0, 0]).any(axis=None):
        shown = shown.assign(**{"seeds finished": finished.agg(", ".join, axis=1)})
    for metric, heading, meaning in (
        ("random_baseline", "best random", "the best of them by test top-1"),
        ("random_top1", "any random", "all of them"),
    ):
        entry = mean_value(sweep, metric, percent)
        if entry != NOTHING:
            note += f" {heading.capitalize()}: of the sweep's random architectures {meaning}."
            shown = shown.assign(**{heading: entry})
    rows = shown.reset_index().astype({"epochs": str}).to_dict("records")
    title = f"{sweep.name}: test top-1 in percent"
    return Table.of(f"ablation-{sweep.name}", title, rows, note, brief=brief)


def _picture(sweep: TrackedRun, title: str, top1s: pd.DataFrame) -> Picture:
    bars = {
        " ".join(map(str, setting)): {
            indicator: entry.mean for indicator, entry in row.items() if isinstance(entry, Number)
        }
        for setting, row in top1s.iterrows()
    }
    best = mean_value(sweep, "random_baseline", percent)
    readings = [
        f"{setting} ranked by {indicator} {100 * bar.value:.1f} ± {100 * bar.spread:.1f}"
        for setting, row in bars.items()
        for indicator, bar in row.items()
    ]
    return Picture(
        f"ablation-{sweep.name}",
        f"{title}, test top-1 of the retrained networks",
        f"Bars of test top-1 in percent: {', '.join(readings)}; random baseline {best}.",
        lambda: ablation_figure(
            bars, None if isinstance(best, str) else best.mean, sweep.params.get("num_random", "")
        ),
    )


def _cells_table(name: str, title: str, cell_set: CellSet) -> Table:
    """What every cell found; of one that found nothing, why."""
    rows: list[dict[str, Entry]] = []
    for run_id in cell_set.cells.index:
        cell, retrained = cell_set.runs.by_id[run_id], cell_set.runs.input(run_id, "retrain")
        winner = cell.params.get("winner") or (retrained and retrained.params.get("arch"))
        rows.append(
            {
                "cell": cell.name,
                "seed": cell.params.get("seed", ""),
                "architecture": winner or _why_not(cell_set.cells.loc[[run_id]]),
                "FLOPs": value(cell, "flops", size),
                "params": value(cell, "params", size),
                "test top-1 (%)": value(cell, "top1", percent),
                "validation top-1 (%)": value(cell, "val_top1", percent),
                "best random": value(cell, "random_baseline", percent),
            }
        )
    # Where several seeds are, the names of cells have them.
    brief = ("cell", "architecture", "FLOPs", "params", "test top-1 (%)", "best random")
    table = Table.of(name, title, rows, _RULE, folded=len(rows) > _MOST_ROWS, brief=brief)
    has_random = any(cell != NOTHING for cell in table.column("best random"))
    return table if has_random else table.without("best random")


def _summary(cell_set: CellSet) -> tuple[str, ...]:
    """What was asked, what was found, and how sure that is."""
    runs, sweep = cell_set.runs, cell_set.sweep
    trainables, indicators, epochs, seeds = (
        listed(texts(cell_set.cells, f"params.{axis}")) for axis in (*AXES, "seed")
    )
    where = f"in the space {cell_set.label('space')} on {cell_set.label('data')}"
    num_cells = "one cell" if len(cell_set.cells) == 1 else f"{len(cell_set.cells)} cells"
    asked = (
        "Asked: what a supernet should train, for how long, and what should rank the networks in "
        f"it, by {num_cells} {where} ({trainables} trained for {epochs} epochs, "
        f"ranked by {indicators}, seed {seeds})."
    )
    best = sweep.params.get("winner") if sweep else None
    done = cell_set.cells[is_done(cell_set.cells)]
    named = done[done["name"] == best] if best else done
    if not len(named):
        return (asked,)
    cell = runs.by_id[named.index[0]]
    answer = (
        f"Found: {cell.params.get('winner')} ({cell.name}"
        f"{', the best cell on the search-validation images' if sweep else ''}), "
        f"with {value(cell, 'flops', size)} FLOPs and {value(cell, 'params', size)} parameters: "
        f"{value(cell, 'top1', percent)} % test top-1."
    )
    any_one, best_one = (
        mean_value(sweep or cell, f"random_{which}", percent) for which in ("top1", "baseline")
    )
    of_all = "" if any_one == NOTHING else f", and the mean of all {any_one} %"
    beside = f"Beside it: the best of the random architectures has {best_one} %{of_all}."
    return asked, answer, *([] if best_one == NOTHING else [beside]), *_certainty(cell_set, cell)


def _certainty(cell_set: CellSet, cell: TrackedRun) -> list[str]:
    """How much of a difference means nothing, and whether what was found is more than chance."""
    retrained = cell_set.runs.input(cell.run_id, "retrain")
    if retrained is None or (error := _standard_error(cell_set.runs, cell)) is None:
        return []
    images = f"{value(retrained, 'num_test_images', plain)} test images"
    parts = [f"How sure: on {images} one standard error of top-1 is ±{percent(error)} points"]
    if cell_set.sweep is not None:
        top1s = _by_setting(cell_set)[0].to_numpy().ravel()
        known = [top1.mean for top1 in top1s if isinstance(top1, Number)]
        best = cell_set.sweep.metrics.get("random_baseline", math.inf)
        above = sum(top1.value > best + 2 * top1.spread for top1 in known)
        spread = "standard deviations over seeds" if cell_set.num_seeds > 1 else "of these"
        parts.append(
            f"{above} of {len(known)} settings lie more than two {spread} above the best random "
            "architecture"
        )
    num_classes = int(retrained.params.get("space.input.num_classes", "0") or 0)
    chance = 1 / (num_classes or math.inf)
    error = _binomial(chance, retrained.metrics["num_test_images"])
    if num_classes and cell.metrics["top1"] <= chance + 2 * error:
        parts.append(
            f"that is chance for {num_classes} classes, so train longer before reading anything "
            "into it"
        )
    if skipped := retrained.metrics.get("num_skipped"):
        parts.append(f"{skipped:.0f} unreadable images were left out")
    return ["; ".join(parts) + "."]


def _binomial(top1: float, num_images: float) -> float:
    """The standard error of a share of so many images."""
    return math.sqrt(top1 * (1 - top1) / num_images)
