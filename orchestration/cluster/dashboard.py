"""Where a Ray cluster takes jobs: the dashboard's address, and a client that is let in there."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from orchestration.cluster.connect import ClusterError
from orchestration.cluster.credentials import ray_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_REACH_TIMEOUT_S = 5.0


class UnreachableError(ClusterError):
    """Nobody answers, or not sensibly; another time somebody may."""


def dashboard_address(address: str | None = None) -> str:
    """Where the Jobs API is: the argument, RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine.

    ``RAY_ADDRESS`` counts only where it is an ``http`` address; else it names another port.

    Raises:
        ClusterError: it is no ``http(s)://HOST:PORT``.
    """
    given = address or os.environ.get(_ADDRESS_VARIABLE)
    if not given:
        given = os.environ.get("RAY_ADDRESS", "")
        given = given if given.startswith(("http://", "https://")) else DEFAULT_ADDRESS
    given = given.rstrip("/")
    # An https address without a port is what an ingress before the cluster has.
    if not re.fullmatch(r"http://[^\s/:@?#]+:\d{1,5}|https://[^\s/:@?#]+(:\d{1,5})?", given):
        raise ClusterError(
            f"{given!r} is not the address of a Ray dashboard: give http://HOST:PORT, such as "
            f"{DEFAULT_ADDRESS}."
        )
    return given


def check_reachable(address: str) -> None:
    """Find out in seconds whether a Ray dashboard is there; Ray's client waits for ever.

    Raises:
        ClusterError: none is, or it is something else.
    """
    import requests

    try:
        # Without a token: that one is wanted is an answer, too.
        answer = requests.get(f"{address}/api/version", timeout=_REACH_TIMEOUT_S)
    except requests.Timeout as error:
        raise unreachable(address, f"no answer in {_REACH_TIMEOUT_S:.0f} s") from error
    except requests.RequestException as error:
        raise unreachable(address, "no connection") from error
    if answer.status_code not in (200, 401, 403) or (
        answer.ok and "ray_version" not in answer.text
    ):
        raise ClusterError(
            f"What answers at {address} is no Ray dashboard: give the address that 'ray start "
            "--head' prints for the dashboard."
        )


def open_client(address: str) -> JobSubmissionClient:
    """Ray's client for this address, with the token that there is."""
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # our caller reports it
    token = ray_token()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    # Ray lets the environment overrule the argument.
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = address
    try:
        return JobSubmissionClient(address, headers=headers)
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before


def unreachable(address: str, reason: str) -> UnreachableError:
    """The error for an address without an answer."""
    return UnreachableError(
        f"Nobody answers at the Ray dashboard {address} ({reason}): start a cluster there with "
        "'ray start --head', or give its address with --address or RAY_API_SERVER_ADDRESS."
    )
