"""The ablation: test top-1 of what each cell's search chose (section 4.5.1, Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.figures.ablation import ablation_figure
from experiments.report.cells import CellSet, cell_sets, is_done, listed
from experiments.report.formats import percent, plain, size
from experiments.report.run_table import Runs, mean_value, numbers, texts, value
from experiments.report.tables import (
    MOST_PICTURES,
    NOTHING,
    Block,
    Entry,
    Number,
    Picture,
    Section,
    Table,
    mean_std,
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

# What trains, for how many epochs, and the values of any further axes of the sweep.
Setting = tuple[str, int, tuple[str, ...]]


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
    grid = _grid(cell_set)
    if cell_set.num_finished and grid:
        table = _ablation_table(cell_set, sweep, grid)
        blocks += [_picture(sweep, title, table, list(grid)), table] if draw else [table]
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


def _grid(cell_set: CellSet) -> dict[Setting, dict[str, pd.DataFrame]]:
    """Setting → indicator → the cells of all seeds, finished or not."""
    cells = cell_set.cells[texts(cell_set.cells, "params.epochs").str.isdecimal()]
    axes = [
        texts(cells, "params.trainable").replace("", "?"),
        texts(cells, "params.epochs").astype(int),
        texts(cells, "params.indicator").replace("", "?"),
        *(texts(cells, f"params.{path}") for path in _further_axes(cell_set)),
    ]
    grid: dict[Setting, dict[str, pd.DataFrame]] = {}
    for (trainable, epochs, indicator, *further), group in cells.groupby(axes):
        grid.setdefault((trainable, int(epochs), tuple(further)), {})[indicator] = group
    return grid


def _further_axes(cell_set: CellSet) -> list[str]:
    """Config paths that a sweep varies beside those that have names of their own."""
    params = {} if cell_set.sweep is None else cell_set.sweep.params
    axes = [name.removeprefix("grid.") for name in params if name.startswith("grid.")]
    return [axis for axis in axes if axis not in ("trainable", "indicator", "epochs")]


def _has_seeds(cell_set: CellSet) -> bool:
    return int(texts(cell_set.cells, "params.seed").nunique()) > 1


def _top1(cell_set: CellSet, group: pd.DataFrame) -> Entry:
    """Over seeds; in a sweep of one seed with the standard error that its test images leave."""
    done = group[is_done(group)]
    mean = mean_std(numbers(done, "top1"), percent)
    if isinstance(mean, str):
        return _why_not(group)
    if _has_seeds(cell_set):
        return mean
    error = _standard_error(cell_set.runs, cell_set.runs.by_id[done.index[0]])
    return Number(mean.value, percent, error)


def _standard_error(runs: Runs, cell: TrackedRun) -> float | None:
    """Of a cell's test top-1; None where it is not known on how many images."""
    retrained = runs.input(cell.run_id, "retrain")
    num_images = 0.0 if retrained is None else retrained.metrics.get("num_test_images", 0.0)
    top1 = cell.metrics["top1"]
    return _binomial(top1, num_images) if num_images >= 1 and 0 <= top1 <= 1 else None


def _why_not(group: pd.DataFrame) -> str:
    """What stands where a number is missing."""
    if not len(group):
        return NOTHING
    if group["status"].isin(_ENDED_EARLY).all():
        return "failed"
    return "not finite" if (group["status"] == "FINISHED").all() else "not yet"


def _ablation_table(
    cell_set: CellSet, sweep: TrackedRun, grid: Mapping[Setting, Mapping[str, pd.DataFrame]]
) -> Table:
    """Setting and indicator as in the paper; how many seeds each mean has, where they differ."""
    indicators = sorted({name for row in grid.values() for name in row})
    several = _has_seeds(cell_set)
    note = "± is one standard error."
    if several:
        num_seeds = texts(cell_set.cells, "params.seed").nunique()
        note = f"Mean over {num_seeds} seeds ± standard deviation."
    rows: list[dict[str, Entry]] = []
    further_axes = _further_axes(cell_set)
    for (trainable, epochs, further), by_indicator in grid.items():
        row: dict[str, Entry] = {"supernet trains": trainable, "epochs": str(epochs)}
        row |= zip(further_axes, further, strict=True)
        finished = []
        for indicator in indicators:
            group = by_indicator.get(indicator, cell_set.cells[:0])
            row[_RANKED + indicator] = _top1(cell_set, group) if len(group) else NOTHING
            finished.append(f"{is_done(group).sum()} of {len(group)}")
        rows.append({**row, "seeds finished": ", ".join(finished)})
    counts = {each for row in rows for each in str(row["seeds finished"]).split(", ")}
    done, _, asked = next(iter(counts)).partition(" of ")
    if len(counts) == 1 and done == asked:
        for row in rows:
            del row["seeds finished"]
    for metric, heading, meaning in (
        ("random_baseline", "best random", "the best of them by test top-1"),
        ("random_top1", "any random", "all of them"),
    ):
        cell = mean_value(sweep, metric, percent)
        if cell != NOTHING:
            note += f" {heading.capitalize()}: of the sweep's random architectures {meaning}."
            rows = [{**row, heading: cell} for row in rows]
    title = f"{sweep.name}: test top-1 in percent"
    brief = ("supernet trains", "epochs", *further_axes, *(_RANKED + name for name in indicators))
    return Table.of(f"ablation-{sweep.name}", title, rows, note, brief=brief)


def _picture(sweep: TrackedRun, title: str, table: Table, settings: Sequence[Setting]) -> Picture:
    bars = {}
    for (trainable, epochs, further), row in zip(settings, table.rows, strict=True):
        cells = dict(zip(table.columns, row, strict=True))
        bars[" ".join([trainable, str(epochs), *further])] = {
            heading.removeprefix(_RANKED): cell.mean
            for heading, cell in cells.items()
            if heading.startswith(_RANKED) and isinstance(cell, Number)
        }
    best = mean_value(sweep, "random_baseline", percent)
    baseline = None if isinstance(best, str) else best.mean
    readings = [
        f"{setting} ranked by {indicator} {100 * bar.value:.1f} ± {100 * bar.spread:.1f}"
        for setting, row in bars.items()
        for indicator, bar in row.items()
    ]
    return Picture(
        f"ablation-{sweep.name}",
        f"{title}, test top-1 of the retrained networks",
        f"Bars of test top-1 in percent: {', '.join(readings)}; random baseline {best}.",
        lambda: ablation_figure(bars, baseline, sweep.params.get("num_random", "")),
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
        listed(texts(cell_set.cells, f"params.{axis}"))
        for axis in ("trainable", "indicator", "epochs", "seed")
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
    return asked, answer, *_beside(sweep or cell), *_certainty(cell_set, cell)


def _beside(run: TrackedRun) -> list[str]:
    """The random baseline, if there is one."""
    best, any_one = (mean_value(run, f"random_{which}", percent) for which in ("baseline", "top1"))
    if best == NOTHING:
        return []
    mean = "" if any_one == NOTHING else f", and the mean of all {any_one} %"
    return [f"Beside it: the best of the random architectures has {best} %{mean}."]


def _certainty(cell_set: CellSet, cell: TrackedRun) -> list[str]:
    """How much of a difference means nothing, and whether what was found is more than chance."""
    retrained = cell_set.runs.input(cell.run_id, "retrain")
    if retrained is None or (error := _standard_error(cell_set.runs, cell)) is None:
        return []
    images = f"{value(retrained, 'num_test_images', plain)} test images"
    sentence = f"How sure: on {images} one standard error of top-1 is ±{percent(error)} points"
    if cell_set.sweep is not None:
        tops = [
            _top1(cell_set, group) for row in _grid(cell_set).values() for group in row.values()
        ]
        known = [top1 for top1 in tops if isinstance(top1, Number)]
        best = cell_set.sweep.metrics.get("random_baseline", math.inf)
        above = sum(top1.value > best + 2 * top1.mean.spread for top1 in known)
        spread = "standard deviations over seeds" if _has_seeds(cell_set) else "of these"
        sentence += (
            f"; {above} of {len(known)} settings lie more than two {spread} above the best random "
            "architecture"
        )
    num_classes = int(retrained.params.get("space.input.num_classes", "0") or 0)
    if num_classes and _is_chance(cell.metrics["top1"], retrained, num_classes):
        sentence += (
            f"; that is chance for {num_classes} classes, so train longer before reading anything "
            "into it"
        )
    if skipped := retrained.metrics.get("num_skipped"):
        sentence += f"; {skipped:.0f} unreadable images were left out"
    return [f"{sentence}."]


def _is_chance(top1: float, retrained: TrackedRun, num_classes: int) -> bool:
    share = 1 / num_classes
    return top1 <= share + 2 * _binomial(share, retrained.metrics["num_test_images"])


def _binomial(top1: float, num_images: float) -> float:
    """The standard error of a share of so many images."""
    return math.sqrt(top1 * (1 - top1) / num_images)
