"""The early-bird section: when the candidates' ranks settle, and what stopping then costs (Fig. 4).

The paper shows that ranks settle early; `nas.early_bird.EarlyBirdStop` makes a rule of it.
Supernets of fixed length say what that rule would have done, those that it did end what it has
done.

Shape legend: E epochs, L layers, N candidate operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.config.cell import EarlyBirdConfig
from experiments.figures.early_bird import Similarity, early_bird_figure
from experiments.plan.budgets import budgets
from experiments.report.evidence.early_bird_stop import stopped_section
from experiments.report.evidence.evidence import Evidence, tracked
from experiments.report.evidence.gaps import MOST_PICTURES, SWEEP, again, as_sweep, undrawn
from experiments.report.evidence.supernets import (
    EPOCHS,
    SEED,
    TRAINABLE,
    Group,
    Supernet,
    finished_supernets,
    grouped,
    scores_of,
    section_of,
    titles,
    unfinished_supernets,
    yes_or_no,
)
from experiments.report.evidence.units import decimals, percent, plain
from experiments.report.evidence.values import (
    NOTHING,
    Block,
    Cell,
    Derived,
    Number,
    Picture,
    Section,
    Table,
)
from nas.cost import gather_sum
from nas.early_bird import FloatArray, distance_matrix, early_bird_epoch, rank_vector, similarity
from nas.ranking import kendall_tau
from nas.search import exact_search, optimality_gap
from nas.space import Architecture, SearchSpace, space_from_dict
from orchestration.tracking.reader import TrackedRun

_MOST = 120  # supernets, whose records are read, a request each
_STOP = EarlyBirdConfig()
_RULE = (
    f"the first epoch whose rank vector is within {_STOP.threshold:.0%} of the largest possible "
    f"distance of those of the {_STOP.window} epochs before"
)
_COLUMNS = (
    "supernet trains",
    "seed",
    "epochs trained",
    "training top-1 (%)",
    "stop after epoch",
    "epochs saved",
    "τ of the ranks, stop and end",
    "same winner",
    "score lost (%)",
)


@dataclass(frozen=True)
class _Course:
    """A supernet's scores after every epoch."""

    supernet: Supernet
    space: SearchSpace
    scores_ELN: FloatArray

    @cached_property
    def stop(self) -> int | None:
        """0-based epoch at which the stop would end it."""
        return early_bird_epoch(self.scores_ELN, _STOP.window, _STOP.threshold)

    @property
    def panel(self) -> Similarity:
        return Similarity(
            f"{self.supernet.trainable}, seed {self.supernet.seed}",
            similarity(distance_matrix(self.scores_ELN)),
            None if self.stop is None else self.stop + 1,
        )


def early_bird_section(evidence: Evidence) -> Section:
    """Of each group of comparable supernets the longest of every trainable and seed.

    Of these the newest 120, because each one's record is read, once: it has the scores of every
    epoch, and MLflow hands it out by a request of its own.
    """
    supernets = finished_supernets(evidence)
    fixed = [supernet for supernet in supernets if not supernet.has_early_bird]
    groups, num_left_out = _newest(grouped(fixed, but={TRAINABLE, EPOCHS, SEED}))
    blocks: list[Block] = []
    missing = list(unfinished_supernets(evidence))
    if not fixed:
        missing.append(f"No supernet of fixed length is finished: `{SWEEP}` trains some.")
    if num_left_out:
        missing.append(
            f"{num_left_out} older supernets are left out, because the section reads the records "
            f"of {_MOST}: `bnnas report --run ID` shows those of one sweep."
        )
    missing += undrawn("older groups of supernets", len(groups))
    drawn = sorted(groups, key=lambda each: -_newest_start(each))[:MOST_PICTURES]
    for group, title in zip(groups, titles(evidence, groups), strict=True):
        courses = [course for each in group.supernets if (course := _course(evidence, each))]
        missing += _gaps(evidence, title, group.supernets, courses)
        if courses:
            blocks += [_picture(title, courses)] if group in drawn else []
            blocks.append(_table(evidence, title, courses))
    stopped = stopped_section(evidence, supernets)
    blocks += stopped.blocks
    missing += stopped.missing
    title = "Early bird: when the ranks settle"
    return Section("early-bird", title, "Fig. 4", tuple(blocks), tuple(missing))


def _newest_start(group: Group) -> float:
    return max(each.run.started_at for each in group.supernets)


def _newest(groups: Sequence[Group]) -> tuple[tuple[Group, ...], int]:
    """The groups with their longest supernets, the newest `_MOST` in all, and how many are not."""
    longest = [Group(group.shared, _longest(group.supernets)) for group in groups]
    rowed = [supernet.run for group in longest for supernet in group.supernets]
    newest = sorted(rowed, key=lambda run: run.started_at, reverse=True)[:_MOST]
    kept_ids = {run.run_id for run in newest}
    kept = [
        Group(group.shared, tuple(each for each in group.supernets if each.run.run_id in kept_ids))
        for group in longest
    ]
    return tuple(group for group in kept if group.supernets), len(rowed) - len(newest)


def _longest(supernets: Sequence[Supernet]) -> tuple[Supernet, ...]:
    """Of every trainable and seed, in the order given."""
    found: dict[tuple[str, int], Supernet] = {}
    for each in supernets:
        key = each.trainable, each.seed
        if key not in found or each.epochs > found[key].epochs:
            found[key] = each
    return tuple(found.values())


def _course(evidence: Evidence, supernet: Supernet) -> _Course | None:
    """None where the record cannot be had, or an epoch has not all its scores."""
    record = evidence.record(supernet.run)
    try:
        if record is None or not record["history"]:
            return None
        space = space_from_dict(record["config"]["space"])
        scores = [scores_of(row, space) for row in record["history"]]
    except (KeyError, TypeError, ValueError):
        return None
    if any(scores_LN is None for scores_LN in scores):
        return None
    return _Course(supernet, space, np.array(scores))


def _gaps(
    evidence: Evidence, title: str, longest: Sequence[Supernet], courses: Sequence[_Course]
) -> list[str]:
    gaps = []
    shown_ids = {course.supernet.run.run_id for course in courses}
    unread = [each.run for each in longest if each.run.run_id not in shown_ids]
    if unread:
        names = ", ".join(dict.fromkeys(run.name for run in unread))
        gaps.append(
            f"{title}: the scores of {names} cannot be read back whole; if their loss was not "
            f"finite, {again(unread[0], 'name=lower_lr')} with a lower supernet.lr records some."
        )
    if len({each.trainable for each in longest}) < 2:
        command = as_sweep(longest[-1].run, "grid.trainable=[all,bn]", "name=trainables")
        gaps.append(f"{title}: there is one trainable only; {command} puts another beside it.")
    unsearched = [each for each in courses if _search_of(evidence, each.supernet) is None]
    if unsearched:
        run = unsearched[-1].supernet.run
        gaps.append(
            f"{title}: {len(unsearched)} of {len(courses)} supernets have no search, hence no "
            f"winner; {as_sweep(run, 'grid.indicator=[bn]', 'name=searched')} searches them."
        )
    return gaps


def _picture(title: str, courses: Sequence[_Course]) -> Picture:
    drawn: dict[str, _Course] = {}
    for course in courses:  # seeds ascend: the lowest of the longest is drawn
        trainable = course.supernet.trainable
        if trainable not in drawn or course.supernet.epochs > drawn[trainable].supernet.epochs:
            drawn[trainable] = course
    panels = [course.panel for course in drawn.values()]
    said = "; ".join(
        f"{panel.label}: {len(panel.similarity_EE)} epochs, "
        + (f"settled after epoch {panel.stop}" if panel.stop else "not settled by the rule")
        for panel in panels
    )
    return Picture(
        "early-bird",
        f"{title}: similarity of the rank vectors between epochs",
        f"A matrix of epochs by epochs for each trainable, dark where ranks are alike. {said}.",
        early_bird_figure(panels),
    )


def _table(evidence: Evidence, title: str, courses: Sequence[_Course]) -> Table:
    return Table(
        "early-bird",
        f"{title}: what the early-bird stop would save",
        _COLUMNS,
        tuple(_row(evidence, course) for course in courses),
        f"The stop is {_RULE}; the figure's similarity is normalised by each matrix's own largest "
        "distance instead, as in the paper. τ is 1 where no rank differs. The winner is exact "
        "search's under the budgets of the search that read the supernet.",
    )


def _row(evidence: Evidence, course: _Course) -> tuple[Cell, ...]:
    supernet, stop = course.supernet, course.stop
    head: tuple[Cell, ...] = (
        supernet.trainable,
        str(supernet.seed),
        tracked(supernet.run, "epochs", plain) or NOTHING,
        tracked(supernet.run, "train/top1", percent) or NOTHING,
    )
    if stop is None:
        return (*head, "never", *[NOTHING] * (len(_COLUMNS) - len(head) - 1))
    then_LN, end_LN = course.scores_ELN[stop], course.scores_ELN[-1]
    saved = len(course.scores_ELN) - stop - 1
    run_ids = (supernet.run.run_id,)
    tau = kendall_tau(rank_vector(then_LN).astype(float), rank_vector(end_LN).astype(float))
    return (
        *head,
        Number.of(stop + 1, plain, Derived(_RULE, run_ids)),
        Number.of(saved, plain, Derived("epochs trained less the epoch of the stop", run_ids)),
        Number.of(
            tau,
            decimals(3),
            Derived("Kendall's τ-b between the rank vectors at the stop and at the end", run_ids),
        ),
        *_winners(evidence, course, then_LN, end_LN),
    )


def _winners(
    evidence: Evidence, course: _Course, then_LN: FloatArray, end_LN: FloatArray
) -> tuple[Cell, Cell]:
    """Whether the winner is the same, and the share of the final score that the early one loses."""
    search = _search_of(evidence, course.supernet)
    if search is None:
        return NOTHING, NOTHING
    try:
        early, final = (_winner(scores_LN, course, search) for scores_LN in (then_LN, end_LN))
    except (TypeError, ValueError):  # budgets that cannot be read, or that nothing keeps
        return NOTHING, NOTHING
    early_score, final_score = gather_sum(end_LN, [early, final]).tolist()
    lost = optimality_gap(early_score, final_score)
    by = "exact search under the budgets of the search that read the supernet"
    runs = course.supernet.run, search
    rule = f"{by}: how far the winner at the stop is below that at the end in final score"
    return (
        yes_or_no(early == final, f"{by}, at the stop and at the end", runs),
        Number.of(lost, percent, Derived(rule, tuple(run.run_id for run in runs))),
    )


def _winner(scores_LN: FloatArray, course: _Course, search: TrackedRun) -> Architecture:
    flops, *others = budgets(section_of(search, "search"), course.space)
    result = exact_search(
        scores_LN,
        flops.table_LN,
        flops.max_cost,
        constant=flops.constant,
        min_cost=flops.min_cost,
        name=flops.name,
        also=others,
    )
    return result.ranked[0].arch


def _search_of(evidence: Evidence, supernet: Supernet) -> TrackedRun | None:
    """The search that read a supernet: the oldest by the BN indicator, or by another one."""
    read = [
        search
        for search in evidence.of("search")
        if search.inputs.get("supernet") == supernet.run.run_id
    ]
    return min(read, key=lambda run: run.params.get("search.indicator") != "bn", default=None)
