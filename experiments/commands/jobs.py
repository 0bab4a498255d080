"""Commands for a Ray cluster elsewhere: submit, logs, stop, and what `status` says of it.

They speak with the cluster's dashboard over HTTP, and start no Ray process here.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.commands.options import FAILED, ConfigFile, Json, Set, print_json
from orchestration.cluster.connect import ClusterError
from orchestration.cluster.submission import Submission, Submissions

# Ray gives a stopped job three seconds for its own end before it kills it.
_STOP_TIMEOUT_S = 20.0

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The cluster's dashboard: http://HOST:PORT. Else RAY_API_SERVER_ADDRESS, else this "
        "machine's port 8265.",
        show_default=False,
    ),
]
_STYLES = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "red", "STOPPED": "yellow"}


def submit(
    config: ConfigFile,
    overrides: Set = None,
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log to the job's end.")
    ] = True,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Pass on an environment variable, such as AWS_ACCESS_KEY_ID; whoever holds the "
            "cluster's token can read it there.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Send an experiment, a sweep or a correlation study to a Ray cluster, and follow it.

    Only the code and the config travel; the nodes must share storage.path and data.root.
    Ctrl-C ends the following, and not the job.
    """
    from experiments.run.package import pack

    err = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bnnas-submit-") as folder:
        package = pack(config, overrides or [], Path(folder), variables=env or [])
        with err.status("Sending the code"):
            submissions = Submissions(address)
            submission_id = submissions.submit(
                package.entrypoint,
                package.folder,
                submission_id=package.submission_id,
                metadata=package.metadata,
                env_vars=package.env_vars,
            )
    if wait:
        if not json:
            typer.echo(submission_id)
        with _staying_alive(submissions, submission_id, err):
            for text in submissions.follow(submission_id):
                typer.echo(text, nl=False, err=json)
    submission = submissions.status(submission_id)
    if json:
        print_json(submission.to_json())
    elif not wait:
        typer.echo(submission_id)
        _say(err, _hint(submissions, submission_id))
    if wait:
        _end_with(submission, err)


def logs(
    submission_id: Annotated[str, typer.Argument(metavar="ID", help="What 'submit' printed.")],
    address: Address = None,
) -> None:
    """Follow the log of a submitted job from its first line, until the job ends."""
    submissions, err = Submissions(address), Console(stderr=True)
    with _staying_alive(submissions, submission_id, err):
        for text in submissions.follow(submission_id):
            typer.echo(text, nl=False)
    _end_with(submissions.status(submission_id), err)


def stop(
    submission_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="What 'submit' printed; not needed for the only job."),
    ] = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Stop a submitted job; what it has finished stays, and a new submission goes on from there."""
    submissions, err = Submissions(address), Console(stderr=True)
    submission_id = submission_id or _only_one(submissions)
    was_running = submissions.stop(submission_id)
    end_s = time.monotonic() + _STOP_TIMEOUT_S
    with err.status("Stopping"):
        while not (submission := submissions.status(submission_id)).finished:
            if time.monotonic() > end_s:
                raise ClusterError(
                    f"{submission_id} was asked to stop and is still {submission.status} after "
                    f"{_STOP_TIMEOUT_S:.0f} s: look at it again with 'bnnas status'."
                )
            time.sleep(0.5)
    if json:
        print_json(submission.to_json())
    else:
        before = "" if was_running else " It had ended before."
        _say(Console(), f"{submission_id}: {submission.status}.{before}")


def submissions_json(address: str | None, submission_id: str | None) -> list[dict[str, Any]]:
    """All submissions that the cluster remembers, or one, as plain values."""
    return [submission.to_json() for submission in _find(address, submission_id)]


def print_submissions(address: str | None, submission_id: str | None, console: Console) -> None:
    """The same as a table; of one submission, what Ray has to say about it too."""
    known = _find(address, submission_id)
    if not known:
        _say(console, f"Nothing was submitted at {Submissions(address).address} yet.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "status", "what", "started", "took", "results"):
        table.add_column(heading, overflow="fold")
    for one in known:
        table.add_row(
            escape(one.id),
            f"[{_STYLES.get(one.status, 'default')}]{one.status}[/]",
            escape(one.metadata.get("bnnas.command", one.entrypoint)),
            f"{one.started_at.astimezone():%Y-%m-%d %H:%M:%S}" if one.started_at else "",
            _duration(one),
            escape(one.metadata.get("bnnas.storage", "")),
        )
    console.print(table)
    if submission_id is not None and known[0].message:
        _say(console, f"\n{known[0].message}")


def _find(address: str | None, submission_id: str | None) -> tuple[Submission, ...]:
    submissions = Submissions(address)
    return submissions.known() if submission_id is None else (submissions.status(submission_id),)


def _only_one(submissions: Submissions) -> str:
    going = [one.id for one in submissions.known() if not one.finished]
    if len(going) == 1:
        return going[0]
    what = f"{len(going)} jobs run there: {', '.join(going)}" if going else "no job runs there"
    raise ClusterError(f"Which job at {submissions.address} to stop must be said; {what}.")


@contextlib.contextmanager
def _staying_alive(submissions: Submissions, submission_id: str, err: Console) -> Iterator[None]:
    """Say after Ctrl-C that the job goes on; the status is not 0, for its end was not seen."""
    try:
        yield
    except KeyboardInterrupt:
        _say(err, f"\n{submission_id} goes on.\n{_hint(submissions, submission_id)}")
        raise typer.Exit(FAILED) from None


def _hint(submissions: Submissions, submission_id: str) -> str:
    lines = [
        shlex.join(["bnnas", command, submission_id, "--address", submissions.address])
        for command in ("logs", "stop")
    ]
    return f"Follow it  {lines[0]}\nStop it    {lines[1]}"


def _end_with(submission: Submission, err: Console) -> None:
    """The exit status of a command that has seen a job's end."""
    if not submission.succeeded:
        reason = (submission.message.strip() or "no reason was given").splitlines()[0]
        reason = reason.partition(", last available logs")[0]  # which were just followed
        _say(err, f"{submission.id} {submission.status}: {reason}")
        raise typer.Exit(FAILED)


def _duration(submission: Submission) -> str:
    if submission.started_at is None:
        return ""
    took = (submission.finished_at or datetime.now(UTC)) - submission.started_at
    hours, seconds = divmod(round(took.total_seconds()), 3600)
    return f"{hours}:{seconds // 60:02}:{seconds % 60:02}"


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)
