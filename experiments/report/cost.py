"""What a search takes, part by part (Table 1), and the searchers against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from experiments.figures.numbers import count
from experiments.figures.stage_figures import front_figure
from experiments.report.cells import CellGroup, CellSet, by_size, cell_sets
from experiments.report.published import all_on_imagenet, published_table
from experiments.report.run_table import Runs, average, grouped, numbers, reduced, texts
from experiments.report.tables import (
    MOST_PICTURES,
    NOTHING,
    Block,
    Cell,
    Number,
    Picture,
    Section,
    Table,
    decimals,
    millions,
    milliseconds,
    number,
    percent,
    plain,
)
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


class SearchGroup(NamedTuple):
    """Searches that differ in seed, in searcher and in the supernet that they read.

    Attributes:
        space: its name.
        data: the name of the data set.
        rows: the oldest first.
        newest: the last of them.
    """

    space: str
    data: str
    rows: pd.DataFrame
    newest: TrackedRun

    @property
    def indicator(self) -> str:
        """What ranks."""
        return self.newest.params.get("search.indicator", "")

    @property
    def limits(self) -> dict[str, str]:
        """The params that limit a cost."""
        return {
            key: text
            for key, text in self.newest.params.items()
            if key.startswith(tuple(_LIMITS)) and text != "null"
        }

    @property
    def budget(self) -> str:
        """All limits of cost, such as `flops ≤ 300.0 k`; `none` without any."""
        parts = [
            f"{key.removeprefix(prefix)} {sign} {_cost(text)}"
            for prefix, sign in _LIMITS.items()
            for key, text in self.limits.items()
            if key.startswith(prefix)
        ]
        return ", ".join(parts) or "none"

    @property
    def problem(self) -> tuple[object, ...]:
        """Space, data and budget: searches that agree in these can be compared."""
        params = self.newest.params
        space = {key: text for key, text in params.items() if key.startswith("space.")}
        return self.data, space, self.limits

    @property
    def head(self) -> dict[str, Cell]:
        """The columns that say what was searched."""
        return {
            "space": self.space,
            "data": self.data,
            "ranked by": self.indicator,
            "budget": self.budget,
        }


def cost_section(runs: Runs) -> Section:
    """Cells with their cost, the paper's Table 1 where they belong there, and the searchers."""
    sets = [cell_set for cell_set in cell_sets(runs) if cell_set.groups]
    blocks: list[Block] = [_cells_table(cell_set) for cell_set in sets]
    measured = [
        _published_row(group)
        for each in sets
        for group in each.groups
        if all_on_imagenet(runs, group.stages["retrain"].index)
    ]
    if measured:
        blocks.append(published_table("table_1", "cost-published", _TABLE_1, measured))
    additive, scored = (search_groups(runs, additive=is_so) for is_so in (True, False))
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


def _cell_row(group: CellGroup) -> dict[str, Cell]:
    supernets, searches, retrained = (
        group.stages[kind] for kind in ("supernet", "search", "retrain")
    )
    hours = decimals(4)
    return {
        "supernet trains": group.trains,
        "ranked by": group.label("indicator"),
        "epochs": NOTHING if group.has_no_supernet else group.label("epochs"),
        "seeds": str(len(group.cells)),
        "epochs trained": average(supernets, "epochs", plain),
        "trained parameters": average(supernets, "trained_params", plain),
        "of": average(supernets, "supernet_params", plain),
        "searcher": _searcher(group),
        "search (s)": average(searches, "wall_s", decimals(2)),
        "candidates": _candidates(searches, _searcher(group)),
        "supernet (device-h)": average(supernets, "device_hours", hours),
        "search (device-h)": average(searches, "device_hours", hours),
        "retraining (device-h)": average(retrained, "device_hours", hours),
        "whole (device-h)": average(group.cells, "device_hours", hours),
        "whole (s)": average(group.cells, "wall_s", decimals(1)),
        "test top-1 (%)": average(group.cells, "top1", percent),
    }


def _searcher(group: CellGroup) -> str:
    """Such as `exact`; empty if no search is tracked."""
    searches = texts(group.stages["search"], "params.search.searcher")
    return str(searches.iloc[0]) if len(searches) else ""


def _candidates(searches: pd.DataFrame, searcher: str) -> Cell:
    """How many the searcher has evaluated; exact search evaluates none one by one."""
    if searcher == "exact":
        return "none"
    evaluated = average(searches, "num_evaluated", plain)
    return (
        evaluated if evaluated != NOTHING else average(searches, f"{searcher}/num_evaluated", plain)
    )


def _published_row(group: CellGroup) -> dict[str, Cell]:
    by_accuracy = group.label("indicator") == "accuracy"
    return {
        "method": f"here: {group.setting}",
        "top1": average(group.cells, "top1", percent),
        "flops": average(group.cells, "flops", millions),
        "epochs": group.label("epochs"),
        "trains": group.trains,
        "search": f"{reduced(group.stages['search'], 'wall_s', decimals(2))} s",
        "images": "validation set" if by_accuracy else "None",
    }


def search_groups(runs: Runs, *, additive: bool) -> list[SearchGroup]:
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
    return [
        SearchGroup(*places[own.index[-1]], own[-_MOST:], runs.by_id[own.index[-1]])
        for own in grouped(rows, lambda i: (places[i][1], runs.params(i, free)))
    ]


def _where(runs: Runs, search: TrackedRun, cell: str | None) -> tuple[str, str]:
    """Space and data: a search knows its space by content, and its data by its supernet."""
    owner = runs.by_id.get(cell or search.parent_run_id or "")
    named: Mapping[str, str] = {} if owner is None else owner.params
    images = runs.input(search.run_id, "supernet") or search
    data = images.params.get("data.name") or named.get("data", "no data")
    return named.get("space", "unknown space"), data


def _searchers_table(groups: list[SearchGroup]) -> Table:
    """Exact search, evolution and random search over the same scores."""
    rows = []
    for group in groups:
        row = {
            **group.head,
            "searches": str(len(group.rows)),
            "exact (ms)": reduced(group.rows, "exact/wall_s", milliseconds),
        }
        for name in _OTHERS:
            gap = f"{name}/optimality_gap"
            row[f"{name} (ms)"] = reduced(group.rows, f"{name}/wall_s", milliseconds)
            row[f"{name} candidates"] = reduced(group.rows, f"{name}/num_evaluated", plain)
            row[f"{name} gap, mean (%)"] = reduced(group.rows, gap, percent)
            row[f"{name} gap, max (%)"] = reduced(group.rows, gap, percent, max)
        rows.append(row)
    note = (
        "Times are means over the searches, which differ in their supernet and seed (the newest "
        f"{_MOST} of a row). The gap is how far the best score found lies below the exact optimum; "
        "exact search has none, and evaluates no candidates one by one."
    )
    title = "Exact search, evolution and random search on the same scores"
    return Table.of("searchers", title, rows, note)


def _scored_table(groups: list[SearchGroup], additive: list[SearchGroup]) -> Table:
    """Searches that evaluate whole architectures, beside the same searcher on BN scores."""
    rows = []
    for group in groups:
        searcher = group.newest.params.get("search.searcher", "")
        like = [each.rows for each in additive if _is_like(each, group)]
        twins = pd.concat(like) if like else group.rows[:0]
        table_s = reduced(twins, f"{searcher}/wall_s", decimals(3))
        evaluated = reduced(twins, f"{searcher}/num_evaluated", plain)
        here_s = _quotient(
            reduced(group.rows, "wall_s", plain), reduced(group.rows, "num_evaluated", plain)
        )
        there_s = _quotient(table_s, evaluated)
        rows.append(
            {
                **group.head,
                "searcher": searcher,
                "searches": str(len(group.rows)),
                "search (s)": average(group.rows, "wall_s", decimals(1)),
                "candidates": average(group.rows, "num_evaluated", plain),
                "device-hours": average(group.rows, "device_hours", decimals(4)),
                "1,000 candidates (s)": number(here_s and 1000 * here_s, decimals(1)),
                "on BN scores (s)": table_s,
                "candidates on BN scores": evaluated,
                "times longer a candidate": number(
                    here_s / there_s if here_s is not None and there_s else None, plain
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


def _is_like(by_scores: SearchGroup, group: SearchGroup) -> bool:
    return by_scores.indicator == "bn" and by_scores.problem == group.problem


def _quotient(over: Cell, under: Cell) -> float | None:
    """None where one of the two is missing, or nothing was counted."""
    if not (isinstance(over, Number) and isinstance(under, Number)) or under.value == 0:
        return None
    return over.value / under.value


def _cost(text: str) -> str:
    try:
        return count(float(text))
    except ValueError:  # as it stands there
        return text


def _fronts(runs: Runs, groups: list[SearchGroup]) -> list[Picture]:
    """The score–FLOPs front of one search of each group, where its record can be had."""
    newest = sorted(groups, key=lambda group: -group.newest.started_at)[:MOST_PICTURES]
    drawn = {group.newest.run_id for group in newest}
    pictures = (_front(runs, group) for group in groups if group.newest.run_id in drawn)
    return [picture for picture in pictures if picture is not None]


def _front(runs: Runs, group: SearchGroup) -> Picture | None:
    """Of the longest supernet, of these the lowest seed, of these the newest."""
    searches = [runs.by_id[run_id] for run_id in group.rows.index]
    run = max(
        searches,
        key=lambda each: (
            _epochs(runs, each),
            -by_size(each.params.get("seed", ""))[0],
            each.started_at,
        ),
    )
    record, supernet = runs.record(run.run_id), runs.input(run.run_id, "supernet")
    try:
        assert record is not None
        front = [_point(point) for point in record["result"]["front"]]
        best_points = {
            searcher: {**best, **_point(best)}
            for searcher, best in record["result"]["found"].items()
            if searcher in ("exact", *_OTHERS)
        }
        limit = record["config"]["search"]["max_flops"]
        max_flops = None if limit is None else float(limit)
        first, last = front[0], front[-1]
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    of = ""
    if supernet is not None:
        trainable, epochs = (
            supernet.params.get(f"supernet.{p}", "?") for p in ("trainable", "epochs")
        )
        of = f", supernet {trainable} of {epochs} epochs"
    bests = ", ".join(
        f"{searcher} {best['score']:.4g} at {count(best['flops'])}"
        for searcher, best in best_points.items()
    )
    return Picture(
        f"front-{group.space}-{group.data}-{group.indicator}",
        f"Score and FLOPs of {group.space} on {group.data}, ranked by {group.indicator}{of}, seed "
        f"{run.params.get('seed', '?')}",
        f"The best score rises over {len(front)} architectures from {first['score']:.4g} at "
        f"{count(first['flops'])} FLOPs to {last['score']:.4g} at {count(last['flops'])}. Best "
        f"found {'' if max_flops is None else f'under {count(max_flops)} FLOPs'}: {bests}.",
        lambda: front_figure(
            front,
            best_points,
            max_flops=max_flops,
            label=f"{group.indicator} score of the architecture",
        ),
    )


def _epochs(runs: Runs, search: TrackedRun) -> float:
    supernet = runs.input(search.run_id, "supernet")
    return 0.0 if supernet is None else supernet.metrics.get("epochs", 0.0)


def _point(point: Mapping[str, float]) -> dict[str, float]:
    """Raises ValueError for what cannot be drawn."""
    coordinates = {name: float(point[name]) for name in ("flops", "score")}
    if not all(map(math.isfinite, coordinates.values())):
        raise ValueError(f"not a point: {coordinates}")
    return coordinates
