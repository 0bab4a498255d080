"""What a person sees while an experiment runs and when it is done.

On a terminal: a progress bar per running stage. Elsewhere, one line per finished stage. All of it
goes to standard error, so that `--json` leaves standard output to the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from orchestration.store.stage import Stage
from orchestration.tracking.stage_runs import Done


class Display:
    """Shows stages as they start, progress and end; safe to use from several threads."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Show progress within; warnings of the libraries below appear above the bars."""
        handler = RichHandler(console=self.console, show_path=False, show_time=False)
        loggers = [logging.getLogger(name) for name in ("orchestration", "experiments")]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            with self._progress:
                yield self
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
                logger.propagate = True

    def say(self, message: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            self.console.print(message, highlight=False, soft_wrap=True)

    def started(self, stage: Stage, total: int) -> None:
        """A stage of `total` epochs begins; a second thread that waits for it adds no bar."""
        if stage.fingerprint in self._tasks:
            return
        self._tasks[stage.fingerprint] = self._progress.add_task(
            stage.name, total=total, note="starting workers"
        )

    def advanced(self, stage: Stage, row: Mapping[str, float]) -> None:
        """An epoch of a stage is over."""
        shown = [
            ("loss", "train/loss", ".3f"),
            ("val top-1", "val/top1", ".1%"),
            ("mAP", "coco/bbox_mAP", ".3f"),
        ]
        note = "  ".join(
            f"{name} {row[metric]:{form}}" for name, metric, form in shown if metric in row
        )
        self._progress.update(
            self._tasks[stage.fingerprint], completed=int(row["epoch"]), note=note
        )

    def done(self, done: Done) -> None:
        """A stage is over, or was there already."""
        task = self._tasks.pop(done.stage.fingerprint, None)
        if task is not None:
            self._progress.remove_task(task)
        how = "from cache" if done.cached else f"{done.record.wall_s:.1f} s"
        found = ""
        if "top1" in done.record.metrics:
            found = f"  test top-1 {done.record.metrics['top1']:.2%}"
        elif "coco/bbox_mAP" in done.record.metrics:
            found = f"  mAP {100 * done.record.metrics['coco/bbox_mAP']:.1f}"
        self.say(f"[green]✓[/] {done.stage.name}  [dim]{how}[/]{found}")
