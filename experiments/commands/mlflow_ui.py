"""The MLflow UI on a tracking database, on this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

_HOST = "127.0.0.1"
_LAST_LINES = 20


def serve_ui(uri: str, port: int, console: Console) -> int:
    """Serve the UI of a database until interrupted; a server has its own already.

    The address is shown once it answers. Returns the exit status. Raises ValueError when there is
    no database yet, or the port is taken.
    """
    if uri.startswith(("http://", "https://")):
        console.print(f"The runs are on the MLflow server [link={uri}]{uri}[/]: open it.")
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
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, *artifacts),
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
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            with console.status("Starting MLflow"):
                while process.poll() is None and not _answers(port):
                    time.sleep(0.2)
            if process.poll() is None:
                address = f"http://{_HOST}:{port}"
                console.print(f"MLflow UI: [bold]{address}[/]  [dim](Ctrl-C stops it)[/]")
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


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0
