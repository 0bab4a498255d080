"""Commands that ask about an experiment and start nothing: plan, status, config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from experiments.commands.options import FAILED, ConfigFile, Json, Set, print_json

if TYPE_CHECKING:
    from experiments.plan.elapsed import Elapsed
    from experiments.plan.forecast import Estimate, Forecast
    from experiments.plan.graph import PlannedStage
    from experiments.plan.status import ExperimentStatus, StageStatus

_ADDRESS = "RAY_API_SERVER_ADDRESS"
_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "waiting": "dim",
    "missing": "dim",
}


def plan(
    config: ConfigFile,
    overrides: Set = None,
    json: Json = False,
    probe: Annotated[
        bool,
        typer.Option("--probe/--no-probe", help="Measure for some seconds what never ran before."),
    ] = True,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="nodes=N,cpus=C,gpus=G",
            help="Say how long it would take on a cluster of such nodes, and what it would move.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what an experiment would make, what is there, and what the rest would cost.

    CONFIG is the file of a cell, a sweep, a correlation study or a detector. Nothing is started or
    written.
    """
    from experiments.config.load import load_experiment
    from experiments.plan.elapsed import ClusterSize, elapsed
    from experiments.plan.forecast import forecast
    from experiments.plan.graph import list_stages, plan_experiment
    from experiments.stages.probe import Probe
    from orchestration.store.stage_store import StageStore

    size = None if cluster is None else ClusterSize.parse(cluster)
    experiment = load_experiment(config, overrides or [])
    store = StageStore(experiment.storage.path)
    planned = plan_experiment(experiment)
    listed = list_stages(planned, store)
    with Console(stderr=True, quiet=json).status("Looking at earlier runs") as waiting:
        measure = Probe(lambda name: waiting.update(f"Measuring: {name}")) if probe else None
        expected = forecast(listed, store, measure)
    there = None if size is None else elapsed(planned, expected, size)
    if json:
        print_json(expected.to_json() | ({} if there is None else {"cluster": there.to_json()}))
    else:
        print_plan(expected, Console(), there)


def status(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG|ID]",
            help="A YAML file, or with a cluster's address what 'submit' printed.",
        ),
    ] = None,
    overrides: Set = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Ask a cluster's dashboard what was submitted there. Else {_ADDRESS}.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what of an experiment is done, running, failed and missing.

    Its storage says so, and no cluster is asked. Without CONFIG, and with the address of a cluster:
    the jobs that were submitted there. Exit status 1 if something failed.
    """
    if address is not None and _is_file(target):
        raise ValueError(
            f"The storage of {target} says how far it is, and no cluster: leave out --address, or "
            "give what 'submit' printed instead of the file."
        )
    if (address or os.environ.get(_ADDRESS)) and not _is_file(target):
        from experiments.commands.jobs import print_submissions, submissions_json

        if json:
            print_json(submissions_json(address, target))
        else:
            print_submissions(address, target, Console())
        return
    if target is None:
        raise ValueError(
            "What to look at is not given: name a YAML file, or with --address the cluster that a "
            "job was submitted to."
        )
    from experiments.config.load import load_experiment
    from experiments.plan.graph import list_stages, plan_experiment
    from experiments.plan.status import look_up
    from orchestration.store.stage_store import StageStore

    experiment = load_experiment(target, overrides or [])
    listed = list_stages(plan_experiment(experiment), StageStore(experiment.storage.path))
    with Console(stderr=True, quiet=json).status("Looking for signs of life"):
        progress = look_up(listed, experiment.storage.path)
    if json:
        print_json(progress.to_json())
    else:
        print_status(progress, Console())
    if progress.count("failed"):
        raise typer.Exit(FAILED)


def _is_file(target: str | None) -> bool:
    """Whether a config is meant, also one that is not there."""
    return target is not None and (Path(target).exists() or target.endswith((".yaml", ".yml")))


def config(config: ConfigFile, overrides: Set = None, json: Json = False) -> None:
    """Show every field of an experiment's config, with its value and what it means.

    What is printed is a config itself: the file with what it extends, --set and all defaults.
    """
    from experiments.config.describe import commented_yaml, resolved_values
    from experiments.config.load import load_experiment

    experiment = load_experiment(config, overrides or [])
    if json:
        print_json(resolved_values(experiment))
    else:
        typer.echo(commented_yaml(experiment), nl=False)


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
