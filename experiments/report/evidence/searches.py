"""What searching costs: the three searchers on one table of scores, and searches by accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.figures.numbers import count
from experiments.report.evidence.cell_groups import average
from experiments.report.evidence.evidence import Evidence, tracked
from experiments.report.evidence.units import Show, decimals, milliseconds, percent, plain
from experiments.report.evidence.values import NOTHING, Cell, Derived, Number, Table, Tracked
from nas.indicators import INDICATORS
from orchestration.tracking.reader import TrackedRun

_MOST = 300  # searches of a group; an older one says nothing new
_OTHERS = ("evolution", "random")
_LIMITS = {"search.max_": "≤", "search.min_": "≥"}


@dataclass(frozen=True)
class SearchGroup:
    """Searches that differ in seed, in searcher and in the supernet that they read.

    Attributes:
        space: its name.
        data: the name of the data set.
        runs: the oldest first.
    """

    space: str
    data: str
    runs: tuple[TrackedRun, ...]

    @property
    def indicator(self) -> str:
        """What ranks."""
        return self.runs[-1].params.get("search.indicator", "")

    @property
    def budget(self) -> str:
        """All limits of cost, such as `flops ≤ 300.0 k`; `none` without any."""
        limits = _limits(self.runs[-1])
        told = [
            f"{key.removeprefix(prefix)} {sign} {_cost(text)}"
            for prefix, sign in _LIMITS.items()
            for key, text in limits.items()
            if key.startswith(prefix)
        ]
        return ", ".join(told) or "none"


def search_groups(evidence: Evidence, *, additive: bool) -> tuple[SearchGroup, ...]:
    """The finished searches by an indicator that is a sum over layers, or by one that is not.

    Of the former those that had all searchers timed.
    """
    owners = {cell.inputs.get("search", ""): cell for cell in evidence.of("cell")}
    groups: dict[tuple[object, ...], list[tuple[str, str, TrackedRun]]] = {}
    for run in evidence.of("search"):
        indicator = INDICATORS.get(run.params.get("search.indicator", ""))
        if run.status != "FINISHED" or indicator is None or indicator.additive != additive:
            continue
        if additive and "exact/wall_s" not in run.metrics:
            continue
        space, data = _where(evidence, run, owners.get(run.run_id))
        same = frozenset(
            (key, text)
            for key, text in run.params.items()
            if key != "seed" and not (additive and key == "search.searcher")
        )
        groups.setdefault((data, same), []).append((space, data, run))
    return tuple(
        SearchGroup(members[-1][0], members[-1][1], tuple(run for *_, run in members[-_MOST:]))
        for members in groups.values()
    )


def _where(evidence: Evidence, run: TrackedRun, cell: TrackedRun | None) -> tuple[str, str]:
    """Space and data: a search knows its space by content, and its data by its supernet."""
    owner = cell or evidence.by_id.get(run.parent_run_id or "")
    named: Mapping[str, str] = {} if owner is None else owner.params
    supernet = evidence.input(run, "supernet")
    images = run if supernet is None else supernet
    data = images.params.get("data.name") or named.get("data", "no data")
    return named.get("space", "unknown space"), data


def searcher_table(groups: Sequence[SearchGroup]) -> Table:
    """Exact search, evolution and random search over the same scores."""
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        row: list[Cell] = [
            group.space,
            group.data,
            group.indicator,
            group.budget,
            str(len(group.runs)),
            _reduced(group.runs, "exact/wall_s", milliseconds, "mean"),
        ]
        for searcher in _OTHERS:
            row += [
                _reduced(group.runs, f"{searcher}/wall_s", milliseconds, "mean"),
                _reduced(group.runs, f"{searcher}/num_evaluated", plain, "mean"),
                _reduced(group.runs, f"{searcher}/optimality_gap", percent, "mean"),
                _reduced(group.runs, f"{searcher}/optimality_gap", percent, "max"),
            ]
        rows.append(tuple(row))
    of_each = ("(ms)", "candidates", "gap, mean (%)", "gap, max (%)")
    return Table(
        "searchers",
        "Exact search, evolution and random search on the same scores",
        (
            "space",
            "data",
            "ranked by",
            "budget",
            "searches",
            "exact (ms)",
            *(f"{searcher} {what}" for searcher in _OTHERS for what in of_each),
        ),
        tuple(rows),
        "Times are means over the searches, which differ in their supernet and seed (the newest "
        f"{_MOST} of a row). The gap is how far the best score found lies below the exact optimum; "
        "exact search has none, and evaluates no candidates one by one.",
    )


def scored_table(groups: Sequence[SearchGroup], additive: Sequence[SearchGroup]) -> Table:
    """Searches that evaluate whole architectures, beside the same searcher on BN scores."""
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        searcher = group.runs[-1].params.get("search.searcher", "")
        twins = _twins(group, additive)
        seconds = _reduced(group.runs, "wall_s", decimals(1), "mean")
        candidates = _reduced(group.runs, "num_evaluated", plain, "mean")
        table_s = _reduced(twins, f"{searcher}/wall_s", decimals(3), "mean")
        evaluated = _reduced(twins, f"{searcher}/num_evaluated", plain, "mean")
        here_s, there_s = _quotient(seconds, candidates), _quotient(table_s, evaluated)
        rows.append(
            (
                group.space,
                group.data,
                group.indicator,
                group.budget,
                searcher,
                str(len(group.runs)),
                average(group.runs, "wall_s", decimals(1)),
                average(group.runs, "num_evaluated", plain),
                average(group.runs, "device_hours", decimals(4)),
                _derived(
                    None if here_s is None else 1000 * here_s,
                    decimals(1),
                    "mean time of a search over its mean number of candidates, times 1,000",
                    (seconds, candidates),
                ),
                table_s,
                evaluated,
                _derived(
                    here_s / there_s if here_s is not None and there_s else None,
                    plain,
                    f"mean time of a candidate here over that of {searcher} on BN scores",
                    (seconds, candidates, table_s, evaluated),
                ),
            )
        )
    return Table(
        "scored-searches",
        "Searches that evaluate every candidate, and the same searcher on BN scores",
        (
            "space",
            "data",
            "ranked by",
            "budget",
            "searcher",
            "searches",
            "search (s)",
            "candidates",
            "device-hours",
            "1,000 candidates (s)",
            "on BN scores (s)",
            "candidates on BN scores",
            "times longer a candidate",
        ),
        tuple(rows),
        "The counterpart of the paper's 1 GPU day against 0.14 s: the stage's time, loading of the "
        "supernet included, against the searcher's own on a table of BN scores. These are of the "
        "same space, data and budget; where none is, their cells are empty.",
    )


def _twins(group: SearchGroup, additive: Sequence[SearchGroup]) -> list[TrackedRun]:
    """The searches by BN scores in the same space, on the same data, with the same budget."""
    problem = _problem(group.runs[-1])
    return [
        run
        for other in additive
        if (other.data, other.indicator) == (group.data, "bn")
        for run in other.runs
        if _problem(run) == problem
    ]


def _problem(run: TrackedRun) -> dict[str, str]:
    """Space and budget."""
    space = {key: text for key, text in run.params.items() if key.startswith("space.")}
    return space | _limits(run)


def _limits(run: TrackedRun) -> dict[str, str]:
    """The params that limit a cost."""
    return {
        key: text
        for key, text in run.params.items()
        if key.startswith(tuple(_LIMITS)) and text != "null"
    }


def _cost(text: str) -> str:
    try:
        return count(float(text))
    except ValueError:  # as it stands there
        return text


def _reduced(runs: Sequence[TrackedRun], metric: str, show: Show, how: str) -> Cell:
    return tracked(runs, metric, show, how) or NOTHING


def _quotient(over: Cell, under: Cell) -> float | None:
    """None where one of the two is missing, or nothing was counted."""
    if not (isinstance(over, Number) and isinstance(under, Number)) or under.value == 0:
        return None
    return over.value / under.value


def _derived(value: float | None, show: Show, rule: str, made_from: Sequence[Cell]) -> Cell:
    if value is None:
        return NOTHING
    sources = [cell.source for cell in made_from if isinstance(cell, Number)]
    run_ids = [
        run_id
        for source in sources
        if isinstance(source, Tracked | Derived)
        for run_id in source.run_ids
    ]
    return Number.of(value, show, Derived(rule, tuple(dict.fromkeys(run_ids))))
