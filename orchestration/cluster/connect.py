"""A Ray cluster to run on: one that exists, or one on this machine that nobody else can reach."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestration.cluster.threads import join_threads

_CONNECT_TIMEOUT_S = 5.0
_JOIN_TIMEOUT_S, _INTERRUPTED_JOIN_TIMEOUT_S = 60.0, 5.0
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
            bound to loopback and without a dashboard. Where the process is connected already,
            that connection is used and left open.
        num_cpus: of a new local cluster; all cores if None.
        num_gpus: of a new local cluster; all GPUs if None.

    Raises:
        ClusterError: there is no cluster at ``address``, or it does not let us in; or a new one
            does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Threads that outlive the cluster must not start another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    # A worker that asked for no GPU sees none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    import ray

    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It announces at every start that a local cluster is protected by a token.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(_local_environment())
            options |= {
                "address": "local",
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
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
    return ClusterError(
        f"No usable Ray cluster at {address} ({_first_line(error)}): start one with 'ray start "
        "--head', check RAY_ADDRESS, and give the cluster's token in RAY_AUTH_TOKEN."
    )


@contextlib.contextmanager
def _local_environment() -> Iterator[None]:
    """What the processes of a new local cluster inherit, and this process loses afterwards."""
    from ray._private import ray_constants

    wanted = {
        # Ray's own switch for machines that must not open ports to the outside: every server
        # of the cluster binds to 127.0.0.1.
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        # Nobody preempts this machine; the watcher is one more process for each job.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }
    if (path := _python_path()) is not None:
        wanted["PYTHONPATH"] = path
    before = {name: os.environ.get(name) for name in wanted}
    reachable = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(wanted)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = reachable
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
    path = _python_path()
    if path is None or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {"env_vars": {"PYTHONPATH": path}}


def _check_reachable(address: str) -> None:
    """Find out in seconds, not in Ray's minutes, that no cluster answers or accepts us.

    Raises:
        ClusterError: none does.
    """
    if address == "local":
        return
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        with contextlib.suppress(ConnectionError, RuntimeError):  # which `ray.init` words better
            address = canonicalize_bootstrap_address(address) or address
        if address == "auto":
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
    if "://" not in address:
        _check_token(address)


def _check_token(address: str) -> None:
    """Ask the head for anything at all; with another token, `ray.init` would ask for ever."""
    import ray
    from ray.exceptions import AuthenticationError, RayError

    core: Any = ray._raylet
    try:
        # Asked for first: without a token Ray's core would not raise but end the process.
        core.AuthenticationTokenLoader.instance().has_token()
        core.GcsClient(address=address)
    except AuthenticationError as error:
        raise ClusterError(
            f"The Ray cluster at {address} wants a token that it does not get: set "
            "RAY_AUTH_MODE=token and give the cluster's own in RAY_AUTH_TOKEN, or its file in "
            "RAY_AUTH_TOKEN_PATH."
        ) from error
    except (RayError, RuntimeError) as error:
        raise ClusterError(
            f"What answers at {address} is no Ray head ({_first_line(error)}): give the port that "
            "'ray start --head' has named, 6379 if none was asked for."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
