"""The ablation section: test top-1 of what each cell's search chose (section 4.5.1, Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.evidence.evidence import Evidence, mean_std, tracked
from experiments.evidence.values import (
    Block,
    Cell,
    Derived,
    MeanStd,
    Number,
    Picture,
    Section,
    Table,
    percent,
)
from experiments.report.ablation import Ablation, Setting, Value, ablation_figure
from experiments.report.numbers import count, standard_error
from orchestration.run_reader import TrackedRun

_COMMAND = "bnnas sweep experiments/configs/ablation_quickstart.yaml"


def ablation_section(evidence: Evidence) -> Section:
    """Every sweep, the newest first, and then the cells that were run on their own."""
    blocks: list[Block] = []
    missing: list[str] = []
    sweeps = evidence.of("sweep")[::-1]
    for sweep in sweeps:
        found = _sweep(evidence, sweep)
        blocks += found.blocks
        missing += found.missing
    alone = [cell for cell in evidence.of("cell") if cell.parent_run_id not in evidence.by_id]
    if alone:
        blocks.append(_cells_table("cells", "Cells that were run on their own", alone, evidence))
    if not sweeps:
        missing.append(f"No sweep is tracked: `{_COMMAND}` makes the ablation.")
    title = "Ablation: what trains, what ranks, for how long"
    return Section("ablation", title, "Fig. 5", tuple(blocks), tuple(missing))


def _sweep(evidence: Evidence, sweep: TrackedRun) -> Section:
    """One sweep, as if it were a section of its own."""
    cells = [run for run in evidence.children(sweep) if run.kind == "cell"]
    done = [cell for cell in cells if _is_done(cell)]
    blocks: list[Block] = []
    missing = _gaps(sweep, cells)
    title = f"{sweep.name}: {sweep.params.get('space')} on {sweep.params.get('data')}"
    if done:
        baseline = tracked(sweep, "random_baseline", percent)
        ablation = _values(evidence, cells, sweep, baseline)
        blocks.append(
            Picture(
                f"ablation-{sweep.name}",
                f"{title}, test top-1 of the retrained networks",
                _alt(ablation),
                ablation_figure(ablation),
            )
        )
        blocks.append(_ablation_table(evidence, sweep, cells, baseline))
        blocks.append(_cells_table(f"cells-{sweep.name}", f"{title}, every cell", cells, evidence))
    else:
        blocks.append(f"{title}: no cell has come to its end.")
    return Section("", "", "", tuple(blocks), tuple(missing))


def _gaps(sweep: TrackedRun, cells: Sequence[TrackedRun]) -> list[str]:
    """What a sweep does not show, and why."""
    gaps = []
    again = f"`{sweep.tags.get('mlflow.source.name', 'bnnas sweep CONFIG')}`"
    failed = [cell for cell in cells if cell.status in ("FAILED", "KILLED")]
    if failed:
        reasons = "; ".join(f"{cell.name}: {cell.error or cell.status.lower()}" for cell in failed)
        gaps.append(
            f"{len(failed)} of {len(cells)} cells of the sweep {sweep.name} have failed "
            f"({reasons}): {again} tries them again, and nothing else."
        )
    running = [cell for cell in cells if cell.status == "RUNNING"]
    if running or sweep.status == "RUNNING":
        gaps.append(
            f"The sweep {sweep.name} has not come to its end ({len(running)} of {len(cells)} cells "
            f"at work): if nothing is running any more, {again} goes on with it."
        )
    elif sweep.status in ("FAILED", "KILLED") and not failed:
        why = sweep.error or "its run was ended early"
        gaps.append(f"The sweep {sweep.name} has failed ({why}): {again} goes on with it.")
    odd = [cell.name for cell in cells if not math.isfinite(cell.metrics.get("top1", 0.0))]
    if odd:
        gaps.append(f"The top-1 of {', '.join(odd)} is no number, and left out of the figure.")
    return gaps


def _is_done(cell: TrackedRun) -> bool:
    return math.isfinite(cell.metrics.get("top1", math.nan))


def _by_setting(cells: Sequence[TrackedRun]) -> dict[Setting, dict[str, list[TrackedRun]]]:
    """Setting → indicator → the cells of all seeds, finished or not."""
    found: dict[Setting, dict[str, list[TrackedRun]]] = {}
    for cell in cells:
        epochs = cell.params.get("epochs", "")
        if epochs.isdigit():
            setting = Setting(cell.params.get("trainable", "?"), int(epochs))
            indicator = cell.params.get("indicator", "?")
            found.setdefault(setting, {}).setdefault(indicator, []).append(cell)
    return {setting: found[setting] for setting in sorted(found)}


def _top1(evidence: Evidence, cells: Sequence[TrackedRun]) -> MeanStd | None:
    """Over seeds; of a single one with the standard error that so many test images leave."""
    done = [cell for cell in cells if _is_done(cell)]
    found = mean_std(done, "top1", percent)
    if found is None or found.std is not None:
        return found
    retrained = evidence.input(done[0], "retrain")
    num_images = 0.0 if retrained is None else retrained.metrics.get("num_test_images", 0.0)
    if not num_images:
        return found
    error = standard_error(found.mean.value, num_images)
    rule = f"one standard error of a share of {num_images:,.0f} test images"
    return MeanStd(found.mean, Number(error, percent(error), Derived(rule)))


def _values(
    evidence: Evidence, cells: Sequence[TrackedRun], sweep: TrackedRun, baseline: Number | None
) -> Ablation:
    values: dict[Setting, dict[str, Value | None]] = {}
    for setting, by_indicator in _by_setting(cells).items():
        row = values.setdefault(setting, {})
        for indicator, group in sorted(by_indicator.items()):
            found = _top1(evidence, group)
            spread = 0.0 if found is None or found.std is None else found.std.value
            row[indicator] = None if found is None else Value(found.mean.value, spread)
    num_random = sweep.params.get("num_random", "")
    return Ablation(
        values,
        None if baseline is None else baseline.value,
        int(num_random) if num_random.isdigit() else 0,
    )


def _ablation_table(
    evidence: Evidence, sweep: TrackedRun, cells: Sequence[TrackedRun], baseline: Number | None
) -> Table:
    by_setting = _by_setting(cells)
    indicators = sorted({name for row in by_setting.values() for name in row})
    rows: list[tuple[Cell, ...]] = []
    for setting, by_indicator in by_setting.items():
        values: list[Cell] = [setting.trainable, str(setting.epochs)]
        for indicator in indicators:
            group = by_indicator.get(indicator, [])
            values.append((_top1(evidence, group) if group else None) or _why_not(group))
        rows.append(tuple(values))
    if baseline is not None:
        filler = ("",) * (len(indicators) - 1)
        rows.append(("best random architecture", "", baseline, *filler))
    seeds = {cell.params.get("seed") for cell in cells}
    spread = "standard deviation over seeds" if len(seeds) > 1 else "one standard error"
    return Table(
        f"ablation-{sweep.name}",
        f"{sweep.name}: test top-1 of the retrained network, in percent",
        ("supernet trains", "epochs", *(f"ranked by {name}" for name in indicators)),
        tuple(rows),
        f"Mean over {len(seeds)} seed(s) ± {spread}.",
    )


def _why_not(cells: Sequence[TrackedRun]) -> str:
    """What stands where a number is missing."""
    if not cells:
        return "–"
    return "failed" if all(cell.status in ("FAILED", "KILLED") for cell in cells) else "not yet"


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
                tracked(cell, "flops", count) or "",
                tracked(cell, "params", count) or "",
                tracked(cell, "top1", percent) or "",
                tracked(cell, "random_baseline", percent) or "",
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
    if all(row[-1] == "" for row in rows):
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
    line = "" if ablation.baseline is None else f"; random baseline {100 * ablation.baseline:.1f}"
    return f"Bars of test top-1 in percent: {', '.join(bars)}{line}."
