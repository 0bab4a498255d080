"""Do indicators order architectures as retraining does (Fig. 6)?

For every study its figure, Kendall's τ of each indicator, and how much of the differences is
chance. The paper says that `bn` is as good as `accuracy`. The question that it leaves open is
whether either says more than size does: `flops` and `params` cost nothing, and larger networks are
better.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping

import pandas as pd

from experiments.figures.correlation import correlation_figure
from experiments.report.formats import decimals, percent
from experiments.report.run_table import Runs, value
from experiments.report.tables import MOST_PICTURES, NOTHING, Block, Entry, Picture, Section, Table
from experiments.run.study import Study
from nas.ranking import Interval
from orchestration.store import json_text
from orchestration.tracking.reader import TrackedRun

_MISSING = (
    "`bnnas run experiments/configs/correlation_cifar10.yaml --set data.root=CIFAR10` makes a "
    "study on the paper's images, `bnnas run experiments/configs/correlation_fashion_mnist.yaml` "
    "one that a CPU can bear."
)
_PAPER = (
    "The paper trains a supernet on CIFAR-10 for 600 epochs, retrains 100 random architectures, "
    "and says of Fig. 6 that the BN indicator has a Kendall's τ “similar” to that of SPOS's "
    "accuracy. Its text gives no τ in numbers, so none of the paper's stands beside those below."
)
_TABLE = "correlation.csv"
# Heading → metric of each indicator, whose name goes on with the indicator's.
_TAUS = {
    "τ": "tau",
    "τ from": "tau_low",
    "τ to": "tau_high",
    "less bn's τ": "tau_over_bn",
    "less bn's from": "tau_over_bn_low",
    "less bn's to": "tau_over_bn_high",
    "τ within FLOPs bins": "tau_within",
    "within bins from": "tau_within_low",
    "within bins to": "tau_within_high",
    "τ with test loss": "tau_loss",
    "spread of τ over seeds": "tau_seed_std",
}
_NOTE = (
    "1 is the same order, −1 the reverse. Scores and top-1 are means over seeds. “From” and “to” "
    "are the ends of 95 % intervals by a bootstrap over architectures, which are the same for two "
    "indicators that are compared. Within bins only architectures of about one size are compared. "
    "Of test loss less is better. The spread is the standard deviation of τ when each seed's "
    "scores are taken alone."
)
_SPREAD_NOTE = (
    "Reliability is the architectures' share of the variance of single retrainings, 0 to 1: where "
    "it is small, another seed gives another order, which nothing can predict."
)
_MEASURED = {
    "top1": ("test top-1 (points)", percent),
    "test_loss": ("test loss", decimals(4)),
}


def correlation_section(runs: Runs) -> Section:
    """Every correlation study, the newest first."""
    studies = [runs.by_id[run_id] for run_id in reversed(runs.of_kind("correlate").index)]
    shown = [study for study in studies if _indicators(study)]
    blocks: list[Block] = [_PAPER] if shown else []
    for place, run in enumerate(shown):
        study = _read(runs, run) if place < MOST_PICTURES else None
        if study is not None:
            blocks.append(_picture(study, run))
        blocks.append(_agreement_table(run, "" if study is None else _bins(study)))
        if (spreads := _spread_table(run)).rows:
            blocks.append(spreads)
    return Section(
        "correlation",
        "Correlation with the accuracy after retraining",
        "Fig. 6",
        tuple(blocks),
        "" if any(run.params.get("data") == "cifar10" for run in shown) else _MISSING,
        _summary(shown[0]) if shown else (),
    )


def _indicators(run: TrackedRun) -> list[str]:
    """Those that were judged, in the order of the study's config."""
    judged = sorted(name.removeprefix("tau/") for name in run.metrics if name.startswith("tau/"))
    order = _values(run.params.get("indicators", "[]"))
    return sorted(judged, key=lambda name: [*order, name].index(name))


def _values(param: str) -> list[str]:
    """A param that is a list; empty where it is none, as MLflow cuts those that are too long."""
    try:
        values = json_text.loads(param)
    except ValueError:
        return []
    return [str(each) for each in values] if isinstance(values, list) else []


def _intervals(run: TrackedRun, metric: str) -> Mapping[str, Interval]:
    """Of the indicators that have the metric and the ends of its interval, all finite."""
    intervals = {}
    for name in _indicators(run):
        ends = [run.metrics.get(f"{metric}{end}/{name}", math.nan) for end in ("", "_low", "_high")]
        if all(map(math.isfinite, ends)):
            intervals[name] = Interval(*ends)
    return intervals


def _read(runs: Runs, run: TrackedRun) -> Study | None:
    """The architectures; None where they cannot be had, or the table is damaged."""
    text = runs.artifacts.document(run, _TABLE)
    try:
        if text is None:
            return None
        given = run.params.get("num_bins", "")
        if given.isdigit():
            return Study.from_csv(text, int(given))
        bins = [int(line.get("flops_bin") or "") for line in csv.DictReader(io.StringIO(text))]
        return Study.from_csv(text, max(bins, default=0) + 1)
    except ValueError:
        return None


def _picture(study: Study, run: TrackedRun) -> Picture:
    taus = _intervals(run, "tau")
    read_off = "; ".join(
        f"{name} τ {tau.value:.2f}, 95 % interval {tau.low:.2f} to {tau.high:.2f}"
        for name, tau in taus.items()
    )
    return Picture(
        f"correlation-{run.name}",
        f"{run.name}: score of each indicator against test top-1",
        f"A panel for each of {', '.join(study.indicators)}: the scores of {len(study.rows)} "
        f"architectures against their test top-1 in percent, coloured by FLOPs. {read_off}.",
        lambda: correlation_figure(
            {name: study.scores_BS(name) for name in study.indicators},
            study.top1_BS,
            study.flops_B,
            study.bins_B,
            taus,
        ),
    )


def _bins(study: Study) -> str:
    """How many architectures a bin of FLOPs has, and what they cost."""
    bins = pd.Series(study.flops_B / 1e6).groupby(study.bins_B)
    parts = [f"{len(mine)} ({mine.min():.2f} to {mine.max():.2f} M)" for _, mine in bins]
    return f" Architectures in each bin of FLOPs: {', '.join(parts)}."


def _agreement_table(run: TrackedRun, bins: str) -> Table:
    rows = [
        {
            "indicator": name,
            **{h: value(run, f"{metric}/{name}", decimals(2)) for h, metric in _TAUS.items()},
        }
        for name in _indicators(run)
    ]
    return Table.of(
        f"agreement-{run.name}",
        f"{run.name}: Kendall's τ of each indicator with test top-1 after retraining",
        rows,
        _NOTE + bins,
        brief=("indicator", "τ", "less bn's τ", "τ within FLOPs bins"),
    )


def _spread_table(run: TrackedRun) -> Table:
    """How much architectures differ, beside how much one differs from itself; empty if unknown."""
    rows: list[dict[str, Entry]] = []
    for name, (label, form) in _MEASURED.items():
        found: dict[str, Entry] = {
            "between architectures": value(run, f"between/{name}", form),
            "between seeds": value(run, f"within/{name}", form),
            "reliability": value(run, f"reliability/{name}", decimals(2)),
        }
        if set(found.values()) != {NOTHING}:
            rows.append({"standard deviation of": label, **found})
    title = f"{run.name}: how much of the differences is the architectures'"
    return Table.of(f"spread-{run.name}", title, rows, _SPREAD_NOTE)


def _summary(run: TrackedRun) -> tuple[str, ...]:
    """What was asked, what was found, and how sure that is."""
    params, metrics = run.params, run.metrics
    seeds = ", ".join(_values(params.get("seeds", "[]"))) or "?"
    num = params.get("num_architectures", "?")
    asked = (
        f"Asked: whether indicators order {num} architectures of the space "
        f"{params.get('space', '?')} on {params.get('data', '?')} as retraining them for "
        f"{params.get('retrain_epochs', '?')} epochs does, with a supernet that trains "
        f"{params.get('trainable', '?')} for {params.get('supernet_epochs', '?')} epochs (seeds "
        f"{seeds})."
    )
    sentences = [asked]
    for metric, start in (
        ("tau", "Found: Kendall's τ with test top-1 and its 95 % interval"),
        ("tau_over_bn", "Less that of bn over the same architectures"),
        ("tau_within", "Among architectures of about one size"),
    ):
        parts = [
            f"{name} {each.value:z.2f} [{each.low:z.2f}, {each.high:z.2f}]"
            for name, each in _intervals(run, metric).items()
        ]
        if parts:
            sentences.append(f"{start}: {', '.join(parts)}.")
    if {"between/top1", "within/top1", "reliability/top1"} <= set(metrics):
        sentences.append(
            f"How sure: test top-1 differs by {percent(metrics['between/top1'])} points between "
            f"architectures and by {percent(metrics['within/top1'])} between seeds of one "
            f"(reliability {metrics['reliability/top1']:.2f})."
        )
    else:
        sentences.append(
            "How sure: with one seed it is not known how much of the differences is chance; "
            "several `seeds` say it."
        )
    return tuple(sentences)
