"""Servers on loopback: a real Ray head that wants a token, and others that are none."""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]


class RayHead:
    """``ray start --head`` with dashboard and Jobs API, in a process group of its own."""

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="bnnas-head-"))
        self.token = secrets.token_hex(16)
        gcs_port, dashboard_port, client_port = _free_ports(3)
        self.address = f"http://127.0.0.1:{dashboard_port}"
        self.gcs_address = f"127.0.0.1:{gcs_port}"
        self._log = self._folder / "head.log"
        ray = Path(sys.executable).with_name("ray")
        command = [str(ray), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--num-cpus=2", "--object-store-memory=100000000", "--include-dashboard=true"]
        command += [f"--temp-dir={self._folder}", "--node-ip-address=127.0.0.1"]
        command += [f"--port={gcs_port}", f"--ray-client-server-port={client_port}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
        for free in ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent"):
            command.append(f"--{free}-port=0")
        command.append("--metrics-export-port=0")
        environment = {
            **os.environ,
            # Somebody else's: its `python`, if there is one, knows neither Ray nor this project.
            "PATH": os.defpath,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            # As orchestration.cluster.connect does it: every server binds to 127.0.0.1.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> Self:
        """Until it takes jobs."""
        end_s = time.monotonic() + 120
        headers = {"Authorization": f"Bearer {self.token}"}
        while time.monotonic() < end_s and self._process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.address}/api/jobs/", headers=headers, timeout=2).ok:
                    return self
            time.sleep(0.2)
        log = self._log.read_text()
        self.stop()
        pytest.fail(log)

    def stop(self) -> None:
        """Kill it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Ray's workers have process groups of their own; without their raylet they end.
        shutil.rmtree(self._folder, ignore_errors=True)

    def python(self, program: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
        """Start a program as a client with the right token, in a process of its own.

        Ray reads the token once a process, and the process of the tests may have its own.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_TOKEN": self.token,
            "HOME": str(folder),  # where Ray would find the user's own token
            **variables,
        }
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=folder,
            env={name: value for name, value in environment.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def web_server(status: int, body: str) -> Iterator[str]:
    """A web server on loopback that answers every request alike; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Cable:
    """A TCP connection to a head that can be cut, and mended."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._whole = threading.Event()
        self._whole.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Break all connections now; within, new ones break at once."""
        self._whole.clear()
        self._break()
        yield
        self._whole.set()

    def close(self) -> None:
        """Take it away."""
        self._listener.close()
        self._break()

    def _break(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                if not self._whole.is_set():
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [int(probe.getsockname()[1]) for probe in probes]
