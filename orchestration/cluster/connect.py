"""A Ray cluster to run on: one that exists, or one on this machine that nobody else can reach."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import signal
import socket
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestration.cluster.credentials import ray_token
from orchestration.cluster.threads import join_threads

_CONNECT_TIMEOUT_S = 5.0
_JOIN_TIMEOUT_S, _INTERRUPTED_JOIN_TIMEOUT_S = 60.0, 5.0
# What every worker's process must find, whoever has started its node: one that asked for no GPU
# sees none.
WORKER_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
_SOURCE_ROOT = Path(__file__).resolve().parents[2]


class ClusterError(ValueError):
    """The cluster cannot be used as asked; the message says why, and how to mend it."""


@contextlib.contextmanager
def cluster(
    address: str | None = None, *, num_cpus: int | None = None, num_gpus: int | None = None
) -> Iterator[None]:
    """Be connected to a Ray cluster; a local one is stopped at the end.

    Args:
        address: ``HOST:PORT`` of a head, or ``auto`` for the one on this machine. None means the
            environment variable ``RAY_ADDRESS``, and without it a new cluster on this machine,
            bound to loopback. Where the process is connected already, that connection is used and
            left open.
        num_cpus: of a new local cluster; all cores if None.
        num_gpus: of a new local cluster; all GPUs if None.

    Raises:
        ClusterError: there is no cluster at ``address``, or it does not let us in; or a new one
            does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Threads that outlive the cluster must not start another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or None
    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(_local_environment())  # which Ray reads when it is imported
        import ray

        for name in ("ray", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if ray.is_initialized():
            yield
            return
        # Ray warns at every start that it protects a local cluster by a token.
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            options |= {
                "address": "local",
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                # Ray Train's cleaner asks it for what has died; any free port will do.
                "include_dashboard": True,
                "dashboard_port": 0,
            }
        else:
            _check_reachable(address)
            options |= {"address": address, "runtime_env": _runtime_environment()}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except (ConnectionError, TimeoutError, RuntimeError, ray.exceptions.RayError) as error:
            raise _not_usable(address, error) from error
        except Exception as error:
            # For a node that does not start Ray raises whatever comes, Exception itself included.
            if address is not None:
                raise
            raise _not_usable(address, error) from error
        stack.callback(ray.shutdown)
        stack.push(_join_threads)
        if threading.current_thread() is threading.main_thread():
            # Ray would answer it with a dump of its own stack; the program's answer is its own.
            signal.signal(signal.SIGTERM, before)
        yield


def _join_threads(kind: type[BaseException] | None, *_: object) -> None:
    """End what uses the cluster before the cluster; after Ctrl-C the wait is short."""
    is_interrupted = kind is not None and not issubclass(kind, Exception)
    join_threads(_INTERRUPTED_JOIN_TIMEOUT_S if is_interrupted else _JOIN_TIMEOUT_S)


def _not_usable(address: str | None, error: Exception) -> ClusterError:
    if address is None:
        return ClusterError(
            f"Ray could not start on this machine ({_first_line(error)}): end what else uses its "
            "cores, memory and disk, see that the folder for temporary files (RAY_TMPDIR) can be "
            "written to, and repeat the command; what is done is kept."
        )
    if match := re.search(r"Version mismatch.*?Python: (\S+)", str(error), re.DOTALL):
        return ClusterError(
            f"The Ray cluster at {address} runs Python {match[1]}, and this is Python "
            f"{platform.python_version()}: use an environment with Python {match[1]} here, or "
            "start the cluster from one like this."
        )
    return ClusterError(
        f"No usable Ray cluster at {address} ({_first_line(error)}): start one with 'ray start "
        "--head', check RAY_ADDRESS, and give the cluster's token in RAY_AUTH_TOKEN."
    )


@contextlib.contextmanager
def _local_environment() -> Iterator[None]:
    """What the processes of a new local cluster inherit, and this process loses afterwards."""
    wanted = {
        # Ray's own switch for machines that must not open ports to the outside: every server
        # of the cluster binds to 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Nobody preempts this machine; the watcher is one more process for each job.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }
    if (path := _python_path()) is not None:
        wanted["PYTHONPATH"] = path
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _python_path() -> str | None:
    """PYTHONPATH for workers when the project runs from its source tree without installation."""
    if _SOURCE_ROOT in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        return None
    parts = [str(_SOURCE_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.pathsep.join(dict.fromkeys(parts))


def _runtime_environment() -> dict[str, Any]:
    """The same for an existing cluster, unless a submitted job brings its own working directory."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    variables = {name: os.environ[name] for name in WORKER_ENVIRONMENT}
    if (path := _python_path()) is not None:
        variables["PYTHONPATH"] = path
    return {"env_vars": variables}


def _check_reachable(address: str) -> None:
    """Find out in seconds, not in Ray's minutes, that no cluster answers or accepts us.

    Raises:
        ClusterError: none does.
    """
    if address in ("local", "auto"):
        return
    parts = urlsplit(address if "://" in address else f"ray-head://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ClusterError(f"Ray address {address!r} is no HOST:PORT, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"Nothing answers at the Ray address {address} ({_first_line(error)}): start a "
            "cluster there with 'ray start --head', mend the address, or leave it out to run on "
            "this machine."
        ) from error
    if "://" not in address and os.environ.get("RAY_USE_TLS") != "1":
        _check_head(address)


def _check_head(address: str) -> None:
    """Ask the head for its version; with another token, `ray.init` would ask for ever."""
    import grpc
    import ray
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    protocol: Any = gcs_service_pb2
    token = ray_token()
    wants_token = ClusterError(
        f"The Ray cluster at {address} wants a token that it does not get: set "
        "RAY_AUTH_MODE=token and give the cluster's own in RAY_AUTH_TOKEN, or its file in "
        "RAY_AUTH_TOKEN_PATH."
    )
    if token is None and os.environ.get("RAY_AUTH_MODE") == "token":
        raise wants_token  # Ray's core would not raise but end the process
    login = () if token is None else (("authorization", f"Bearer {token}"),)
    try:
        with grpc.insecure_channel(address) as channel:
            answer = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive(
                protocol.CheckAliveRequest(), timeout=_CONNECT_TIMEOUT_S, metadata=login
            )
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise wants_token from None
        raise ClusterError(
            f"What answers at {address} is no Ray head ({_first_line(error.details())}): give the "
            "port that 'ray start --head' has named, 6379 if none was asked for."
        ) from error
    if answer.ray_version != ray.__version__:
        raise ClusterError(
            f"The Ray cluster at {address} runs Ray {answer.ray_version}, and this environment has "
            f"{ray.__version__}: install ray=={answer.ray_version} here, or start the cluster from "
            "an environment like this one."
        )


def _first_line(error: BaseException | str) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
