"""The ablation section: test top-1 of what each cell's search chose (section 4.5.1, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.figures.numbers import standard_error
from experiments.report.ablation import Ablation, Setting, Value, ablation_figure
from experiments.report.evidence.cell_groups import CellSet, cell_sets, is_done
from experiments.report.evidence.evidence import Evidence, mean_std, tracked, tracked_mean_std
from experiments.report.evidence.gaps import MOST_PICTURES, SWEEP, again, undrawn
from experiments.report.evidence.units import percent, size
from experiments.report.evidence.values import (
    NOTHING,
    Block,
    Cell,
    Derived,
    MeanStd,
    Number,
    Picture,
    Section,
    Table,
)
from orchestration.tracking.reader import TrackedRun
from orchestration.tracking.tracker import CELL

_ENDED_EARLY = ("FAILED", "KILLED")
_NUM_NAMED = 5  # failures that are told with their reasons

BySetting = dict[Setting, dict[str, list[TrackedRun]]]


def ablation_section(evidence: Evidence) -> Section:
    """Every sweep, the newest first, and then the cells that were run on their own."""
    blocks: list[Block] = []
    missing: list[str] = []
    found = cell_sets(evidence)
    for number, cell_set in enumerate(found):
        if cell_set.sweep is not None:
            missing += _gaps(evidence, cell_set, cell_set.sweep)
            blocks += _sweep(evidence, cell_set, cell_set.sweep, draw=number < MOST_PICTURES)
        else:
            name = f"{cell_set.space} on {cell_set.data}, cells that were run on their own"
            blocks.append(_cells_table(f"cells-{cell_set.space}", name, cell_set.cells, evidence))
    missing += undrawn("older sweeps", sum(cell_set.sweep is not None for cell_set in found))
    shown = {cell_set.sweep.run_id for cell_set in found if cell_set.sweep is not None}
    for sweep in [sweep for sweep in evidence.of("sweep") if sweep.run_id not in shown]:
        missing += [f"The sweep {sweep.name} has no cell yet: {again(sweep)} goes on with it."]
    if not evidence.of("sweep"):
        missing.append(f"No sweep is tracked: `{SWEEP}` makes the ablation.")
    title = "Ablation: what trains, what ranks, for how long"
    return Section("ablation", title, "Fig. 5", tuple(blocks), tuple(missing))


def _sweep(evidence: Evidence, cell_set: CellSet, sweep: TrackedRun, *, draw: bool) -> list[Block]:
    """The figure and the tables of a sweep."""
    title = f"{sweep.name}: {cell_set.space} on {cell_set.data}"
    by_setting = _by_setting(cell_set.cells)
    if not cell_set.num_finished or not by_setting:
        return [f"{title}: no cell has come to its end."]
    several = len({cell.params.get("seed") for cell in cell_set.cells}) > 1
    baseline = tracked_mean_std(sweep, "random_baseline", percent)
    blocks: list[Block] = []
    if draw:
        ablation = _values(evidence, by_setting, sweep, baseline, several=several)
        what = f"{title}, test top-1 of the retrained networks"
        figure = ablation_figure(ablation)
        blocks.append(Picture(f"ablation-{sweep.name}", what, _alt(ablation), figure))
    blocks.append(_ablation_table(evidence, sweep, by_setting, baseline, several=several))
    blocks.append(_cells_table(f"cells-{sweep.name}", f"{title}, cells", cell_set.cells, evidence))
    return blocks


def _gaps(evidence: Evidence, cell_set: CellSet, sweep: TrackedRun) -> list[str]:
    """What a sweep does not show, and why."""
    gaps = []
    cells, command = cell_set.cells, again(sweep)
    failed = [cell for cell in cells if cell.status in _ENDED_EARLY]
    names = {cell.name for cell in cells}
    others = [
        run
        for run in evidence.children(sweep)
        if run.status in _ENDED_EARLY and run.tags.get(CELL, run.name) not in names
    ]
    if failed:
        gaps.append(
            f"{len(failed)} of {len(cells)} cells of the sweep {sweep.name} have failed "
            f"({_reasons(failed)}): {command} tries them again, and nothing else."
        )
    if others:
        gaps.append(
            f"{len(others)} stages of the sweep {sweep.name} outside its cells have failed "
            f"({_reasons(others)}): {command} tries them again, and nothing else."
        )
    running = [cell for cell in cells if cell.status == "RUNNING"]
    if running or sweep.status == "RUNNING":
        gaps.append(
            f"The sweep {sweep.name} has not come to its end ({len(running)} of {len(cells)} cells "
            f"at work): if nothing is running any more, {command} goes on with it."
        )
    elif sweep.status in _ENDED_EARLY and not failed and not others:
        why = sweep.error or f"it was {sweep.status.lower()}, and does not say why"
        gaps.append(f"The sweep {sweep.name} is not whole ({why}): {command} goes on with it.")
    elif "random_baseline" not in sweep.metrics and sweep.params.get("num_random") != "0":
        gaps.append(
            f"The sweep {sweep.name} has no random baseline: "
            f"{again(sweep, 'random_baseline.num_architectures=5')} makes one."
        )
    odd = [cell.name for cell in cells if "top1" in cell.metrics and not is_done(cell)]
    if odd:
        gaps.append(f"The top-1 of {', '.join(odd)} is no number, and left out of the means.")
    return gaps


def _reasons(runs: Sequence[TrackedRun]) -> str:
    told = [f"{run.name}: {run.error or run.status.lower()}" for run in runs[:_NUM_NAMED]]
    more = len(runs) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])


def _by_setting(cells: Sequence[TrackedRun]) -> BySetting:
    """Setting → indicator → the cells of all seeds, finished or not."""
    found: BySetting = {}
    for cell in cells:
        epochs = cell.params.get("epochs", "")
        if epochs.isdecimal():
            setting = Setting(cell.params.get("trainable", "?"), int(epochs))
            indicator = cell.params.get("indicator", "?")
            found.setdefault(setting, {}).setdefault(indicator, []).append(cell)
    return {setting: found[setting] for setting in sorted(found)}


def _top1(evidence: Evidence, cells: Sequence[TrackedRun], *, several: bool) -> MeanStd | None:
    """Over seeds; in a sweep of one seed with the standard error that its test images leave."""
    done = [cell for cell in cells if is_done(cell)]
    found = mean_std(done, "top1", percent)
    if found is None or several:
        return found
    retrained = evidence.input(done[0], "retrain")
    num_images = 0.0 if retrained is None else retrained.metrics.get("num_test_images", 0.0)
    if not num_images >= 1 or not 0 <= found.mean.value <= 1:
        return found
    error = standard_error(found.mean.value, num_images)
    rule = f"one standard error of a share of {num_images:,.0f} test images"
    std = Number.of(error, percent, Derived(rule, (done[0].run_id,)))
    return MeanStd(found.mean, std)


def _values(
    evidence: Evidence,
    by_setting: BySetting,
    sweep: TrackedRun,
    baseline: MeanStd | None,
    *,
    several: bool,
) -> Ablation:
    values: dict[Setting, dict[str, Value | None]] = {}
    for setting, by_indicator in by_setting.items():
        row = values.setdefault(setting, {})
        for indicator, group in sorted(by_indicator.items()):
            found = _top1(evidence, group, several=several)
            row[indicator] = _value(found)
    num_random = sweep.params.get("num_random", "")
    return Ablation(
        values,
        _value(baseline),
        int(num_random) if num_random.isdecimal() else None,
    )


def _value(found: MeanStd | None) -> Value | None:
    """As the figure takes it."""
    if found is None:
        return None
    return Value(found.mean.value, 0.0 if found.std is None else found.std.value)


def _ablation_table(
    evidence: Evidence,
    sweep: TrackedRun,
    by_setting: BySetting,
    baseline: MeanStd | None,
    *,
    several: bool,
) -> Table:
    """Setting and indicator as in the paper; how many seeds each mean has, where they differ."""
    indicators = sorted({name for row in by_setting.values() for name in row})
    rows: list[tuple[Cell, ...]] = []
    nums = set()
    for setting, by_indicator in by_setting.items():
        row: list[Cell] = [setting.trainable, str(setting.epochs)]
        finished = []
        for indicator in indicators:
            group = by_indicator.get(indicator, [])
            row.append(_top1(evidence, group, several=several) or _why_not(group))
            finished.append(f"{sum(map(is_done, group))} of {len(group)}")
        nums |= {tuple(each.split(" of ")) for each in finished}
        rows.append((*row, ", ".join(finished)))
    columns = ("supernet trains", "epochs", *(f"ranked by {name}" for name in indicators))
    spread = "standard deviation over seeds" if several else "one standard error"
    whole = all(done == asked for done, asked in nums) and len(nums) == 1
    note = f"Mean ± {spread}."
    if whole:
        rows = [row[:-1] for row in rows]
        note = f"Mean over {next(iter(nums))[1]} seeds ± {spread}." if several else f"± {spread}."
    else:
        columns = (*columns, "seeds finished")
    if baseline is not None:
        columns, rows = (*columns, "best random"), [(*row, baseline) for row in rows]
        note += " The best random architecture by test top-1 is one for the whole sweep"
        note += ", the mean over seeds." if several else "."
    if (any_one := tracked_mean_std(sweep, "random_top1", percent)) is not None:
        columns, rows = (*columns, "any random"), [(*row, any_one) for row in rows]
        note += " Any random one is all of them ± standard deviation."
    return Table(
        f"ablation-{sweep.name}",
        f"{sweep.name}: test top-1 of the retrained network, in percent",
        columns,
        tuple(rows),
        note,
    )


def _why_not(cells: Sequence[TrackedRun]) -> str:
    """What stands where a number is missing."""
    if not cells:
        return NOTHING
    return "failed" if all(cell.status in _ENDED_EARLY for cell in cells) else "not yet"


def _cells_table(name: str, title: str, cells: Sequence[TrackedRun], evidence: Evidence) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for cell in cells:
        retrained = evidence.input(cell, "retrain")
        winner = cell.params.get("winner") or (retrained.params.get("arch") if retrained else None)
        rows.append(
            (
                cell.name,
                cell.params.get("seed", ""),
                winner or _why_not([cell]),
                tracked(cell, "flops", size) or NOTHING,
                tracked(cell, "params", size) or NOTHING,
                tracked(cell, "top1", percent) or NOTHING,
                tracked(cell, "random_baseline", percent) or NOTHING,
            )
        )
    columns: tuple[str, ...] = (
        "cell",
        "seed",
        "architecture",
        "FLOPs",
        "params",
        "test top-1 (%)",
        "best random",
    )
    if all(row[-1] == NOTHING for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table(name, title, columns, tuple(rows))


def _alt(ablation: Ablation) -> str:
    """The bars in words."""
    bars = [
        f"{setting} ranked by {indicator} {100 * value.mean:.1f} ± {100 * value.spread:.1f}"
        for setting, row in ablation.values.items()
        for indicator, value in row.items()
        if value is not None
    ]
    baseline = ablation.baseline
    line = "" if baseline is None else f"; random baseline {100 * baseline.mean:.1f}"
    line += f" ± {100 * baseline.spread:.1f}" if baseline is not None and baseline.spread else ""
    return f"Bars of test top-1 in percent: {', '.join(bars)}{line}."
