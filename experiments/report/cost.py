"""What a search takes, part by part (Table 1), and the searchers against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from experiments.figures.numbers import count
from experiments.figures.stage_figures import front_figure
from experiments.report.cells import CellGroup, CellSet, by_size, cell_sets
from experiments.report.formats import decimals, millions, milliseconds, percent, plain
from experiments.report.published import all_on_imagenet, published_table
from experiments.report.run_table import Runs, average, grouped, mean, numbers, texts
from experiments.report.supernet_groups import drawn_since
from experiments.report.tables import NOTHING, Block, Entry, Picture, Section, Table, number
from nas.indicators import INDICATORS
from orchestration.tracking.reader import TrackedRun

_MISSING = (
    "`bnnas run experiments/configs/ablation_quickstart.yaml` makes cells that search by BN scores "
    "and by accuracy."
)
_MOST = 300  # searches of a group; an older one says nothing new
_OTHERS = ("evolution", "random")
_LIMITS = {"search.max_": "≤", "search.min_": "≥"}
_TABLE_1 = {
    "method": "method",
    "top1": "top-1 (%)",
    "flops": "FLOPs (M)",
    "epochs": "supernet epochs",
    "trains": "supernet trains",
    "search": "searching",
    "images": "searching data",
}


class _Searches(NamedTuple):
    """Searches that differ in seed, in searcher and in the supernet that they read.

    Attributes:
        head: the columns that say what was searched.
        problem: space, data and budget: searches that agree in these can be compared.
        rows: the oldest first.
    """

    head: dict[str, Entry]
    problem: tuple[object, ...]
    rows: pd.DataFrame


def cost_section(runs: Runs) -> Section:
    """Cells with their cost, the paper's Table 1 where they belong there, and the searchers."""
    sets = [cell_set for cell_set in cell_sets(runs) if cell_set.groups]
    blocks: list[Block] = [_cells_table(cell_set) for cell_set in sets]
    measured = [
        _published_row(group)
        for each in sets
        for group in each.groups
        if all_on_imagenet(group.stages["retrain"])
    ]
    if measured:
        blocks.append(published_table("table_1", "cost-published", _TABLE_1, measured))
    additive, scored = (_searches(runs, additive=is_so) for is_so in (True, False))
    if additive:
        blocks.append(_searchers_table(additive))
    if scored:
        blocks.append(_scored_table(scored, additive))
    blocks += _fronts(runs, additive)
    missing = "" if sets and additive and scored else _MISSING
    return Section("cost", "What the search costs", "Table 1", tuple(blocks), missing)


def _cells_table(cell_set: CellSet) -> Table:
    note = (
        "Mean over the seeds ± standard deviation. Cells that share a supernet or a network each "
        "count it, so that rows do not add up to what a sweep has taken. A search by an additive "
        "indicator times all searchers."
    )
    if rest := len(cell_set.cells) - cell_set.num_finished:
        note += f" {rest} of {len(cell_set.cells)} cells have no result and are left out."
    if len({group.setting for group in cell_set.groups}) < len(cell_set.groups):
        note += " Rows of equal names differ in a setting that is not shown."
    where = f"{cell_set.label('space')} on {cell_set.label('data')}"
    title = f"{cell_set.name}: cost of a cell ({where})"
    rows = map(_cell_row, cell_set.groups)
    return Table.of(f"cost-{cell_set.name}", title, rows, note, folded=True)


def _cell_row(group: CellGroup) -> dict[str, Entry]:
    supernets, searches, retrained = (
        group.stages[kind] for kind in ("supernet", "search", "retrain")
    )
    hours = decimals(4)
    searcher = next(iter(texts(searches, "params.search.searcher")), "")
    candidates = average(searches, "num_evaluated", plain)
    if candidates == NOTHING:  # where all searchers were timed, each has its own
        candidates = average(searches, f"{searcher}/num_evaluated", plain)
    return {
        "supernet trains": group.trains,
        "ranked by": group.label("indicator"),
        "epochs": NOTHING if group.has_no_supernet else group.label("epochs"),
        "seeds": str(len(group.cells)),
        "epochs trained": average(supernets, "epochs", plain),
        "trained parameters": average(supernets, "trained_params", plain),
        "of": average(supernets, "supernet_params", plain),
        "searcher": searcher,
        "search (s)": average(searches, "wall_s", decimals(2)),
        "candidates": "none" if searcher == "exact" else candidates,
        "supernet (device-h)": average(supernets, "device_hours", hours),
        "search (device-h)": average(searches, "device_hours", hours),
        "retraining (device-h)": average(retrained, "device_hours", hours),
        "whole (device-h)": average(group.cells, "device_hours", hours),
        "whole (s)": average(group.cells, "wall_s", decimals(1)),
        "test top-1 (%)": average(group.cells, "top1", percent),
    }


def _published_row(group: CellGroup) -> dict[str, Entry]:
    by_accuracy = group.label("indicator") == "accuracy"
    return {
        "method": f"here: {group.setting}",
        "top1": average(group.cells, "top1", percent),
        "flops": average(group.cells, "flops", millions),
        "epochs": group.label("epochs"),
        "trains": group.trains,
        "search": f"{number(mean(group.stages['search'], 'wall_s'), decimals(2))} s",
        "images": "validation set" if by_accuracy else "None",
    }


def _searches(runs: Runs, *, additive: bool) -> list[_Searches]:
    """The finished searches by an indicator that is a sum over layers, or by one that is not.

    Of the former those that had all searchers timed.
    """
    rows = runs.of_kind("search", finished=True)
    kinds = {name: indicator.additive == additive for name, indicator in INDICATORS.items()}
    rows = rows[texts(rows, "params.search.indicator").map(kinds).eq(True)]
    if additive:
        rows = rows[numbers(rows, "exact/wall_s").notna()]
    free = ("seed", "search.searcher") if additive else ("seed",)
    cells = runs.of_kind("cell")
    owners = dict(zip(texts(cells, "input.search"), cells.index, strict=True))
    places = {i: _where(runs, runs.by_id[i], owners.get(i)) for i in rows.index}
    groups = []
    for own in grouped(rows, lambda i: (places[i][1], runs.params(i, free))):
        (space, data), params = places[own.index[-1]], runs.by_id[own.index[-1]].params
        limits = [
            f"{key.removeprefix(prefix)} {sign} {count(float(text))}"
            for prefix, sign in _LIMITS.items()
            for key, text in params.items()
            if key.startswith(prefix) and text != "null"
        ]
        head: dict[str, Entry] = {
            "space": space,
            "data": data,
            "ranked by": params["search.indicator"],
            "budget": ", ".join(limits) or "none",
        }
        content = runs.params(own.index[-1], prefix="space.")
        groups.append(_Searches(head, (data, content, limits), own[-_MOST:]))
    return groups


def _where(runs: Runs, search: TrackedRun, cell: str | None) -> tuple[str, str]:
    """Space and data: a search knows its space by content, and its data by its supernet."""
    owner = runs.by_id.get(cell or search.parent_run_id or "")
    named: Mapping[str, str] = {} if owner is None else owner.params
    images = runs.input(search.run_id, "supernet") or search
    data = images.params.get("data.name") or named.get("data", "no data")
    return named.get("space", "unknown space"), data


def _searchers_table(groups: list[_Searches]) -> Table:
    """Exact search, evolution and random search over the same scores."""
    rows = []
    for head, _, group in groups:
        row = {
            **head,
            "searches": str(len(group)),
            "exact (ms)": number(mean(group, "exact/wall_s"), milliseconds),
        }
        for name in _OTHERS:
            gap = f"{name}/optimality_gap"
            row[f"{name} (ms)"] = number(mean(group, f"{name}/wall_s"), milliseconds)
            row[f"{name} candidates"] = number(mean(group, f"{name}/num_evaluated"), plain)
            row[f"{name} gap, mean (%)"] = number(mean(group, gap), percent)
            row[f"{name} gap, max (%)"] = number(mean(group, gap, max), percent)
        rows.append(row)
    note = (
        "Times are means over the searches, which differ in their supernet and seed (the newest "
        f"{_MOST} of a row). The gap is how far the best score found lies below the exact optimum; "
        "exact search has none, and evaluates no candidates one by one."
    )
    title = "Exact search, evolution and random search on the same scores"
    return Table.of("searchers", title, rows, note)


def _scored_table(groups: list[_Searches], additive: list[_Searches]) -> Table:
    """Searches that evaluate whole architectures, beside the same searcher on BN scores."""
    rows = []
    for head, problem, group in groups:
        searcher = str(texts(group, "params.search.searcher").iloc[-1])
        by_bn = [each for each in additive if each.head["ranked by"] == "bn"]
        like = [each.rows for each in by_bn if each.problem == problem]
        twins = pd.concat([group[:0], *like])
        on_scores_s = mean(twins, f"{searcher}/wall_s")
        num_on_scores = mean(twins, f"{searcher}/num_evaluated")
        candidate_s = mean(group, "wall_s") / mean(group, "num_evaluated")
        rows.append(
            {
                **head,
                "searcher": searcher,
                "searches": str(len(group)),
                "search (s)": average(group, "wall_s", decimals(1)),
                "candidates": average(group, "num_evaluated", plain),
                "device-hours": average(group, "device_hours", decimals(4)),
                "1,000 candidates (s)": number(1000 * candidate_s, decimals(1)),
                "on BN scores (s)": number(on_scores_s, decimals(3)),
                "candidates on BN scores": number(num_on_scores, plain),
                "times longer a candidate": number(
                    candidate_s / (on_scores_s / num_on_scores), plain
                ),
            }
        )
    note = (
        "The counterpart of the paper's 1 GPU day against 0.14 s: the stage's time, loading of the "
        "supernet included, against the searcher's own on a table of BN scores. These are of the "
        "same space, data and budget; where none is, their cells are empty."
    )
    title = "Searches that evaluate every candidate, and the same searcher on BN scores"
    return Table.of("scored-searches", title, rows, note)


def _fronts(runs: Runs, groups: list[_Searches]) -> list[Picture]:
    """The score–FLOPs front of one search of each group, where its record can be had."""
    since = drawn_since([group.rows for group in groups]) if groups else math.inf
    newest = [group for group in groups if group.rows["start_time"].max() >= since]
    pictures = (_front(runs, group) for group in newest)
    return [picture for picture in pictures if picture is not None]


def _front(runs: Runs, group: _Searches) -> Picture | None:
    """Of the longest supernet, of these the lowest seed, of these the newest."""

    def epochs_seed_start(run: TrackedRun) -> tuple[float, float, float]:
        supernet = runs.input(run.run_id, "supernet")
        epochs = 0.0 if supernet is None else supernet.metrics.get("epochs", 0.0)
        return epochs, -by_size(run.params.get("seed", ""))[0], run.started_at

    run = max((runs.by_id[run_id] for run_id in group.rows.index), key=epochs_seed_start)
    record, supernet = runs.record(run.run_id) or {}, runs.input(run.run_id, "supernet")
    found = record.get("result") or {}
    front, limit = found.get("front"), record.get("config", {}).get("search", {}).get("max_flops")
    if not front or not all(math.isfinite(point["score"]) for point in front):
        return None
    bests = {name: best for name, best in found["found"].items() if name in ("exact", *_OTHERS)}
    of = ""
    if supernet is not None:
        trainable, epochs = (
            supernet.params.get(f"supernet.{p}", "?") for p in ("trainable", "epochs")
        )
        of = f", supernet {trainable} of {epochs} epochs"
    read_off = ", ".join(
        f"{searcher} {best['score']:.4g} at {count(best['flops'])}"
        for searcher, best in bests.items()
    )
    space, data, indicator, _ = group.head.values()
    first, last = front[0], front[-1]
    return Picture(
        f"front-{space}-{data}-{indicator}",
        f"Score and FLOPs of {space} on {data}, ranked by {indicator}{of}, seed "
        f"{run.params.get('seed', '?')}",
        f"The best score rises over {len(front)} architectures from {first['score']:.4g} at "
        f"{count(first['flops'])} FLOPs to {last['score']:.4g} at {count(last['flops'])}. Best "
        f"found {'' if limit is None else f'under {count(limit)} FLOPs'}: {read_off}.",
        lambda: front_figure(
            front, bests, max_flops=limit, label=f"{indicator} score of the architecture"
        ),
    )
