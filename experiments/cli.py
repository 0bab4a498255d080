"""The command line, `bnnas`.

Exit status: 0 done, 1 something failed, 2 the request was wrong. What a person reads goes to the
terminal; with `--json`, standard output is one JSON value and nothing else. Every command imports
only what it needs, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import typer
from rich.console import Console
from rich.markup import escape

from experiments.commands import ask, detect, inspection, jobs, look, report, run
from experiments.commands.options import FAILED, json_alone, print_json

_WRONG, _INTERRUPTED = 2, 130

app = typer.Typer(
    name="bnnas",
    help="BN-NAS: search an image backbone under a FLOPs budget, know why it is good, use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command("sweep", help="Another name for 'run': a grid of cells.")(run.run)
for command in (
    run.correlate,
    ask.plan,
    ask.status,
    ask.config,
    jobs.submit,
    jobs.logs,
    jobs.stop,
    report.report,
    inspection.inspect,
    look.ui,
    look.doctor,
):
    app.command()(command)
app.add_typer(detect.app)


def _complain(message: str) -> None:
    Console(stderr=True).print(
        f"[bold red]bnnas:[/] {escape(message)}", highlight=False, soft_wrap=True
    )


def main() -> None:
    """Entry point of the script: runs a command and turns errors into one sentence and a status.

    A `ValueError` is a wrong request by the project's convention; a `JobError` is a stage that
    failed for good. Anything else is a bug, and keeps its traceback.
    """
    from orchestration.jobs.failure import JobError

    # Batch systems and `timeout` say SIGTERM; it ends a command as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wants_json = "--json" in sys.argv[1:]
    try:
        with json_alone() if wants_json else contextlib.nullcontext():
            app()
    except ValueError as error:
        _complain(str(error))
        sys.exit(_WRONG)
    except JobError as error:
        if wants_json:
            print_json({"status": "failed", "error": str(error)})
        if error.details:  # where in the worker it happened; the sentence below says what
            typer.echo(error.details.strip(), err=True)
        _complain(str(error))
        sys.exit(FAILED)
    except SystemExit as end:  # typer turns Ctrl-C into its status, and says nothing
        if end.code != _INTERRUPTED:
            raise
        _complain("interrupted; the same command goes on where this one stopped.")
        sys.stdout.flush()
        # Threads that wait for jobs must neither hold up the end nor start the jobs again.
        os._exit(_INTERRUPTED)
