"""When the candidates' ranks settle, and what stopping then costs (Fig. 4).

The paper shows that ranks settle early; `nas.early_bird.EarlyBirdStop` makes a rule of it.
Supernets of fixed length say what that rule would have done, those that it did end what it has
done.

Shape legend: E epochs, L layers, N candidate operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.config.search import SearchConfig
from experiments.config.training import EarlyBirdConfig
from experiments.figures.early_bird import Similarity, early_bird_figure
from experiments.report.formats import decimals, percent, plain, yes_or_no
from experiments.report.run_table import Runs, texts, value
from experiments.report.supernet_groups import (
    EARLY_BIRD,
    EPOCHS,
    SEED,
    TRAINABLE,
    comparable,
    drawn_since,
    finished_supernets,
    in_order,
    scores_of,
)
from experiments.report.tables import NOTHING, Block, Entry, Number, Picture, Section, Table, number
from nas.cost import gather_sum
from nas.early_bird import FloatArray, distance_matrix, early_bird_epoch, rank_vector, similarity
from nas.ranking import kendall_tau
from nas.search import optimality_gap, search_within
from nas.space import Architecture, SearchSpace, space_from_dict
from orchestration.tracking.params import nested_params
from orchestration.tracking.reader import TrackedRun

_MISSING = (
    "`bnnas run experiments/configs/quickstart.yaml --set supernet.early_bird.window=5 --set "
    "name=early_bird` trains supernets "
    "that the early-bird stop ends, beside those of fixed length."
)
_MOST = 120  # supernets, whose records are read, a request each
_STOP = EarlyBirdConfig()
_NOTE = (
    f"The stop is the first epoch whose rank vector is within {_STOP.threshold:.0%} of the largest "
    f"possible distance of those of the {_STOP.window} epochs before; the figure's similarity is "
    "normalised by each matrix's own largest distance instead, as in the paper. τ is 1 where no "
    "rank differs. The winner is exact search's under the budgets of the search that read the "
    "supernet."
)
_STOPPED_NOTE = (
    "Winner and top-1 are those of cells that ranked by the BN indicator; the two of a row differ "
    "in the early-bird stop only."
)


class _Course(NamedTuple):
    """A supernet's scores after every epoch, and the epoch (from 1) at which the stop ends it."""

    run: TrackedRun
    space: SearchSpace
    scores_ELN: FloatArray
    stop: int | None


def early_bird_section(runs: Runs) -> Section:
    """Of each group of comparable supernets the longest of every trainable and seed.

    Of these the newest 120, because each one's record is read: it has the scores of every epoch,
    and MLflow hands it out by a request of its own.
    """
    supernets = finished_supernets(runs)
    fixed, stopped = (supernets[supernets["stops_early"] == is_so] for is_so in (False, True))
    groups = []
    for title, members in comparable(runs, fixed):
        longest = members.sort_values("epochs", ascending=False, kind="stable")
        longest = longest.drop_duplicates(["trainable", "seed"])
        groups.append((title, members[members.index.isin(longest.index)]))
    starts = pd.concat([group["start_time"] for _, group in groups] or [pd.Series(dtype=float)])
    newest = set(starts.sort_values(ascending=False, kind="stable").index[:_MOST])
    blocks: list[Block] = []
    for title, group in groups:
        read = [_course(runs, run_id) for run_id in group.index if run_id in newest]
        if courses := [course for course in read if course is not None]:
            if group["start_time"].max() >= drawn_since([each for _, each in groups]):
                blocks.append(_picture(title, courses))
            rows = (_row(runs, course) for course in courses)
            name = f"{title}: what the early-bird stop would save"
            blocks.append(Table.of("early-bird", name, rows, _NOTE))
    if len(stopped):
        blocks.append(_stopped_table(runs, stopped, fixed))
    return Section(
        "early-bird",
        "Early bird: when the ranks settle",
        "Fig. 4",
        tuple(blocks),
        "" if len(stopped) and len(fixed) else _MISSING,
    )


def _course(runs: Runs, run_id: str) -> _Course | None:
    """None where the record cannot be had, or an epoch has not all its scores."""
    record = runs.record(run_id)
    try:
        if record is None or not record["history"]:
            return None
        space = space_from_dict(record["config"]["space"])
        scores = [scores_of(row, space) for row in record["history"]]
    except (KeyError, TypeError, ValueError):
        return None
    if any(scores_LN is None for scores_LN in scores):
        return None
    scores_ELN = np.array(scores)
    stop = early_bird_epoch(scores_ELN, _STOP.window, _STOP.threshold)
    return _Course(runs.by_id[run_id], space, scores_ELN, None if stop is None else stop + 1)


def _picture(title: str, courses: Sequence[_Course]) -> Picture:
    drawn: dict[str, _Course] = {}
    for course in courses:  # seeds ascend: the lowest of the longest is drawn
        longest = drawn.setdefault(course.run.params[TRAINABLE], course)
        if int(course.run.params[EPOCHS]) > int(longest.run.params[EPOCHS]):
            drawn[course.run.params[TRAINABLE]] = course
    panels = {f"{name}, seed {each.run.params[SEED]}": each for name, each in drawn.items()}
    readings = []
    for label, course in panels.items():
        settled = f"settled after epoch {course.stop}" if course.stop else "not settled by the rule"
        readings.append(f"{label}: {len(course.scores_ELN)} epochs, {settled}")
    return Picture(
        "early-bird",
        f"{title}: similarity of the rank vectors between epochs",
        "A matrix of epochs by epochs for each trainable, dark where ranks are alike. "
        f"{'; '.join(readings)}.",
        lambda: early_bird_figure(
            [
                Similarity(label, similarity(distance_matrix(course.scores_ELN)), course.stop)
                for label, course in panels.items()
            ]
        ),
    )


def _row(runs: Runs, course: _Course) -> dict[str, Entry]:
    row: dict[str, Entry] = {
        "supernet trains": course.run.params[TRAINABLE],
        "seed": course.run.params[SEED],
        "epochs trained": value(course.run, "epochs", plain),
        "training top-1 (%)": value(course.run, "train/top1", percent),
        "stop after epoch": "never",
        "epochs saved": NOTHING,
        "τ of the ranks, stop and end": NOTHING,
        "same winner": NOTHING,
        "score lost (%)": NOTHING,
    }
    if course.stop is None:
        return row
    then_LN, end_LN = course.scores_ELN[course.stop - 1], course.scores_ELN[-1]
    tau = kendall_tau(rank_vector(then_LN).astype(float), rank_vector(end_LN).astype(float))
    row["stop after epoch"] = Number(course.stop, plain)
    row["epochs saved"] = Number(len(course.scores_ELN) - course.stop, plain)
    row["τ of the ranks, stop and end"] = Number(tau, decimals(3))
    if (search := _search_of(runs, course.run.run_id)) is not None:
        try:
            early, final = (_winner(scores_LN, course, search) for scores_LN in (then_LN, end_LN))
        except (TypeError, ValueError):  # budgets that cannot be read, or that nothing keeps
            return row
        early_score, final_score = gather_sum(end_LN, [early, final]).tolist()
        row["same winner"] = Number(float(early == final), yes_or_no)
        row["score lost (%)"] = Number(optimality_gap(early_score, final_score), percent)
    return row


def _winner(scores_LN: FloatArray, course: _Course, search: TrackedRun) -> Architecture:
    section = nested_params(search.params, "search")
    limits = {name: section.get(name) for name in ("max_flops", "min_flops", "max_params")}
    budgets = SearchConfig.model_validate(limits).budgets(course.space)
    return search_within(scores_LN, budgets).ranked[0].arch


def _search_of(runs: Runs, supernet: str) -> TrackedRun | None:
    """The search that read a supernet: the oldest by the BN indicator, or by another one."""
    searches = runs.of_kind("search")
    read = [runs.by_id[i] for i in searches.index[texts(searches, "input.supernet") == supernet]]
    return min(read, key=lambda run: run.params.get("search.indicator") != "bn", default=None)


def _stopped_table(runs: Runs, stopped: pd.DataFrame, fixed: pd.DataFrame) -> Table:
    """Supernets that the stop was allowed to end, beside equal ones of fixed length."""

    def but_stop(run_id: str) -> frozenset[tuple[str, str]]:
        return frozenset(each for each in runs.params(run_id) if not each[0].startswith(EARLY_BIRD))

    twins = {but_stop(run_id): runs.by_id[run_id] for run_id in reversed(fixed.index)}
    titles = {run_id: title for title, group in comparable(runs, stopped) for run_id in group.index}
    rows = [
        {"supernet": titles[run_id], **_stopped_row(runs, run_id, twins.get(but_stop(run_id)))}
        for run_id in in_order(stopped, "epochs", "seed").index
    ]
    title = "Supernets that ran with the early-bird stop, beside those of fixed length"
    return Table.of("early-bird-stopped", title, rows, _STOPPED_NOTE)


def _stopped_row(runs: Runs, run_id: str, twin: TrackedRun | None) -> dict[str, Entry]:
    supernet, params, hours = runs.by_id[run_id], runs.by_id[run_id].params, decimals(4)
    of_ours, of_theirs = _cells_of(runs, supernet), _cells_of(runs, twin)
    setting = next((each for each in of_ours if each in of_theirs), next(iter(of_ours), ()))
    ours, theirs = of_ours.get(setting), of_theirs.get(setting)
    winners = [cell.params.get("winner") for cell in (ours, theirs) if cell is not None]
    is_known = len(winners) == 2 and all(winners)
    rule = (params.get(f"{EARLY_BIRD}.{name}", "?") for name in ("window", "threshold"))
    return {
        "supernet trains": params[TRAINABLE],
        "seed": params[SEED],
        "window, threshold": ", ".join(rule),
        "epochs configured": params[EPOCHS],
        "epochs done": value(supernet, "epochs", plain),
        "device hours": value(supernet, "device_hours", hours),
        "device hours, fixed length": value(twin, "device_hours", hours),
        "same winner": number(len(set(winners)) == 1 if is_known else None, yes_or_no),
        "test top-1 (%)": value(ours, "top1", percent),
        "test top-1, fixed length (%)": value(theirs, "top1", percent),
    }


def _cells_of(runs: Runs, supernet: TrackedRun | None) -> dict[tuple[object, ...], TrackedRun]:
    """What a cell by the BN indicator searched and retrained with → the first such cell."""
    cells = runs.of_kind("cell", finished=True)
    of_it = texts(cells, "input.supernet") == (None if supernet is None else supernet.run_id)
    found: dict[tuple[object, ...], TrackedRun] = {}
    for run_id in cells.index[of_it & (texts(cells, "params.indicator") == "bn")]:
        params = runs.by_id[run_id].params
        stages = [runs.input(run_id, kind) for kind in ("search", "retrain")]
        of_stages = [stage and runs.params(stage.run_id, ("arch",)) for stage in stages]
        setting = (params.get("max_flops"), params.get("retrain_epochs"), *of_stages)
        found.setdefault(setting, runs.by_id[run_id])
    return found
