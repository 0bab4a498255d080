"""The command that turns tracked runs into a page: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.commands.options import Json, Quiet, Set, print_json


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

    Every number on the page says which run it comes from; what is not there yet says which command
    would make it. Nothing is started.
    """
    from experiments.config.load import load_experiment
    from experiments.config.places import StorageConfig, TrackingConfig, local_folder, tracking_uri

    tracking, storage = TrackingConfig(), StorageConfig()
    if config is not None:
        settings = load_experiment(config, overrides or [])
        tracking, storage = settings.tracking, settings.storage
    elif overrides:
        raise ValueError("--set overrides a config's fields, and no config was given.")
    folder = out or local_folder(storage) / "report"
    with Console(stderr=True, quiet=json or quiet).status("Reading MLflow") as waiting:
        from experiments.report.make import make_report, require_report_or_nothing
        from orchestration.tracking.reader import read_experiment

        require_report_or_nothing(folder)
        found = read_experiment(
            uri or tracking_uri(tracking, storage), experiment or tracking.experiment
        )
        waiting.update(f"Drawing {len(found.runs)} runs")
        written = make_report(found if run is None else found.part(run), folder)
    if json:
        print_json(written.to_json())
        return
    from experiments.report.report_summary import print_report

    print_report(written, Console())
