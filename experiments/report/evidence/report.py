"""The whole report as a value: every section, and what must be said of the experiment itself."""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from experiments.report.evidence.ablation import ablation_section
from experiments.report.evidence.comparison import comparison_section
from experiments.report.evidence.correlation import correlation_section
from experiments.report.evidence.cost import cost_section
from experiments.report.evidence.detection import detection_section
from experiments.report.evidence.early_bird import early_bird_section
from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.lineage import lineage_section
from experiments.report.evidence.preference import preference_section
from experiments.report.evidence.values import Block, Section

_log = logging.getLogger(__name__)

_NAME_CHARS = 80
SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    ablation_section,
    early_bird_section,
    correlation_section,
    cost_section,
    comparison_section,
    detection_section,
    preference_section,
)


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: of the page.
        summary: how much there is, and where it was read.
        sections: in their order.
        gaps: what concerns all of them.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    gaps: tuple[str, ...] = ()


def build_report(evidence: Evidence) -> Report:
    """All sections; the last one says where every number comes from."""
    sections = [_made(section, evidence) for section in SECTIONS]
    sections.append(lineage_section(evidence, sections))
    sections = _with_own_names(sections)
    experiment = evidence.experiment
    gaps = []
    if not evidence.runs:
        gaps.append(
            "Nothing is tracked in this experiment yet: `bnnas run CONFIG` or `bnnas sweep CONFIG` "
            "with the same tracking.uri and tracking.experiment fill it."
        )
    if experiment.num_foreign:
        gaps.append(
            f"{experiment.num_foreign} run(s) of the experiment are of another program, and left "
            "out."
        )
    return Report(experiment.name, _summary(evidence), tuple(sections), tuple(gaps))


def _made(make: Callable[[Evidence], Section], evidence: Evidence) -> Section:
    """A section; one that fails is a gap, so that the others are there."""
    try:
        return make(evidence)
    except Exception as error:  # noqa: BLE001  # told on the page and logged whole
        _log.exception("A section of the report has failed")
        name = make.__name__.removesuffix("_section").replace("_", "-")
        gap = f"This section has failed, which is a bug: {error!r}."
        return Section(name, name.capitalize(), "", (), (gap,))


def _with_own_names(sections: Iterable[Section]) -> list[Section]:
    """The same with names that are good for files, each of its own.

    Tables and pictures are named after runs, of which several may have one name, of any characters.
    """
    taken: set[tuple[type[Block], str]] = set()

    def own(block: Block) -> Block:
        if isinstance(block, str):
            return block
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", block.name)[:_NAME_CHARS].strip("-.")
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        # Where upper and lower case are one to a file system, they are one here.
        free = next(each for each in candidates if (type(block), each.casefold()) not in taken)
        taken.add((type(block), free.casefold()))
        return replace(block, name=free)

    return [
        replace(section, blocks=tuple(own(block) for block in section.blocks))
        for section in sections
    ]


def _summary(evidence: Evidence) -> str:
    kinds = Counter(run.kind for run in evidence.runs)
    found = ", ".join(f"{kind} ({number})" for kind, number in kinds.items())
    what = f"the runs of {found}" if found else "no runs"
    return f"Made from {what} in the MLflow experiment {evidence.experiment.name!r}."
