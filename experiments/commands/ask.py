"""Commands that ask about an experiment and start nothing: plan, status, config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.commands.options import FAILED, ConfigFile, Json, Set, print_json

_ADDRESS = "RAY_API_SERVER_ADDRESS"


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
    from experiments.commands.plan_table import print_plan
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
    from experiments.commands.status_table import print_status
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
