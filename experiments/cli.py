"""The command line, `bnnas`: run, inspect, ui, doctor.

Exit status: 0 done, 1 something failed, 2 the request was wrong. What a person reads goes to the
terminal; with `--json`, standard output is one JSON value and nothing else. Every command imports
only what it needs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    name="bnnas",
    help="BN-NAS: search an image backbone under a FLOPs budget, know why it is good, use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_FAILED, _WRONG, _INTERRUPTED = 1, 2, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field: supernet.epochs=30."),
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Set = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
) -> None:
    """Run one cell: supernet, search, retrain, and the random baseline.

    What an earlier run has finished is not done again.
    """
    from experiments.cell import run_cell
    from experiments.config import load_config
    from experiments.plan import plan_cell
    from experiments.report.result_table import print_result
    from experiments.terminal import Display
    from experiments.tracking_uri import open_tracker, ui_command
    from nas.data import describe_data

    settings = load_config(config, overrides or [])
    images = describe_data(
        settings.data.name, root=settings.data.root, resolution=settings.data.resolution
    )
    plan = plan_cell(settings, images)
    display = Display(Console(stderr=True), quiet=quiet or json)
    result = run_cell(plan, open_tracker(settings), display)
    if json:
        _print_json(result.to_json())
    else:
        arguments = [str(config), *(f"--set={override}" for override in overrides or [])]
        print_result(result, Console(), ui_command=ui_command(settings, arguments))


@app.command()
def inspect(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A built-in space or a YAML file.")],
    arch: Annotated[
        str | None, typer.Option(help="Indices between spaces or commas: '3 -1 0 4 …'.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(min=1, help="Image side in pixels.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Image channels.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    json: Json = False,
) -> None:
    """Show what an architecture is and costs, layer by layer; without --arch, the space."""
    from experiments.report.inspection import (
        inspect_architecture,
        inspect_space,
        print_architecture,
        print_space,
    )
    from nas.space import load_space, parse_architecture

    loaded = load_space(space).for_images(
        in_channels=channels, resolution=resolution, num_classes=classes
    )
    if arch is None:
        description = inspect_space(loaded)
        show: Callable[[dict[str, Any], Console], None] = print_space
    else:
        description = inspect_architecture(loaded, parse_architecture(arch))
        show = print_architecture
    if json:
        _print_json(description)
    else:
        show(description, Console())


@app.command()
def ui(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Show where this experiment tracks.")
    ] = None,
    overrides: Set = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the tracked runs, on this machine only."""
    from experiments.config import StorageConfig, TrackingConfig, load_config
    from experiments.tracking_uri import serve_ui, tracking_uri

    if config is None:
        uri = tracking_uri(TrackingConfig(), StorageConfig())
    else:
        settings = load_config(config, overrides or [])
        uri = tracking_uri(settings.tracking, settings.storage)
    raise typer.Exit(serve_ui(uri, port, Console()))


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to mend it."""
    from experiments.doctor import diagnose
    from experiments.report.diagnosis import print_diagnosis

    console = Console()
    if json:
        checks = diagnose()
        _print_json({"checks": [check.to_json() for check in checks]})
    else:
        with console.status("Looking around"):
            checks = diagnose()
        print_diagnosis(checks, console)
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(_FAILED)


def _print_json(value: Any) -> None:
    from orchestration import json_text

    typer.echo(json_text.dumps(value))


def _complain(message: str) -> None:
    Console(stderr=True).print(
        f"[bold red]bnnas:[/] {escape(message)}", highlight=False, soft_wrap=True
    )


def main() -> None:
    """Entry point of the script: runs a command and turns errors into one sentence and a status.

    A `ValueError` is a wrong request by the project's convention; a `JobError` is a stage that
    failed for good. Anything else is a bug, and keeps its traceback.
    """
    from orchestration.failure import JobError

    try:
        app()
    except ValueError as error:
        _complain(str(error))
        sys.exit(_WRONG)
    except JobError as error:
        if "--json" in sys.argv[1:]:
            _print_json({"status": "failed", "error": str(error)})
        if error.details:  # where in the worker it happened; the sentence below says what
            typer.echo(error.details.strip(), err=True)
        _complain(str(error))
        sys.exit(_FAILED)
    except SystemExit as end:  # typer turns Ctrl-C into its status, and says nothing
        if end.code != _INTERRUPTED:
            raise
        _complain("interrupted; the same command goes on where this one stopped.")
        sys.stdout.flush()
        # Threads that wait for jobs must neither hold up the end nor start the jobs again.
        os._exit(_INTERRUPTED)
