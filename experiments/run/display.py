"""What people see while an experiment runs: a table with a line for each task.

On a terminal the table is alive. Elsewhere, one line for each finished stage, failed task and
warning. All of it goes to standard error, so that `--json` leaves standard output to the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from experiments.plan.graph import KINDS


@dataclass
class _Stage:
    """What is known of one stage; tasks that share it show the same."""

    name: str
    total: int = 0
    epoch: int = 0
    text: str = ""
    over: bool = False


@dataclass
class _Line:
    """One task."""

    name: str
    stages: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    metric: str = ""


class Display:
    """Shows events of drivers; safe to use from several threads."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._lock = threading.RLock()
        self._stages: dict[str, _Stage] = {}
        self._lines: list[_Line] = []
        self._title = ""
        self._live: Live | None = None

    @contextmanager
    def live(self, title: str, labels: Sequence[str]) -> Iterator[None]:
        """Show one line for each of `labels` within."""
        self._title, self._lines = title, [_Line(label) for label in labels]
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
        ) as self._live:
            yield
        self._live = None

    def say(self, message: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            self.console.print(message, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning, unless quiet."""
        self.say(f"[yellow]![/] {message}")

    def on_event(self, index: int, event: Mapping[str, Any]) -> None:
        """Take an event of `experiments.run.driver.EventReporter`, of the task at a line."""
        with self._lock:
            line = self._lines[index]
            for warning in event["warnings"]:
                self.warn(f"{line.name}: {warning}")
            if event["event"] == "warned":
                return
            line.stages[event["kind"]] = event["fingerprint"]
            stage = self._stages.setdefault(event["fingerprint"], _Stage(event["name"]))
            if event["event"] == "started":
                stage.total = event["total"]
            elif event["event"] == "advanced":
                stage.epoch = int(event["row"]["epoch"])
            else:
                line.metric = _metric(event) or line.metric
                self._finish_stage(stage, event)

    def on_end(self, index: int, error: str | None) -> None:
        """A task has come to its end, or its result was in the store."""
        with self._lock:
            line = self._lines[index]
            line.error = error
            if error is not None:
                self.say(f"[red]✗[/] {line.name}  {error}")

    def _finish_stage(self, stage: _Stage, event: Mapping[str, Any]) -> None:
        if stage.over:
            return
        stage.over = True
        stage.text = "cached" if event["cached"] else f"{event['wall_s']:.1f} s"
        if self._live is None:
            self.say(f"[green]✓[/] {stage.name}  [dim]{stage.text}[/]  {_metric(event)}".rstrip())

    def _render(self) -> RenderableType:
        with self._lock:
            shown = {kind for line in self._lines for kind in line.stages}
            kinds = [kind for kind in KINDS if kind in shown]
            table = Table(title=self._title, title_justify="left", box=None, padding=(0, 2, 0, 0))
            table.add_column("", no_wrap=True)
            for kind in kinds:
                table.add_column(kind, min_width=10, no_wrap=True)
            table.add_column("", justify="right", no_wrap=True)
            for line in self._lines:
                table.add_row(
                    line.name,
                    *(self._state(line, kind) for kind in kinds),
                    line.metric,
                    style="red" if line.error else None,
                )
            return table

    def _state(self, line: _Line, kind: str) -> str:
        stage = self._stages.get(line.stages.get(kind, ""))
        if stage is None:
            return ""
        if stage.over:
            return f"[green]✓[/] [dim]{stage.text}[/]"
        return f"{stage.epoch}/{stage.total}" if stage.epoch else "[dim]starting[/]"


def _metric(event: Mapping[str, Any]) -> str:
    """How good a stage's network is, where it says so."""
    if event["mAP"] is not None:
        return f"mAP {100 * event['mAP']:.1f}"
    return "" if event["top1"] is None else f"test top-1 {event['top1']:.2%}"
