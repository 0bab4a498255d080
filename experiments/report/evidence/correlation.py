"""The correlation section: do indicators order architectures as retraining does (Fig. 6)?

For every study its figure, Kendall's τ of each indicator, how much of the differences is chance,
and in words what follows from these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.figures.study import Study
from experiments.report.correlation import correlation_figure
from experiments.report.evidence.correlation_run import (
    MEASURED,
    OVER_BN,
    SPREADS,
    TABLE,
    TAUS,
    CorrelationRun,
)
from experiments.report.evidence.correlation_verdict import verdict
from experiments.report.evidence.evidence import Evidence, tracked
from experiments.report.evidence.gaps import MOST_PICTURES, again, undrawn
from experiments.report.evidence.units import Show, decimals, percent
from experiments.report.evidence.values import NOTHING, Block, Cell, Picture, Section, Table

_COMMAND = "bnnas correlate experiments/configs/correlation_fashion_mnist.yaml"
_PAPERS_COMMAND = "bnnas correlate experiments/configs/correlation_cifar10.yaml"
_PAPER = (
    "The paper trains a supernet on CIFAR-10 for 600 epochs, retrains 100 random architectures, "
    "and says of Fig. 6 that the BN indicator has a Kendall's τ “similar” to that of SPOS's "
    "accuracy. Its text gives no τ in numbers, so none of the paper's stands beside those below."
)
_TAU_HEADINGS = (
    *("τ", "τ from", "τ to"),
    *("less bn's τ", "less bn's from", "less bn's to"),
    *("τ within FLOPs bins", "within bins from", "within bins to"),
    *("τ with test loss", "spread of τ over seeds"),
)
_SHOWN: Mapping[str, tuple[str, Show]] = {
    "top1": ("test top-1 (points)", percent),
    "test_loss": ("test loss", decimals(4)),
}


def correlation_section(evidence: Evidence) -> Section:
    """Every correlation study, the newest first."""
    blocks: list[Block] = [_PAPER]
    missing: list[str] = []
    studies = [CorrelationRun(run) for run in evidence.of("correlate")[::-1]]
    for number, study in enumerate(studies):
        found = _study(evidence, study, studies, draw=number < MOST_PICTURES)
        blocks += found.blocks
        missing += found.missing
    missing += undrawn("older studies", len(studies))
    if not studies:
        missing.append(f"No correlation study is tracked: `{_COMMAND}` makes one.")
    elif all(study.run.params.get("data") != "cifar10" for study in studies):
        missing.append(
            f"No study is on CIFAR-10, as the paper's is: `{_PAPERS_COMMAND} --set data.root=…` "
            "makes it."
        )
    title = "Correlation with the accuracy after retraining"
    return Section("correlation", title, "Fig. 6", tuple(blocks), tuple(missing))


def _study(
    evidence: Evidence, run: CorrelationRun, all_runs: Sequence[CorrelationRun], *, draw: bool
) -> Section:
    """One study, as if it were a section of its own."""
    missing = run.gaps()
    if not run.indicators:
        return Section("", "", "", (), tuple(missing))
    blocks: list[Block] = [_what_it_is(run)]
    bins = ""
    try:
        study = run.read(evidence.experiment)
        blocks += [_picture(study, run)] if draw else []
        bins = _bins(study)
        missing += run.left_out(study)
    except ValueError as error:
        missing.append(
            f"The study {run.name} has no figure, because its {TABLE} cannot be read "
            f"({str(error).rstrip('.')}): {run.again} writes it anew."
        )
    blocks.append(_agreement_table(run, bins))
    blocks += _spread_tables(run)
    sentences = verdict(run.taus, run.over_bn, run.within)
    if run.run.params.get("trainable", "all") != "all" and "accuracy" in run.indicators:
        said, gap = _on_spos_supernet(run, all_runs)
        sentences += said
        missing += gap
    blocks += [" ".join(sentences)] if sentences else []
    return Section("", "", "", tuple(blocks), tuple(missing))


def _on_spos_supernet(
    run: CorrelationRun, all_runs: Sequence[CorrelationRun]
) -> tuple[list[str], list[str]]:
    """What accuracy says on a supernet that trains all, as SPOS has it; and if nobody asked."""
    trainable = run.run.params["trainable"]
    others = [
        other
        for other in all_runs
        if other.run.params.get("trainable") == "all" and run.is_same_on_another_supernet(other)
    ]
    if not others:
        on_all = again(run.run, "supernet.trainable=all", f"name={run.name}_all")
        return [], [
            f"The study {run.name} has accuracy on a supernet that trains {trainable} alone, and "
            f"SPOS trains all: {on_all} adds that, and retrains nothing again."
        ]
    found = [other for other in others if "accuracy" in other.taus]
    if not found or "bn" not in run.taus:
        return [], []
    return [
        f"On a supernet that trains all, as SPOS's does, accuracy has τ "
        f"{found[0].taus['accuracy'].value:.2f} ({found[0].name}), beside the "
        f"{run.taus['bn'].value:.2f} of bn here."
    ], []


def _what_it_is(run: CorrelationRun) -> str:
    params, seeds = run.run.params, run.seeds
    return (
        f"{run.name}: the supernet trains {params.get('trainable', '?')} for "
        f"{params.get('supernet_epochs', '?')} epochs in the space {params.get('space', '?')} on "
        f"{params.get('data', '?')}; {params.get('num_architectures', '?')} architectures are "
        f"retrained for {params.get('retrain_epochs', '?')} epochs with "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds) or '?'}."
    )


def _picture(study: Study, run: CorrelationRun) -> Picture:
    return Picture(
        f"correlation-{run.name}",
        f"{run.name}: score of each indicator against test top-1",
        _alt(study, run),
        correlation_figure(study, run.taus),
    )


def _alt(study: Study, run: CorrelationRun) -> str:
    read_off = "; ".join(
        f"{name} τ {tau.value:.2f}, 95 % interval {tau.low:.2f} to {tau.high:.2f}"
        for name, tau in run.taus.items()
    )
    return (
        f"A panel for each of {', '.join(study.indicators)}: the scores of {len(study.rows)} "
        f"architectures against their test top-1 in percent, coloured by FLOPs. {read_off}."
    )


def _bins(study: Study) -> str:
    """How many architectures a bin of FLOPs has, and what they cost."""
    flops_B = np.array([row.flops for row in study.rows])
    parts = []
    for number in sorted(set(study.bins_B.tolist())):
        mine = flops_B[study.bins_B == number]
        parts.append(f"{len(mine)} ({mine.min() / 1e6:.2f} to {mine.max() / 1e6:.2f} M)")
    return f" Architectures in each bin of FLOPs: {', '.join(parts)}."


def _agreement_table(run: CorrelationRun, bins: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in run.indicators:
        metrics = (*TAUS[:3], *OVER_BN, *TAUS[3:])
        numbers = [tracked(run.run, f"{metric}/{name}", decimals(2)) for metric in metrics]
        rows.append((name, *(number or NOTHING for number in numbers)))
    return Table(
        f"agreement-{run.name}",
        f"{run.name}: Kendall's τ of each indicator with test top-1 after retraining",
        ("indicator", *_TAU_HEADINGS),
        tuple(rows),
        "1 is the same order, −1 the reverse. Scores and top-1 are means over seeds. “From” and "
        "“to” are the ends of 95 % intervals by a bootstrap over architectures, which are the same "
        "for two indicators that are compared. Within bins only architectures of about one size "
        "are compared. Of test loss less is better. The spread is the standard deviation of τ when "
        f"each seed's scores are taken alone.{bins}",
    )


def _spread_tables(run: CorrelationRun) -> list[Table]:
    """How much architectures differ, beside how much one differs from itself; none if not known."""
    rows: list[tuple[Cell, ...]] = []
    for name in MEASURED:
        label, show = _SHOWN[name]
        shows = (show, show, decimals(2))
        numbers = [
            tracked(run.run, f"{kind}/{name}", each)
            for kind, each in zip(SPREADS, shows, strict=True)
        ]
        if any(numbers):
            rows.append((label, *(number or NOTHING for number in numbers)))
    if not rows:
        return []
    return [
        Table(
            f"spread-{run.name}",
            f"{run.name}: how much of the differences is the architectures'",
            ("standard deviation of", "between architectures", "between seeds", "reliability"),
            tuple(rows),
            "Reliability is the architectures' share of the variance of single retrainings, 0 to "
            "1: where it is small, another seed gives another order, which nothing can predict.",
        )
    ]
