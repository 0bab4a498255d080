"""The Jobs API of a real head that wants a token; every client is a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestration.cluster import submission
from orchestration.cluster.connect import ClusterError
from orchestration.cluster.dashboard import DEFAULT_ADDRESS, dashboard_address
from orchestration.cluster.preflight import problems
from orchestration.cluster.submission import Submissions
from tests.orchestration.ray_head import Cable, RayHead, web_server

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
ASK_THE_PATH = """
import subprocess, sys
import ray
subprocess.run(["bash", "-c", sys.argv[1] + "echo $PATH"], check=True)
"""
PROGRAM = """
import json
from pathlib import Path
from orchestration.cluster.connect import ClusterError
from orchestration.cluster.submission import Submissions

def submit(pause_s=0.0, status=0, **options):
    entrypoint = f"python job.py {{pause_s}} {{status}}"
    return jobs.submit(entrypoint, Path("work"), env_vars={{"COLOUR": "blue"}}, **options)

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
def test_what_is_submitted_runs_in_its_folder_and_is_known_under_its_id(
    ray_head: RayHead, folder: Path
) -> None:
    before_s = time.time()
    # The token comes from a file, and the argument counts more than the environment.
    (folder / "token").write_text(f"{ray_head.token}\n")
    variables = {
        "RAY_AUTH_TOKEN": "",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_API_SERVER_ADDRESS": NOBODY,
    }
    body = """
    first = submit(submission_id="eight-lines", metadata={"what": "a test"})
    log = "".join(jobs.follow(first))
    known = [one.id for one in jobs.known()]
    refused = []
    def refuse(ask):
        try:
            ask()
        except ClusterError as error:
            refused.append(str(error))
    refuse(lambda: submit(submission_id=first))
    for ask in (jobs.status, jobs.stop, lambda name: next(jobs.follow(name))):
        for name in ("eight-liner", "zzz"):
            refuse(lambda: ask(name))
    failing = submit(status=3)
    failed_log = "".join(jobs.follow(failing))
    failed = jobs.status(failing)
    succeeded = jobs.status(first)
    return {
        "log": log,
        "one": succeeded.to_json(),
        "known": known,
        "stopped": jobs.stop(first),
        "refused": refused,
        "failed_log": failed_log,
        "failed": failed.to_json(),
        "succeeded": [succeeded.succeeded, failed.succeeded],
    }
    """
    answer = ask(ray_head, folder, body, **variables)
    for log in (answer["log"], answer["failed_log"]):
        assert [line for line in log.splitlines() if line.startswith("line")] == LINES
    one = answer["one"]
    assert (one["id"], one["status"], one["metadata"]) == (
        "eight-lines",
        "SUCCEEDED",
        {"what": "a test"},
    )
    assert one["entrypoint"] == "python job.py 0.0 0"
    started, finished = (
        datetime.fromisoformat(one[key]).timestamp() for key in ("started_at", "finished_at")
    )
    assert before_s - 0.1 <= started < finished <= time.time()
    assert answer["known"][0] == "eight-lines"
    assert not answer["stopped"]
    assert (answer["failed"]["status"], answer["succeeded"]) == ("FAILED", [True, False])
    assert "exit code 3" in answer["failed"]["message"]
    taken, *unknown = answer["refused"]
    assert "eight-lines already exists" in taken
    assert len(unknown) == 6
    for near, far in zip(unknown[::2], unknown[1::2], strict=True):
        assert "no submission 'eight-liner'" in near
        assert near.endswith("did you mean 'eight-lines'?")
        assert "no submission 'zzz'" in far
        assert "eight-lines" in far
    assert ray_head.token not in str(answer)


@pytest.mark.server
def test_nodes_are_looked_at_before_anything_is_sent(ray_head: RayHead, folder: Path) -> None:
    (folder / "file").touch()
    body = f"""
    from orchestration.cluster.preflight import Request
    import importlib.metadata, platform
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {{"python": python, "ray": importlib.metadata.version("ray")}}
    fine = Request(versions, {str(folder / "new")!r}, {{"data.root": {str(folder)!r}}})
    wrong = Request(
        {{"python": "3.9", "ray": "2.1.0", "no-such-library": "1.0"}},
        {str(folder / "file")!r},
        {{"data.root": "/nowhere"}},
        {{"tracking.uri": "http://127.0.0.1:9/health"}},
    )
    return [jobs.preflight(fine), jobs.preflight(wrong), [one.entrypoint for one in jobs.known()]]
    """
    none, problems, known = ask(ray_head, folder, body)
    assert none == []
    python, ray, missing, storage, data, server = problems
    assert python.startswith("On node 127.0.0.1 python is 3.")
    assert "and here it is 3.9: install requirements.lock there" in python
    assert "ray is 2.6" in ray
    assert "no-such-library is missing" in missing
    assert "cannot write to storage.path" in storage
    assert "data.root '/nowhere' does not exist" in data
    assert "gets no answer from tracking.uri http://127.0.0.1:9/health" in server
    assert not any("preflight" in each for each in known)  # it leaves nothing behind


def wait_for_line(path: Path) -> None:
    """Wait until a client has written what it has read of a log."""
    end_s = time.monotonic() + 60
    while not (path.is_file() and "line 0" in path.read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.05)


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
    wait_for_line(folder / "seen")
    with cable.cut():
        assert LINES[-1] not in (folder / "seen").read_text()
        time.sleep(2)
    text = answer_of(process)
    cable.close()
    assert [line for line in text.splitlines() if line.startswith("line")] == LINES


@pytest.mark.server
@pytest.mark.slow
def test_a_log_whose_connection_stays_broken_is_given_up_and_its_job_goes_on_until_it_is_stopped(
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
    wait_for_line(folder / "seen")
    submission_id = (folder / "id").read_text()
    with cable.cut():
        answer = answer_of(process)
    cable.close()
    assert answer.startswith(f"The log of {submission_id} cannot be read from {cable.address}")
    body = f"""
    running = jobs.status({submission_id!r})
    stopped = jobs.stop(running.id)
    "".join(jobs.follow(running.id))
    one = jobs.status(running.id)
    return running.status, stopped, one.status, one.finished, one.succeeded
    """
    assert ask(ray_head, folder, body) == ["RUNNING", True, "STOPPED", True, False]


@pytest.mark.server
def test_without_the_right_token_nobody_gets_in(ray_head: RayHead, folder: Path) -> None:
    none, wrong = "asks for a token, and there is none", "does not accept the token"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"RAY_AUTH_TOKEN": "0" * 32}, wrong),
        ({"RAY_AUTH_TOKEN": ""}, none),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "token"}, none),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "missing"}, none),
        ({"RAY_AUTH_TOKEN": f"{ray_head.token}\nsecret"}, "characters that cannot be sent"),
    ]
    body = "return len(jobs.known())"
    clients = [start(ray_head, folder, body, **variables) for variables, _ in cases]
    for client, (_, words) in zip(clients, cases, strict=True):
        answer = answer_of(client)
        assert words in answer
        assert "RAY_AUTH_TOKEN" in answer
        assert "RAY_AUTH_TOKEN_PATH" in answer
        assert ("RAY_AUTH_MODE=token" in answer) == (words in (none, wrong))
        for secret in ("0" * 32, ray_head.token, "secret"):
            assert secret not in answer


def test_a_head_that_comes_up_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: list[Any] = [RuntimeError("status code 500: No available agent to submit job"), "id"]

    class Client:
        def submit_job(self, **_: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(submission, "check_reachable", lambda address: None)
    monkeypatch.setattr(submission, "open_client", lambda address: Client())
    monkeypatch.setattr(submission, "_PAUSE_S", 0.01)
    assert Submissions(NOBODY).submit("python job.py", tmp_path) == "id"
    assert answers == []


@pytest.mark.parametrize(
    ("variables", "comes_first"),
    [({}, False), ({"VIRTUAL_ENV": "/tmp/ray/s/runtime_resources/pip/1/virtualenv"}, True)],
)
def test_the_environment_that_ray_has_made_for_a_job_comes_first(
    variables: dict[str, str], comes_first: bool
) -> None:
    path = "/made/bin:/usr/bin:/bin"
    command = [sys.executable, "-c", ASK_THE_PATH, submission._RAYS_OWN_PATH]
    done = subprocess.run(
        command, env={"PATH": path, **variables}, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip() == path) is comes_first
    assert done.stdout.strip().endswith(path)


def test_a_server_with_a_login_answers(tmp_path: Path) -> None:
    request = {"versions": {}, "storage": str(tmp_path), "data": {}}
    for status in (200, 401):
        with web_server(status, "") as address:
            assert problems({**request, "servers": {"tracking.uri": address}}, "n") == []


def test_where_nobody_is_the_answer_comes_at_once() -> None:
    with pytest.raises(ClusterError, match=f"Nobody answers at the Ray dashboard {NOBODY}"):
        Submissions(NOBODY)


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.cluster.dashboard._REACH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"{address} \\(no answer in"):
            Submissions(address)


def test_another_server_is_told_apart() -> None:
    with (
        web_server(200, '{"version": "3"}') as address,
        pytest.raises(ClusterError, match=f"{address} is no Ray dashboard"),
    ):
        Submissions(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8265",
        "ray://127.0.0.1:10001",
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
