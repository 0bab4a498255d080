"""What `bnnas status CONFIG` prints: the cells, and the stages that they wait for."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.plan.status import ExperimentStatus, StageStatus

_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "waiting": "dim",
    "missing": "dim",
}


def print_status(status: ExperimentStatus, console: Console) -> None:
    """A line for each cell of a sweep, or seed of a study, then one for each stage."""
    if len(status.members) > 1:
        console.print(_cells_table(status))
    table = Table(title="stages", title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("cells", overflow="fold")
    table.add_column("status", no_wrap=True)
    for stage in status.stages:
        cells = status.listed.who_needs(stage.listed)
        table.add_row(escape(stage.listed.name), escape(cells), _styled(stage.state))
    console.print(table)
    for stage in status.stages:
        if detail := _detail(stage):
            console.print(f"{escape(stage.listed.name)}: {escape(detail)}", highlight=False)
    counts = [f"{status.count('done')} done", f"{status.count('running')} running"]
    counts += [f"{status.count('failed')} failed", f"{status.count('missing')} missing"]
    if num_interrupted := status.count("interrupted"):
        counts.append(f"{num_interrupted} interrupted")
    console.print(f"Stages  {', '.join(counts)}", highlight=False)
    if status.count("failed") or status.count("interrupted"):
        console.print("The same command tries again what failed, and goes on with the rest.")


def _cells_table(status: ExperimentStatus) -> Table:
    table = Table(title=escape(status.listed.name), title_justify="left")
    table.add_column("cell", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("stages done", justify="right")
    for name, state in status.members.items():
        stages = [stage for stage in status.stages if name in stage.listed.members]
        num_done = sum(stage.state == "done" for stage in stages)
        table.add_row(escape(name), _styled(state), f"{num_done} of {len(stages)}")
    return table


def _styled(state: str) -> str:
    return f"[{_STYLES[state]}]{state}[/]"


def _detail(stage: StageStatus) -> str:
    """What there is to say of a stage beyond its state."""
    if stage.state == "running":
        begun = f"epoch {stage.epoch} of {stage.num_epochs} done, " if stage.num_epochs else ""
        return f"{begun}on {stage.machine or 'some machine'}"
    if stage.state == "failed" and stage.failure is not None and stage.failed_at is not None:
        return f"{stage.failed_at.astimezone():%Y-%m-%d %H:%M:%S}: {stage.failure.message}"
    if stage.is_silent:
        return f"was being made on {stage.machine}, which gives no sign of life"
    return ""
