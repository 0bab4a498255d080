"""What a person sees while a sweep runs: a table with a line for each cell.

On a terminal the table is alive. Elsewhere, one line for each finished stage, cell and warning. All
of it goes to standard error, so that `--json` leaves standard output to the machine.
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

from orchestration.jobs.trials import Ended

_KINDS = ("supernet", "search", "retrain")


@dataclass
class _Stage:
    """What is known of one stage; cells that share it show the same."""

    name: str
    total: int = 0
    epoch: int = 0
    text: str = ""
    over: bool = False


@dataclass
class _Line:
    """One cell, or one random architecture."""

    name: str
    stages: dict[str, str] = field(default_factory=dict)
    ended: Ended | None = None
    top1: float | None = None


class SweepDisplay:
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
    def live(self, title: str, names: Sequence[str]) -> Iterator[None]:
        """Show one line for each of `names` within."""
        self._title, self._lines = title, [_Line(name) for name in names]
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

    def event(self, index: int, event: Mapping[str, Any]) -> None:
        """A driver has told something; see `experiments.run.driver.Events`."""
        with self._lock:
            for warning in event["warnings"]:
                self.say(f"[yellow]![/] {self._lines[index].name}: {warning}")
            if event["what"] == "warned":
                return
            fingerprint = event["fingerprint"]
            self._lines[index].stages[event["kind"]] = fingerprint
            stage = self._stages.setdefault(fingerprint, _Stage(event["name"]))
            if event["what"] == "started":
                stage.total = event["total"]
            elif event["what"] == "advanced":
                stage.epoch = int(event["row"]["epoch"])
            else:
                self._lines[index].top1 = event["top1"]
                self._over(stage, event)

    def finished(self, index: int, ended: Ended) -> None:
        """A driver has come to its end, or its result was in the store."""
        with self._lock:
            line = self._lines[index]
            line.ended = ended
            if ended.error is not None:
                self.say(f"[red]✗[/] {line.name}  {ended.error}")

    def _over(self, stage: _Stage, event: Mapping[str, Any]) -> None:
        if stage.over:
            return
        stage.over = True
        stage.text = "cached" if event["cached"] else f"{event['wall_s']:.1f} s"
        if self._live is None:
            found = "" if event["top1"] is None else f"  test top-1 {event['top1']:.2%}"
            self.say(f"[green]✓[/] {stage.name}  [dim]{stage.text}[/]{found}")

    def _render(self) -> RenderableType:
        with self._lock:
            table = Table(title=self._title, title_justify="left", box=None, padding=(0, 2, 0, 0))
            table.add_column("cell", no_wrap=True)
            for kind in _KINDS:
                table.add_column(kind, min_width=10, no_wrap=True)
            table.add_column("test top-1", justify="right")
            for line in self._lines:
                table.add_row(
                    line.name,
                    *(self._state(line, kind) for kind in _KINDS),
                    "" if line.top1 is None else f"{line.top1:.2%}",
                    style="red" if line.ended is not None and line.ended.error else None,
                )
            return table

    def _state(self, line: _Line, kind: str) -> str:
        stage = self._stages.get(line.stages.get(kind, ""))
        if stage is None:
            return ""
        if stage.over:
            return f"[green]✓[/] [dim]{stage.text}[/]"
        return f"{stage.epoch}/{stage.total}" if stage.epoch else "[dim]starting[/]"
