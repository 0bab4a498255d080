"""Where results go: storage, the tracking server, and the commit that they will name."""

from __future__ import annotations

import http.client
import importlib.metadata
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from experiments.doctor.check import Check, gigabytes

_MIN_FREE_DISK_BYTES = 2 * 10**9
_HTTP_TIMEOUT_S = 5.0
_GIT_TIMEOUT_S = 30.0


def check_storage(storage_path: str | Path) -> Check:
    """Whether files can be written at or above ``storage_path``, and how much room there is.

    An object store's URI is taken as it is; nothing is sent there.
    """
    if "://" in str(storage_path):
        return Check("storage", "ok", f"{storage_path} (not contacted)")
    elsewhere = "name another folder: --set storage.path=FOLDER"
    wanted = existing = Path(storage_path).expanduser().absolute()
    try:
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            return Check("storage", "missing", f"{existing} is a file, not a folder", elsewhere)
        with tempfile.TemporaryFile(dir=existing):
            free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        detail = f"{existing} is not writable: {error.strerror or error}"
        return Check("storage", "missing", detail, elsewhere)
    detail = f"{wanted}: writable, {gigabytes(free_bytes)} free"
    if free_bytes < _MIN_FREE_DISK_BYTES:
        mend = f"free some space ({gigabytes(_MIN_FREE_DISK_BYTES)} is comfortable), or {elsewhere}"
        return Check("storage", "warn", detail, mend)
    return Check("storage", "ok", detail)


def check_tracking(uri: str) -> Check:
    """Whether the MLflow server that ``uri`` names answers, and in which version.

    Other places than ``http(s)://`` are not contacted. Passwords in the URI are not repeated.
    """
    if not uri:
        return Check("mlflow tracking", "ok", "MLFLOW_TRACKING_URI not set: local SQLite file")
    parts = urllib.parse.urlsplit(uri)
    shown = re.sub(r"//[^@/]*@", "//***@", uri)
    mend = (
        "start it (mlflow server), mend MLFLOW_TRACKING_URI, "
        "or unset it to track into a local SQLite file"
    )
    if uri.startswith("databricks") or parts.scheme not in ("", "file", "http", "https"):
        return Check("mlflow tracking", "ok", f"{shown} (not contacted)")
    if parts.scheme in ("", "file"):
        detail = f"{shown} is a folder, which MLflow 3 no longer accepts as a tracking store"
        return Check("mlflow tracking", "missing", detail, "use sqlite:///mlflow.db or a server")
    host = parts.netloc.rpartition("@")[2]
    page = urllib.parse.urlunsplit(
        (parts.scheme, host, f"{parts.path.rstrip('/')}/version", "", "")
    )
    try:
        with urllib.request.urlopen(page, timeout=_HTTP_TIMEOUT_S) as answer:
            server_version = answer.read(200).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            detail = f"{shown} answers, and asks for credentials (none were tried)"
            return Check("mlflow tracking", "ok", detail)
        detail = f"{shown} answers HTTP {error.code}, not as an MLflow server does"
        return Check("mlflow tracking", "missing", detail, mend)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Check("mlflow tracking", "missing", f"{shown} is not reachable: {reason}", mend)
    try:
        client_version = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        client_version = None
    return tracking_verdict(shown, server_version, client_version)


def tracking_verdict(uri: str, server_version: str, client_version: str | None) -> Check:
    """Judge what a server's ``/version`` page said; the major versions must agree.

    Without a client (``None``) there is nothing to compare; its absence is another check's line.
    """
    if not re.fullmatch(r"\d+\.\d+\S*", server_version):
        detail = f"{uri} answers, but not as an MLflow server does"
        return Check("mlflow tracking", "missing", detail, "mend MLFLOW_TRACKING_URI")
    detail = f"{uri}, MLflow {server_version}"
    if client_version and server_version.split(".", 1)[0] != client_version.split(".", 1)[0]:
        detail += f", but this client is {client_version}"
        return Check("mlflow tracking", "warn", detail, "run the same major version on both sides")
    return Check("mlflow tracking", "ok", detail)


def check_commit(folder: Path) -> Check:
    """The commit of the code in ``folder``, which every result records."""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        detail = "git is not installed: results cannot name the commit they came from"
        return Check("commit", "warn", detail, "apt-get install git")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
        reason = (output or str(error)).strip().splitlines()[0]
        detail = f"git names no commit for {folder}, so results cannot either: {reason}"
        return Check("commit", "warn", detail, "work in a git clone, and commit before long runs")
    return Check("commit", "ok", f"{commit} with uncommitted changes" if changed else commit)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=_GIT_TIMEOUT_S,
        check=True,
    )
    return done.stdout.strip()
