"""Submitting to a Ray cluster through its Jobs API, and watching what was submitted.

It is Ray's own client with what that lacks: an answer within seconds where no cluster is, one
sentence for whatever is wrong, and logs that survive a broken connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.cluster import preflight
from orchestration.cluster.connect import ClusterError
from orchestration.cluster.dashboard import (
    UnreachableError,
    check_reachable,
    dashboard_address,
    open_client,
    unreachable,
)

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

_PAUSE_S = 1.0
_START_S = 60.0  # for so long a head that has just been started is asked again
# A connection can be dead without a word; one that was silent for so long is made anew.
_SILENCE_S = 300.0
_FINISHED = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})
# A node's PATH may begin with any Python, and Ray runs an entry point with that PATH. Put before it
# is the environment from which the process that starts the entry point has loaded Ray; but where
# Ray has made one of its own, as `pip` and `uv` in a runtime_env ask for, that one comes first.
_RAYS_OWN_PATH = (
    'case "${VIRTUAL_ENV-}" in */runtime_resources/*) ;; *) '
    "core=$(grep -m1 -o '/.*/ray/_raylet[.]so' /proc/$PPID/maps); "
    'export PATH="${core%/lib*/python3*}/bin:$(dirname "$(readlink /proc/$PPID/exe)"):$PATH";; '
    "esac; "
)
_TOKEN = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file that holds it)"


@dataclass(frozen=True)
class Submission:
    """What is known of a submitted job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Ray's words on the status; of a failed job, the last lines of its log too.
        entrypoint: the shell command.
        metadata: what the submitter noted.
    """

    id: str
    status: str
    message: str
    entrypoint: str
    started_at: datetime | None
    finished_at: datetime | None
    metadata: Mapping[str, str]

    @property
    def finished(self) -> bool:
        """Whether the status will not change any more."""
        return self.status in _FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether the job ended, and well."""
        return self.status == "SUCCEEDED"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with times in ISO 8601."""
        return {
            "id": self.id,
            "status": self.status,
            "message": self.message,
            "entrypoint": self.entrypoint,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "metadata": dict(self.metadata),
        }


class Submissions:
    """What was submitted to one cluster, and what will be.

    The token is Ray's affair: it finds it in ``RAY_AUTH_TOKEN``, in the file that
    ``RAY_AUTH_TOKEN_PATH`` names, or in ``~/.ray/auth_token``. Where there is one and
    ``RAY_AUTH_MODE`` is not set, it is used.
    """

    def __init__(self, address: str | None = None, *, patience_s: float = 300.0) -> None:
        """Knock at the cluster.

        Args:
            address: ``http(s)://HOST:PORT`` of the dashboard; see
                :func:`~orchestration.cluster.dashboard.dashboard_address`.
            patience_s: how long :meth:`follow` bears a broken connection.

        Raises:
            ClusterError: nobody answers at the address, or they do not let us in.
        """
        self.address = dashboard_address(address)
        self._patience_s = patience_s
        check_reachable(self.address)
        with self._asking():
            self._client = open_client(self.address)

    def submit(
        self,
        entrypoint: str,
        working_dir: Path,
        *,
        submission_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        env_vars: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        entrypoint_cpus: float = 0.0,
    ) -> str:
        """Send a folder and have a command run in it; returns the submission's id.

        Args:
            entrypoint: a shell command; its `python` is the one that runs Ray on that node.
            working_dir: all of it is sent.
            submission_id: unique on the cluster; Ray's choice if None.
            metadata: shown to everybody who may ask the cluster.
            env_vars: for the command and for all workers that it starts.
            runtime_env: further entries of Ray's, such as `pip`, `uv` or `image_uri`; its
                environment variables give way to `env_vars`.
            entrypoint_cpus: cores reserved for the command itself; with any, it runs on a node
                that has them, else on the head.
        """
        environment = dict(runtime_env or {})
        variables = {**environment.pop("env_vars", {}), **(env_vars or {})}
        end_s = time.monotonic() + _START_S
        with self._asking():
            while True:
                try:
                    return self._client.submit_job(
                        entrypoint=_RAYS_OWN_PATH + entrypoint,
                        submission_id=submission_id,
                        metadata=dict(metadata or {}),
                        runtime_env={
                            **environment,
                            "working_dir": str(working_dir),
                            "env_vars": variables,
                        },
                        entrypoint_num_cpus=entrypoint_cpus,
                    )
                except RuntimeError as error:
                    # What a head says whose dashboard is there and whose agent is not yet.
                    if "No available agent" not in str(error) or time.monotonic() > end_s:
                        raise
                    time.sleep(_PAUSE_S)

    def preflight(
        self,
        request: preflight.Request,
        *,
        env_vars: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """What the cluster's nodes lack, one sentence each; arguments as for `submit`.

        Raises:
            ClusterError: the job that looks did not come to its end.
        """
        with tempfile.TemporaryDirectory(prefix="bnnas-preflight-") as folder:
            shutil.copy(preflight.__file__, Path(folder, "preflight.py"))
            Path(folder, preflight.REQUEST).write_text(request.to_json(), encoding="utf-8")
            submission_id = self.submit(
                "python preflight.py",
                Path(folder),
                metadata={"bnnas.command": "preflight"},
                env_vars=env_vars,
                runtime_env=runtime_env,
            )
            log = "".join(self.follow(submission_id))
        problems = preflight.read_answer(log)
        if problems is None:
            state = self.status(submission_id)
            reason = (log.strip() or state.message.strip() or state.status).splitlines()[-1]
            raise ClusterError(
                f"The nodes of {self.address} could not be looked at ({reason}): see 'bnnas logs "
                f"{submission_id}', or submit with --no-check."
            )
        with self._asking():
            self._client.delete_job(submission_id)
        return problems

    def status(self, submission_id: str) -> Submission:
        """Where a submission stands.

        Raises:
            ClusterError: there is none of that id; the message names those there are.
        """
        with self._asking(submission_id):
            return _submission(self._client.get_job_info(submission_id))

    def known(self) -> tuple[Submission, ...]:
        """All submissions that the cluster remembers, the newest first."""
        with self._asking():
            jobs = self._client.list_jobs()
        submitted = [_submission(job) for job in jobs if job.submission_id]
        never = datetime.fromtimestamp(0, UTC)
        return tuple(sorted(submitted, key=lambda one: one.started_at or never, reverse=True))

    def stop(self, submission_id: str) -> bool:
        """Ask a job to end, and return at once; whether there was still something to end."""
        with self._asking(submission_id):
            return self._client.stop_job(submission_id)

    def follow(self, submission_id: str) -> Iterator[str]:
        """What a job writes, from its first line, as it comes, until the job has ended.

        A broken connection is made anew, and nothing is given twice or left out.

        Raises:
            ClusterError: there is no such submission, or the connection stays broken.
        """
        import aiohttp

        num_seen = 0
        broken_since_s: float | None = None
        self.status(submission_id)  # whether there is such a submission
        while True:
            num_replayed = num_seen  # the server always starts with the first line
            try:
                while self.status(submission_id).status == "PENDING":
                    time.sleep(_PAUSE_S)
                for text in self._tail(submission_id):
                    broken_since_s = None
                    unseen = text[num_replayed:]
                    num_replayed = max(num_replayed - len(text), 0)
                    if unseen:
                        num_seen += len(unseen)
                        yield unseen
                if self.status(submission_id).finished:
                    return
            except (UnreachableError, aiohttp.ClientError, OSError, RuntimeError) as error:
                now_s = time.monotonic()
                broken_since_s = now_s if broken_since_s is None else broken_since_s
                if now_s - broken_since_s >= self._patience_s:
                    raise ClusterError(
                        f"The log of {submission_id} cannot be read from {self.address}, for "
                        f"{self._patience_s:.0f} s now: the job may well go on; follow it again "
                        "when the cluster answers."
                    ) from error
            time.sleep(_PAUSE_S)

    def _tail(self, submission_id: str) -> Iterator[str]:
        """The log on one connection, from its first line."""
        chunks = self._client.tail_job_logs(submission_id)

        async def next_chunk() -> str | None:
            return await asyncio.wait_for(anext(chunks, None), _SILENCE_S)

        with asyncio.Runner() as runner:
            while (chunk := runner.run(next_chunk())) is not None:
                yield chunk

    @contextlib.contextmanager
    def _asking(self, submission_id: str | None = None) -> Iterator[None]:
        """Turn what can go wrong in a request into a ClusterError."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(self._no_entry(error.message)) from None
        except (requests.exceptions.InvalidHeader, UnicodeError):
            # Their words show the token.
            raise ClusterError(
                "The token has characters that cannot be sent, such as a line break: mend "
                "RAY_AUTH_TOKEN or the file that RAY_AUTH_TOKEN_PATH names."
            ) from None
        except OSError as error:
            raise unreachable(self.address, "the connection broke") from error
        except RuntimeError as error:
            text = str(error).strip()
            if submission_id is not None and "status code 404" in text:
                raise self._unknown(submission_id) from None
            kind = UnreachableError if "status code 5" in text else ClusterError
            # Ray gives a traceback of its own, whose last line says what is wrong.
            lines = [line.strip(" .") for line in text.splitlines()]
            reason = next(filter(None, reversed(lines)), type(error).__name__)
            raise kind(
                f"The Ray cluster at {self.address} did not do as asked ({reason})."
            ) from error

    def _no_entry(self, message: str) -> str:
        if message.startswith("Authentication failed"):
            return (
                f"The Ray cluster at {self.address} does not accept the token: give the one that "
                f"its head was started with, by {_TOKEN}."
            )
        return (
            f"The Ray cluster at {self.address} asks for a token, and there is none: set {_TOKEN}."
        )

    def _unknown(self, submission_id: str) -> ClusterError:
        known = [one.id for one in self.known()]
        if near := difflib.get_close_matches(submission_id, known, n=1):
            hint = f"did you mean {near[0]!r}?"
        elif known:
            hint = f"the newest are {', '.join(known[:5])}."
        else:
            hint = "nothing was submitted there yet."
        return ClusterError(f"There is no submission {submission_id!r} at {self.address}: {hint}")


def _submission(job: JobDetails) -> Submission:
    assert job.submission_id is not None
    return Submission(
        id=job.submission_id,
        status=str(job.status),
        message=job.message or "",
        entrypoint=job.entrypoint.removeprefix(_RAYS_OWN_PATH),
        started_at=_time(job.start_time),
        finished_at=_time(job.end_time),
        metadata=dict(job.metadata or {}),
    )


def _time(since_epoch_ms: int | None) -> datetime | None:
    # Ray writes 0 for a job that has not ended.
    return datetime.fromtimestamp(since_epoch_ms / 1000, UTC) if since_epoch_ms else None
