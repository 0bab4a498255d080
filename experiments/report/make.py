"""Making a report: from tracked runs to values, and from these to a folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.report.ablation import ablation_section
from experiments.report.comparison import comparison_section
from experiments.report.correlation import correlation_section
from experiments.report.cost import cost_section
from experiments.report.detection import detection_section
from experiments.report.early_bird import early_bird_section
from experiments.report.lineage import lineage_section
from experiments.report.page import ENTRIES, GENERATOR, PAGE, write_page
from experiments.report.preference import preference_section
from experiments.report.run_table import Runs
from experiments.report.tables import Block, Picture, Section
from orchestration.store.whole_folder import whole_folder
from orchestration.tracking.tracker import CELL, Tracker

_log = logging.getLogger(__name__)
_NAME_CHARS = 80
_HEAD_CHARS = 1000  # of a page, that have what says whose it is
_MOST_SENTENCES = 5
_EMPTY = (
    "Nothing is tracked in this experiment yet: `bnnas run CONFIG` with the same tracking.uri and "
    "tracking.experiment fills it."
)
SECTIONS: dict[str, Callable[[Runs], Section]] = {
    "ablation": ablation_section,
    "early-bird": early_bird_section,
    "correlation": correlation_section,
    "cost": cost_section,
    "comparison": comparison_section,
    "detection": detection_section,
    "preference": preference_section,
}


@dataclass(frozen=True)
class Report:
    """What the page and the terminal show.

    Attributes:
        experiment: name of the MLflow experiment.
        title: of the page: what was run.
        sections: in their order, the last one about lineage and cost.
        digest: of all that the report is made of, this program's part in it included.
    """

    experiment: str
    title: str
    sections: tuple[Section, ...]
    digest: str

    @property
    def shown(self) -> tuple[Section, ...]:
        """Those that have results, less that about lineage."""
        return tuple(section for section in self.sections[:-1] if section.blocks)

    @property
    def lineage(self) -> Section:
        """The one about lineage and cost."""
        return self.sections[-1]

    @property
    def summary(self) -> tuple[str, ...]:
        """What was asked, what was found, and how sure that is."""
        sentences: tuple[str, ...] = ()
        for section in self.shown:
            if len(sentences) + len(section.summary) <= _MOST_SENTENCES:  # all of them or none
                sentences += section.summary
        return sentences or ("" if self.shown else _EMPTY,)

    @property
    def headline(self) -> Picture | None:
        """The figure at the top: of the ablation, else of a study, else of a detector."""
        of_these = ("ablation", "correlation", "detection")
        pictures = [each for key in of_these for each in self.section(key).pictures]
        return pictures[0] if pictures else None

    @property
    def missing(self) -> tuple[str, ...]:
        """What could be added, a line a section."""
        return tuple(section.missing for section in self.sections if section.missing)

    def section(self, key: str) -> Section:
        """One of the sections; an empty one if there is none."""
        return next((s for s in self.sections if s.key == key), Section(key, "", ""))

    def to_json(self, page: Path) -> dict[str, Any]:
        """What `bnnas report --json` prints."""
        return {
            "page": str(page),
            "experiment": self.experiment,
            "gaps": [] if self.shown else [_EMPTY],
            "sections": [
                {
                    "key": section.key,
                    "tables": [table.name for table in section.tables],
                    "figures": [picture.name for picture in section.pictures],
                    "missing": [section.missing] if section.missing else [],
                }
                for section in self.sections
            ],
        }


def build_report(runs: Runs) -> Report:
    """All sections; nothing is drawn or written."""
    sections = [_section(key, make, runs) for key, make in SECTIONS.items()]
    named = _with_own_names([*sections, lineage_section(runs)])
    return Report(runs.experiment, _title(runs), tuple(named), _digest(runs))


def _title(runs: Runs) -> str:
    """The name of the one experiment that there is, a detector beside it aside; else MLflow's."""
    alone = [run for run in runs.tracked if run.parent_run_id not in runs.by_id]
    names = {
        kinds: {run.tags.get(CELL, run.name) for run in alone if run.kind in kinds}
        for kinds in (("sweep", "correlate", "cell"), ("detect",))
    }
    titles = next(filter(None, names.values()), set())
    return titles.pop() if len(titles) == 1 else runs.experiment


def _section(key: str, make: Callable[[Runs], Section], runs: Runs) -> Section:
    """A section; one that fails says so, so that the others are there."""
    try:
        return make(runs)
    except Exception as error:  # noqa: BLE001  # shown on the page and logged whole
        _log.exception("A section of the report has failed")
        failed = f"This section has failed, which is a bug; the log has its traceback: {error}"
        return Section(key, key.capitalize(), "", (failed,))


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


def _digest(runs: Runs) -> str:
    """Of the rows, and of the code that makes a report of them."""
    digest = hashlib.sha256()
    room = Path(__file__).parent
    for file in sorted((*room.iterdir(), *room.with_name("figures").iterdir())):
        if file.suffix in (".py", ".jinja", ".yaml"):
            digest.update(file.read_bytes())
    for run in runs.tracked:
        row = (run.run_id, run.name, run.status, run.params, run.metrics, run.tags)
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def write_report(report: Report, folder: Path) -> Path:
    """Write a report into a folder, in the place of an earlier one; returns the page's path.

    One that is current stays as it is.

    Raises:
        ValueError: something else lies there, or nothing can be written.
    """
    require_report_or_nothing(folder)
    page = folder / PAGE
    if not is_current(report, folder):
        try:
            with whole_folder(folder, replace=True) as part:
                write_page(report, part)
        except OSError as error:
            raise ValueError(
                f"The report cannot be written to {folder} ({error.strerror or error}): give "
                "another folder with --out."
            ) from error
    return page


def keep_report(report: Report, folder: Path, tracker: Tracker, run_id: str | None) -> Path | None:
    """Write the report of an experiment, and attach it to the experiment's run, if it has one.

    Returns the page's path; None, with a warning, where it could not be written. No result is lost
    by that: `bnnas report` makes it later. One that is current is not attached again.
    """
    try:
        was_current = is_current(report, folder)
        page = write_report(report, folder)
    except Exception as error:  # noqa: BLE001  # hours of results do not end in a page's bug
        is_known = isinstance(error, ValueError)
        _log.warning(
            "There is no report yet: %s 'bnnas report' makes it later.",
            error if is_known else repr(error),
            exc_info=not is_known,
        )
        return None
    if run_id is not None and not was_current:
        try:
            with tracker.session() as client:
                client.log_artifacts(run_id, str(folder), "report")
        except Exception as error:  # noqa: BLE001  # every artifact store has errors of its own
            _log.warning("The report is not in MLflow: %s", error)
    return page


def is_current(report: Report, folder: Path) -> bool:
    """Whether a folder holds this report."""
    return f'name="digest" content="{report.digest}"' in _head(folder)


def require_report_or_nothing(folder: Path) -> None:
    """Raise ValueError where a report cannot be put without taking the place of something else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {str(folder)}
    is_report = names <= ENTRIES and GENERATOR in _head(folder)
    if folder.exists() and names and not is_report:
        raise ValueError(
            f"The folder {str(folder)!r} holds other things than a report: name one with --out "
            "that is empty or does not exist."
        )


def _head(folder: Path) -> str:
    """The first characters of the page; empty where there is none."""
    page = folder / PAGE
    if not page.is_file():
        return ""
    with page.open(encoding="utf-8") as file:
        return file.read(_HEAD_CHARS)
