"""The run of a correlation study: its indicators, their τ, its architectures, and its gaps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from experiments.figures.study import Study
from experiments.report.evidence.gaps import again
from nas.ranking import Interval
from orchestration.store import json_text
from orchestration.tracking.reader import TrackedExperiment, TrackedRun

TABLE = "correlation.csv"
# Metrics of each indicator, whose names go on with the indicator's; the last needs several seeds.
TAUS = (
    *("tau", "tau_low", "tau_high"),
    *("tau_within", "tau_within_low", "tau_within_high"),
    *("tau_loss", "tau_seed_std"),
)
# The same of all indicators but bn.
OVER_BN = ("tau_over_bn", "tau_over_bn_low", "tau_over_bn_high")
# Metrics of what was measured of the architectures; they need several seeds, too.
SPREADS = ("between", "within", "reliability")
MEASURED = ("top1", "test_loss")
# What Fig. 6 compares.
_COMPARED = ("bn", "accuracy")
# Params in which studies may differ that ask the same architectures about other supernets.
_OF_SUPERNET = ("trainable", "indicators")


@dataclass(frozen=True)
class CorrelationRun:
    """A study as MLflow has it."""

    run: TrackedRun

    @property
    def name(self) -> str:
        """What the study is called."""
        return self.run.name

    @property
    def seeds(self) -> list[str]:
        """Those of supernets and retrainings."""
        return _listed(self.run.params.get("seeds", "[]"))

    @property
    def again(self) -> str:
        """The command that made the study, and goes on with it."""
        return again(self.run)

    @cached_property
    def indicators(self) -> list[str]:
        """Those that were judged, in the order of the study's config."""
        prefix = "tau/"
        found = [name for name in self.run.metrics if name.startswith(prefix)]
        judged = sorted(name.removeprefix(prefix) for name in found)
        order = _listed(self.run.params.get("indicators", "[]"))
        return sorted(judged, key=lambda name: [*order, name].index(name))

    @cached_property
    def taus(self) -> Mapping[str, Interval]:
        """Kendall's τ with its interval, of the indicators that have all three, and finite."""
        return self._intervals("tau")

    @cached_property
    def over_bn(self) -> Mapping[str, Interval]:
        """By how much τ of an indicator is more than bn's, likewise; older studies do not say."""
        return self._intervals("tau_over_bn")

    @cached_property
    def within(self) -> Mapping[str, Interval]:
        """τ within bins of FLOPs, likewise."""
        return self._intervals("tau_within")

    def _intervals(self, metric: str) -> Mapping[str, Interval]:
        found = {}
        for name in self.indicators:
            names = [f"{each}/{name}" for each in (metric, f"{metric}_low", f"{metric}_high")]
            three = [self.run.metrics.get(each, math.nan) for each in names]
            if all(map(math.isfinite, three)):
                found[name] = Interval(*three)
        return found

    def is_same_on_another_supernet(self, other: CorrelationRun) -> bool:
        """Whether the two differ in what their supernets train, and in that alone."""
        ours, theirs = (
            {name: value for name, value in run.params.items() if name not in _OF_SUPERNET}
            for run in (self.run, other.run)
        )
        return ours == theirs and self.run.params["trainable"] != other.run.params["trainable"]

    def read(self, experiment: TrackedExperiment) -> Study:
        """The architectures; raises ValueError where they cannot be had."""
        text = experiment.document(self.run, TABLE)
        if text is None:
            raise ValueError("it is not there")
        given = self.run.params.get("num_bins", "")
        if given.isdigit():
            return Study.from_csv(text, int(given))
        bins = [line.get("flops_bin") for line in csv.DictReader(io.StringIO(text))]
        return Study.from_csv(text, max((int(each or "") for each in bins), default=0) + 1)

    def gaps(self) -> list[str]:
        """What the run does not have, and why; a sentence each."""
        gaps = self._unfinished()
        if self.indicators:
            return gaps + self._unmeasured()
        if self.run.status == "FINISHED":
            gaps.append(
                f"The study {self.name} has fewer than three architectures with all their "
                f"measurements, and so no ranking to compare: {self.again} with a larger "
                "correlate.num_architectures fills it."
            )
        return gaps

    def left_out(self, study: Study) -> list[str]:
        """Architectures that were asked for, and are not in the study as it was read."""
        num = len(study.rows)
        judged = self.run.metrics.get("num_architectures", num)
        if judged != num:
            return [
                f"The figure of {self.name} shows {num} architectures, and its numbers are of "
                f"{judged:.0f}: {self.again} writes its {TABLE} anew."
            ]
        planned = self.run.params.get("num_architectures", "")
        if planned.isdigit() and int(planned) > num:
            return [
                f"{int(planned) - num} of the {planned} architectures of {self.name} have not been "
                f"retrained with every seed, and are left out: {self.again} tries that again."
            ]
        return []

    def _unfinished(self) -> list[str]:
        if self.run.status == "FINISHED":
            return []
        if self.run.status in ("FAILED", "KILLED"):
            why = f" ({self.run.error})" if self.run.error else ""
            return [
                f"Something of the study {self.name} has failed{why}: {self.again} tries that "
                "again, and nothing else."
            ]
        return [
            f"The study {self.name} has not come to its end: `bnnas status CONFIG` says how far it "
            f"is, and if nothing is running any more, {self.again} goes on with it."
        ]

    def _unmeasured(self) -> list[str]:
        gaps = []
        metrics = self.run.metrics
        wanted, spreads = list(TAUS), list(SPREADS)
        if len(self.seeds) < 2:
            del wanted[-1], spreads[:]
            gaps.append(
                f"The study {self.name} has one seed, so how much of its differences is chance is "
                "not known: several `seeds` in its file, such as [0, 1], say it."
            )
        names = [f"{tau}/{name}" for tau in wanted for name in self.indicators]
        if "bn" in self.indicators:
            names += [
                f"{tau}/{name}" for tau in OVER_BN for name in self.indicators if name != "bn"
            ]
        names += [f"{kind}/{name}" for kind in spreads for name in MEASURED]
        if absent := dict.fromkeys(name.partition("/")[0] for name in names if name not in metrics):
            gaps.append(
                f"The study {self.name} does not have all of {', '.join(absent)}: {self.again} "
                "adds them."
            )
        odd = [name for name in self.indicators if not math.isfinite(metrics[f"tau/{name}"])]
        if odd:
            gaps.append(
                f"In the study {self.name} τ of {', '.join(odd)} is not defined, because all its "
                "scores are equal, or all architectures equally good."
            )
        if unasked := [name for name in _COMPARED if name not in self.indicators]:
            gaps.append(
                f"The study {self.name} does not judge {' and '.join(unasked)}, which Fig. 6 is "
                f"about: {self.again} with it in correlate.indicators does."
            )
        return gaps


def _listed(param: str) -> list[str]:
    """A param that is a list; empty where it is none, as MLflow cuts those that are too long."""
    try:
        value = json_text.loads(param)
    except ValueError:
        return []
    return [str(each) for each in value] if isinstance(value, list) else []
