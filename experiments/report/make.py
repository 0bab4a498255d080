"""Making a report: from an MLflow experiment to a folder, and to the run that it is about."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report.evidence.evidence import Evidence
from experiments.report.evidence.report import Report, build_report
from experiments.report.page import ENTRIES, MARK, PAGE, write_page
from orchestration.store.whole_folder import whole_folder
from orchestration.tracking.reader import TrackedExperiment, read_experiment
from orchestration.tracking.tracker import Tracker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """A report that is on disk."""

    report: Report
    folder: Path

    @property
    def page(self) -> Path:
        """What a browser opens."""
        return self.folder / PAGE

    def to_json(self) -> dict[str, Any]:
        """What `bnnas report --json` prints."""
        return {
            "page": str(self.page),
            "experiment": self.report.title,
            "gaps": list(self.report.gaps),
            "sections": [
                {
                    "key": section.key,
                    "tables": [table.name for table in section.tables],
                    "figures": [picture.name for picture in section.pictures],
                    "missing": list(section.missing),
                }
                for section in self.report.sections
            ],
        }


def make_report(experiment: TrackedExperiment, folder: Path) -> Written:
    """Write the report of an experiment into a folder, in the place of an earlier one.

    Raises ValueError where something else lies there, or nothing can be written.
    """
    require_report_or_nothing(folder)
    report = build_report(Evidence(experiment))
    try:
        with whole_folder(folder, replace=True) as part:
            write_page(report, part)
    except OSError as error:
        raise ValueError(
            f"The report cannot be written to {folder} ({error.strerror or error}): give another "
            "folder with --out."
        ) from error
    return Written(report, folder)


def require_report_or_nothing(folder: Path) -> None:
    """Raise ValueError where a report cannot be put without taking the place of something else."""
    if folder.exists() and not is_report(folder):
        raise ValueError(
            f"The folder {str(folder)!r} holds other things than a report: name one with --out "
            "that is empty or does not exist."
        )


def is_report(folder: Path) -> bool:
    """Whether a folder is empty, or holds a report of ours and nothing else."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    return names <= ENTRIES and PAGE in names and MARK in (folder / PAGE).read_text("utf-8")[:2000]


def keep_report(tracker: Tracker, run_id: str | None, folder: Path) -> Path | None:
    """The report of a group's run, on disk and among the run's artifacts.

    Returns the page's path; None, with a warning, where MLflow or the disk is away. No result is
    lost by that: `bnnas report` makes it later.
    """
    if run_id is None:
        return None
    try:
        experiment = read_experiment(tracker.uri, tracker.experiment).part(run_id)
        written = make_report(experiment, folder)
        with tracker.session() as client:
            client.log_artifacts(run_id, str(folder), "report")
    except Exception as error:  # noqa: BLE001  # hours of results do not end in a page's bug
        known = isinstance(error, ValueError | OSError)
        _log.warning(
            "There is no report yet: %s 'bnnas report' makes it later.",
            error if known else repr(error),
            exc_info=not known,
        )
        return None
    return written.page
