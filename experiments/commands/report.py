"""The command that turns tracked runs into a page: report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.commands.options import Json, Quiet, Set, arguments, print_json


def report(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", help="Report on where this experiment tracks."),
    ] = None,
    overrides: Set = None,
    uri: Annotated[
        str | None, typer.Option(help="An MLflow server or database, instead of a config's.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="The MLflow experiment, instead of a config's.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Report on this run alone, and on what belongs to it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to; by default beside the results."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the paper's figures and tables from tracked runs: a page, PDF and PNG, CSV and Markdown.

    The lineage says which runs they come from; what is not there yet says which command would make
    it. Nothing is started.
    """
    from experiments.config.load import load_experiment
    from experiments.config.places import (
        StorageConfig,
        TrackingConfig,
        local_folder,
        tracking_uri,
        where_to_look,
    )
    from experiments.report.make import build_report, require_report_or_nothing, write_report
    from experiments.report.run_table import Runs

    settings = None
    tracking, storage = TrackingConfig(), StorageConfig()
    if config is not None:
        settings = load_experiment(config, overrides or []).shared
        tracking, storage = settings.tracking, settings.storage
    elif overrides:
        raise ValueError("--set overrides a config's fields, and no config was given.")
    folder = out or local_folder(storage) / "report"
    source = uri or tracking_uri(tracking, storage)
    look = source if uri or source.startswith("http") else "bnnas ui"
    if config is not None and settings is not None and not uri:
        look = where_to_look(settings, arguments(config, overrides))
    with Console(stderr=True, quiet=json or quiet).status("Reading MLflow") as waiting:
        require_report_or_nothing(folder)
        runs = Runs.read(source, experiment or tracking.experiment, run=run)
        waiting.update(f"Drawing {len(runs.tracked)} runs")
        built = build_report(runs)
        page = write_report(built, folder)
    if json:
        print_json(built.to_json(page))
        return
    from experiments.report.terminal import print_report

    print_report(built, Console(), page=os.path.relpath(page), mlflow=look)
