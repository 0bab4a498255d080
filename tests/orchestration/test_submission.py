"""The Jobs API of a real head that wants a token; every client is a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestration.cluster.connect import ClusterError
from orchestration.cluster.dashboard import DEFAULT_ADDRESS, dashboard_address
from orchestration.cluster.submission import Submissions
from tests.orchestration.ray_head import Cable, RayHead

NOBODY = "http://127.0.0.1:9"
LINES = [f"line {number} blue" for number in range(8)]
JOB = """
import os, sys, time
pause_s, status = float(sys.argv[1]), int(sys.argv[2])
for number in range(8):
    print("line", number, os.environ["COLOUR"])
    time.sleep(pause_s)
sys.exit(status)
"""
PROGRAM = """
import json
import time
from pathlib import Path
from orchestration.cluster.connect import ClusterError
from orchestration.cluster.submission import Submissions

def submit(pause_s=0.0, status=0, **options):
    entrypoint = f"python job.py {{pause_s}} {{status}}"
    return jobs.submit(entrypoint, Path("work"), env_vars={{"COLOUR": "blue"}}, **options)

def settled(submission_id):
    while not (one := jobs.status(submission_id)).finished:
        time.sleep(0.2)
    return one

def main():
{body}

try:
    jobs = Submissions({address!r}, patience_s={patience_s})
    answer = main()
except ClusterError as error:
    answer = str(error)
print(json.dumps(answer))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where clients run; `work` in it is what they send."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "job.py").write_text(JOB)
    return tmp_path


def start(
    head: RayHead,
    folder: Path,
    body: str,
    *,
    address: str = "",
    patience_s: float = 60.0,
    **variables: str,
) -> subprocess.Popen[str]:
    """A client that runs `body` with `jobs`, and prints what that returns or the sentence."""
    program = PROGRAM.format(
        body=textwrap.indent(textwrap.dedent(body), "    "),
        address=address or head.address,
        patience_s=patience_s,
    )
    return head.python(program, folder, **variables)


def answer_of(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out.splitlines()[-1])


def ask(head: RayHead, folder: Path, body: str, **options: Any) -> Any:
    return answer_of(start(head, folder, body, **options))


@pytest.mark.server
def test_a_job_runs_in_its_folder_and_what_is_known_of_it_is_right(
    ray_head: RayHead, folder: Path
) -> None:
    before_s = time.time()
    body = """
    submission_id = submit(submission_id="eight-lines", metadata={"what": "a test"})
    text = "".join(jobs.follow(submission_id))
    known = [one.id for one in jobs.known()]
    return text, jobs.status(submission_id).to_json(), known, jobs.stop(submission_id)
    """
    text, one, known, stopped = ask(ray_head, folder, body)
    assert [line for line in text.splitlines() if line.startswith("line")] == LINES
    assert (one["id"], one["status"]) == ("eight-lines", "SUCCEEDED")
    assert one["metadata"] == {"what": "a test"}
    assert one["entrypoint"] == "python job.py 0.0 0"
    started, finished = (
        datetime.fromisoformat(one[key]).timestamp() for key in ("started_at", "finished_at")
    )
    assert before_s - 0.1 <= started < finished <= time.time()
    assert known[0] == "eight-lines"
    assert not stopped
    assert ray_head.token not in f"{text}{one}"


@pytest.mark.server
def test_a_failed_job_keeps_its_log_and_says_why(ray_head: RayHead, folder: Path) -> None:
    body = """
    submission_id = submit(status=3)
    one = settled(submission_id)
    return "".join(jobs.follow(submission_id)), one.status, one.succeeded, one.message
    """
    text, status, succeeded, message = ask(ray_head, folder, body)
    assert [line for line in text.splitlines() if line.startswith("line")] == LINES
    assert (status, succeeded) == ("FAILED", False)
    assert "exit code 3" in message


@pytest.mark.server
@pytest.mark.slow
def test_a_running_job_is_stopped(ray_head: RayHead, folder: Path) -> None:
    body = """
    submission_id = submit(pause_s=60)
    for text in jobs.follow(submission_id):
        if "line 0" in text:
            stopped = jobs.stop(submission_id)
    one = jobs.status(submission_id)
    return stopped, one.status, one.finished, one.succeeded
    """
    assert ask(ray_head, folder, body) == [True, "STOPPED", True, False]


@pytest.mark.server
@pytest.mark.slow
def test_a_log_survives_a_connection_that_is_cut(ray_head: RayHead, folder: Path) -> None:
    cable = Cable(ray_head.address)
    body = """
    submission_id = submit(pause_s=0.5)
    text = ""
    for more in jobs.follow(submission_id):
        text += more
        Path("seen").write_text(text)
    return text
    """
    process = start(ray_head, folder, body, address=cable.address)
    seen, end_s = folder / "seen", time.monotonic() + 60
    while not (seen.is_file() and "line 0" in seen.read_text()) and time.monotonic() < end_s:
        time.sleep(0.05)
    with cable.cut():
        assert LINES[-1] not in seen.read_text()
        time.sleep(2)
    text = answer_of(process)
    cable.close()
    assert [line for line in text.splitlines() if line.startswith("line")] == LINES


@pytest.mark.server
def test_a_log_whose_connection_stays_broken_is_given_up_in_one_sentence(
    ray_head: RayHead, folder: Path
) -> None:
    cable = Cable(ray_head.address)
    body = """
    submission_id = submit(pause_s=60)
    Path("id").write_text(submission_id)
    for text in jobs.follow(submission_id):
        Path("seen").write_text(text)
    """
    process = start(ray_head, folder, body, address=cable.address, patience_s=1.0)
    seen, end_s = folder / "seen", time.monotonic() + 60
    while not seen.is_file() and time.monotonic() < end_s:
        time.sleep(0.05)
    submission_id = (folder / "id").read_text()
    with cable.cut():
        answer = answer_of(process)
    cable.close()
    assert answer.startswith(f"The log of {submission_id} cannot be read from {cable.address}")
    assert ask(ray_head, folder, f"return jobs.status({submission_id!r}).status") == "RUNNING"
    ask(ray_head, folder, f"jobs.stop({submission_id!r})")


@pytest.mark.server
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 32}, "does not accept the token"),
        ({"RAY_AUTH_TOKEN": ""}, "asks for a token, and there is none"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "token"}, "asks for a token, and there is none"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "missing"}, "asks for a token"),
    ],
    ids=["wrong", "none", "none, but the mode", "a file that is not there"],
)
def test_without_the_right_token_nobody_gets_in(
    ray_head: RayHead, folder: Path, variables: dict[str, str], words: str
) -> None:
    answer = ask(ray_head, folder, "return len(jobs.known())", **variables)
    assert words in answer
    for name in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        assert name in answer
    assert "0" * 32 not in answer


@pytest.mark.server
def test_a_token_that_cannot_be_sent_is_not_shown(ray_head: RayHead, folder: Path) -> None:
    token = f"{ray_head.token}\nsecret"
    answer = ask(ray_head, folder, "return len(jobs.known())", RAY_AUTH_TOKEN=token)
    assert "characters that cannot be sent" in answer
    assert ray_head.token not in answer
    assert "secret" not in answer


@pytest.mark.server
def test_a_token_in_a_file_opens_too(ray_head: RayHead, folder: Path) -> None:
    (folder / "token").write_text(f"{ray_head.token}\n")
    variables = {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    assert isinstance(ask(ray_head, folder, "return len(jobs.known())", **variables), int)


@pytest.mark.server
def test_an_unknown_submission_names_those_there_are(ray_head: RayHead, folder: Path) -> None:
    body = """
    answers = []
    settled(submit(submission_id="known-one-4711"))
    for ask in (jobs.status, jobs.stop, lambda name: next(jobs.follow(name))):
        for name in ("known-one-4712", "zzz"):
            try:
                ask(name)
            except ClusterError as error:
                answers.append(str(error))
    return answers
    """
    answers = ask(ray_head, folder, body)
    assert len(answers) == 6
    for near, far in zip(answers[::2], answers[1::2], strict=True):
        assert "no submission 'known-one-4712'" in near
        assert near.endswith("did you mean 'known-one-4711'?")
        assert "no submission 'zzz'" in far
        assert "known-one-4711" in far


@pytest.mark.server
def test_an_id_is_used_once(ray_head: RayHead, folder: Path) -> None:
    body = """
    submit(submission_id="once")
    submit(submission_id="once")
    """
    assert "once already exists" in ask(ray_head, folder, body)


def test_where_nobody_is_the_answer_comes_at_once() -> None:
    with pytest.raises(ClusterError, match=f"Nobody answers at the Ray dashboard {NOBODY}"):
        Submissions(NOBODY)


@pytest.fixture
def mute() -> Iterator[str]:
    """Somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_who_says_nothing_is_not_waited_for(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.cluster.dashboard._KNOCK_TIMEOUT_S", 0.2)
    with pytest.raises(ClusterError, match=f"{mute} \\(no answer in"):
        Submissions(mute)


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is no Ray dashboard."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"version": "3"}')

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_another_server_is_told_apart(stranger: str) -> None:
    with pytest.raises(ClusterError, match=f"{stranger} is no Ray dashboard"):
        Submissions(stranger)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8265",
        "ray://127.0.0.1:10001",
        "auto",
        "http://",
        "http://head",
        "http://head:port",
        "http://head:8265/jobs",
        "http://name:password@head:8265",
        "ftp://head:8265",
    ],
)
def test_what_is_no_address_of_a_dashboard(address: str) -> None:
    with pytest.raises(ClusterError, match="give http://HOST:PORT"):
        dashboard_address(address)


@pytest.mark.parametrize(
    ("argument", "variables", "expected"),
    [
        (None, {}, DEFAULT_ADDRESS),
        ("http://a:1/", {"RAY_API_SERVER_ADDRESS": "http://b:2"}, "http://a:1"),
        (None, {"RAY_API_SERVER_ADDRESS": "http://b:2", "RAY_ADDRESS": "http://c:3"}, "http://b:2"),
        (None, {"RAY_ADDRESS": "http://c:3"}, "http://c:3"),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, DEFAULT_ADDRESS),
        ("https://ray.example.com", {}, "https://ray.example.com"),
    ],
)
def test_where_the_address_comes_from(
    argument: str | None,
    variables: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert dashboard_address(argument) == expected


@pytest.mark.server
def test_the_argument_counts_more_than_the_environment(ray_head: RayHead, folder: Path) -> None:
    body = """
    import os
    return len(jobs.known()) >= 0, os.environ["RAY_API_SERVER_ADDRESS"]
    """
    variables = {"RAY_API_SERVER_ADDRESS": NOBODY}
    assert ask(ray_head, folder, body, **variables) == [True, NOBODY]
