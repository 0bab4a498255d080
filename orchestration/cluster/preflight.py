"""What a cluster's nodes lack for an experiment, found out by a tiny job before anything is sent.

This file and the request beside it are sent, and it runs there as a program: it imports nothing of
this project. One task for each kind of node looks at what workers will need.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REQUEST = "request.json"
ANSWER = "preflight:"  # before the problems, as JSON, in the job's log
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Request:
    """What every node must have.

    Attributes:
        versions: library → version; ``python`` is the interpreter's, to its minor version.
        storage: folder or URI that must be writable.
        data: config field → folder that must be there.
        servers: config field → address that must answer.
    """

    versions: Mapping[str, str]
    storage: str
    data: Mapping[str, str] = field(default_factory=dict)
    servers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """For the file; a command line would show what an address has of secrets."""
        return json.dumps(asdict(self))


def problems(request: Mapping[str, Any], node: str) -> list[str]:
    """What this machine lacks, one sentence each.

    Args:
        request: a :class:`Request` as plain values.
        node: what this machine is called there.
    """
    found = []
    for library, wanted in request["versions"].items():
        installed = _version(library)
        if installed != wanted:
            is_there = f"is {installed}" if installed else "is missing"
            found.append(
                f"On node {node} {library} {is_there}, and here it is {wanted}: install "
                "requirements.lock there, or give cluster.runtime_env what installs it."
            )
    if reason := _not_writable(request["storage"]):
        found.append(
            f"Node {node} cannot write to storage.path {request['storage']!r} ({reason}): mount it "
            "there, pass on the bucket's credentials with --env, or set another."
        )
    for key, root in request["data"].items():
        if not Path(root).exists():
            found.append(
                f"On node {node} {key} {root!r} does not exist: mount the data there, or set {key} "
                "to a folder that all nodes have."
            )
    for key, address in request["servers"].items():
        try:
            urllib.request.urlopen(address, timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            pass  # it answers, and wants to know who asks
        except (OSError, ValueError) as error:
            found.append(
                f"Node {node} gets no answer from {key} {address} ({error}): start the server, or "
                "give an address that the nodes reach."
            )
    return found


def _version(library: str) -> str | None:
    if library == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _not_writable(path: str) -> str | None:
    """Why a file cannot be written there; None where it can."""
    from pyarrow import fs

    try:
        if "://" in path:
            filesystem, root = fs.FileSystem.from_uri(path)
        else:
            filesystem, root = fs.LocalFileSystem(), path
        filesystem.create_dir(root, recursive=True)
        probe = f"{root.rstrip('/')}/.probe-{uuid.uuid4().hex}"
        with filesystem.open_output_stream(probe) as stream:
            stream.write(b"probe")
        filesystem.delete_file(probe)
    except (OSError, ValueError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _kinds(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One living node of each kind: those of a kind have the same resources of the same size."""
    kinds: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if node["Alive"]:
            sizes = {name: size for name, size in node["Resources"].items() if "node:" not in name}
            memory = round(sizes.pop("memory", 0.0) / 1024**3)
            sizes.pop("object_store_memory", None)
            kinds.setdefault(json.dumps([sizes, memory], sort_keys=True), node)
    return list(kinds.values())


def main() -> None:
    """Ask one node of each kind, and print what they lack."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    request = json.loads(Path(__file__).with_name(REQUEST).read_text(encoding="utf-8"))
    ray.init("auto", log_to_driver=False)
    answers = []
    for node in _kinds(ray.nodes()):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(problems).options(num_cpus=0, scheduling_strategy=there)
        answers.append(task.remote(request, node["NodeManagerAddress"]))
    found = [sentence for sentences in ray.get(answers) for sentence in sentences]
    sys.stdout.write(f"\n{ANSWER}{json.dumps(found)}\n")


def read_answer(log: str) -> list[str] | None:
    """The problems in a job's log; None where there is no answer in it."""
    for line in log.splitlines():
        if line.startswith(ANSWER):
            with contextlib.suppress(ValueError):
                return list(json.loads(line.removeprefix(ANSWER)))
    return None


if __name__ == "__main__":
    main()
