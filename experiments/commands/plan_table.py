"""What `bnnas plan` prints: what would be made, what it would cost, and how that is known."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from experiments.plan.elapsed import Elapsed
from experiments.plan.forecast import Estimate, Forecast
from experiments.plan.graph import PlannedStage


def print_plan(forecast: Forecast, console: Console, elapsed: Elapsed | None = None) -> None:
    """The stages, and the device time of all that are missing; on a cluster, how long it takes."""
    table = Table(title=f"{escape(forecast.listed.name)}: what would be made", title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("cells", overflow="fold")
    table.add_column("device time", justify="right", no_wrap=True)
    if forecast.num_missing:
        table.add_column("known from", overflow="fold")
    for one, estimate in zip(forecast.listed.stages, forecast.estimates, strict=True):
        table.add_row(
            escape(one.name),
            (one.fingerprint or "")[:8],
            escape(forecast.listed.who_needs(one)),
            _time(one, estimate),
            *((estimate.basis,) if forecast.num_missing else ()),
            style="dim" if one.record is not None else None,
        )
    console.print(table)
    num_open = sum(not one.is_known for one in forecast.listed.stages)
    if num_open:
        console.print(
            f"Retrainings of what is not found yet: at most {num_open}, because equal "
            "architectures are retrained once.",
            highlight=False,
        )
    at_most = "at most " if num_open else ""
    console.print(
        f"Stages       {at_most}{forecast.num_missing} to make, {forecast.num_cached} in the store",
        highlight=False,
    )
    hours = forecast.known_hours
    if forecast.device_hours is None:
        num_unknown = sum(estimate.device_hours is None for estimate in forecast.estimates)
        total = f"{duration(hours)} and {num_unknown} stages of unknown length"
    else:
        total = duration(hours)
    console.print(f"Device time  [bold]about {total}[/]", highlight=False)
    if elapsed is not None:
        wall = "unknown" if elapsed.wall_s is None else f"about {duration(elapsed.wall_s / 3600)}"
        console.print(
            f"Elapsed      [bold]{wall}[/] with {elapsed.jobs_at_once} jobs at once\n"
            f"Moved        at most {decimal(round(elapsed.rank_bytes))} between ranks, "
            f"{decimal(round(elapsed.storage_bytes))} to the storage",
            highlight=False,
        )


def duration(hours: float) -> str:
    """Device time as people read it."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1.5 else f"{hours:,.1f} h"


def _time(one: PlannedStage, estimate: Estimate) -> str:
    if one.record is not None:
        return "cached"
    return "unknown" if estimate.device_hours is None else duration(estimate.device_hours)
