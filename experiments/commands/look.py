"""Commands that look at what is there and change nothing: ui, doctor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.commands.options import FAILED, Json, Set, print_json

if TYPE_CHECKING:
    from experiments.doctor import Check
    from orchestration.tracking.tracker import Tracker

_HOST = "127.0.0.1"
_LAST_LINES = 20  # of a server that has ended
_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "missing": "[red]✗[/]"}


def ui(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Show where this experiment tracks.")
    ] = None,
    overrides: Set = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the tracked runs, on this machine only.

    It prints where the cells are listed, the best first, and compared.
    """
    from experiments.config.load import load_experiment
    from experiments.config.places import StorageConfig, TrackingConfig, tracking_uri
    from orchestration.tracking.tracker import Tracker

    tracking, storage = TrackingConfig(), StorageConfig()
    if config is not None:
        experiment = load_experiment(config, overrides or [])
        tracking, storage = experiment.tracking, experiment.storage
    tracker = Tracker(tracking_uri(tracking, storage), tracking.experiment)
    raise typer.Exit(serve_ui(tracker, port, Console()))


def doctor(json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to mend it."""
    from experiments.doctor import diagnose

    console = Console()
    if json:
        checks = diagnose()
        print_json({"checks": [check.to_json() for check in checks]})
    else:
        with console.status("Looking around"):
            checks = diagnose()
        print_diagnosis(checks, console)
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(FAILED)


def print_diagnosis(checks: Sequence[Check], console: Console) -> None:
    """One line a check, and under it how to mend what is not as it should be."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        detail = escape(check.detail)
        if check.mend:
            detail += f"\n[dim]→ {escape(check.mend)}[/]"
        table.add_row(_MARKS[check.status], escape(check.name), detail)
    console.print(table)
    num_missing = sum(check.status == "missing" for check in checks)
    verdict = f"[red]{num_missing} missing.[/]" if num_missing else "[green]Ready to run.[/]"
    console.print(f"\n{verdict}")


def serve_ui(tracker: Tracker, port: int, console: Console) -> int:
    """Serve the UI of a database until interrupted; a server has its own already.

    Its pages are shown once it answers. Returns the exit status. Raises ValueError when there is
    no database yet, or the port is taken.
    """
    uri = tracker.uri
    if uri.startswith(("http://", "https://")):
        _print_pages(tracker, uri, console)
        return 0
    artifacts = []
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
        if not database.is_file():
            raise ValueError(
                f"there is no tracking database {database}: run an experiment first, or name the "
                f"config of one."
            )
        artifacts = ["--default-artifact-root", (database.parent / "artifacts").as_uri()]
    if _answers(port):
        raise ValueError(f"port {port} is taken: give another one with --port.")
    command = [
        *(sys.executable, "-m", "mlflow", "server", *artifacts),
        *("--host", _HOST, "--port", str(port), "--workers", "1"),
    ]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        # A session of its own, so that Ctrl-C reaches this process alone, which then stops it.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Else it starts workers for jobs that runs have no use for, and which outlive it.
            env={
                **os.environ,
                "MLFLOW_BACKEND_STORE_URI": uri,  # with its password, which `ps` would show
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        )
        try:
            with console.status("Starting MLflow"):
                while process.poll() is None and not _answers(port):
                    time.sleep(0.2)
            if process.poll() is None:
                address = f"http://{_HOST}:{port}"
                _print_pages(tracker, address, console)
                console.print("[dim]Ctrl-C stops it.[/]")
            status = process.wait()
            log.seek(0)
            lines = log.read().splitlines()[-_LAST_LINES:]
            console.print("\n".join([*lines, "MLflow stopped."]), markup=False, highlight=False)
            return status
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()
            process.wait()


def _print_pages(tracker: Tracker, address: str, console: Console) -> None:
    """Where to look first, in addresses that a terminal opens."""
    from orchestration.tracking.links import pages
    from orchestration.tracking.tracker import TrackingError

    console.print(f"MLflow: [bold]{address}[/]")
    try:
        shown = pages(tracker)
    except TrackingError:  # who may only read shares no view
        return
    for title, page in shown.items():
        console.print(f"{title}:\n  {address.rstrip('/')}{page}", markup=False, soft_wrap=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0
