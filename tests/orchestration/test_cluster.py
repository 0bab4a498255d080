from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.cluster import capacity
from orchestration.cluster.capacity import (
    driver_room,
    has_labels,
    num_jobs_at_once,
    num_workers_that_fit,
    require,
)
from orchestration.cluster.connect import ClusterError, _check_reachable, _not_usable, cluster
from orchestration.cluster.scaling import Scaling
from tests.orchestration.ray_head import RayHead

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodes", "per_worker", "expected"),
    [
        ([{"CPU": 8.0}], {"CPU": 1.0}, 8),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"CPU": 2.0}, 2),  # not the 3 that the sum suggests
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], {"CPU": 1.0, "GPU": 1.0}, 2),
        ([{"CPU": 1.0}], {"CPU": 0.1}, 10),
        ([{"GPU": 4.0}], {"CPU": 0.0, "GPU": 1.0}, 4),
        ([], {"CPU": 1.0}, 0),
    ],
)
def test_workers_are_counted_node_by_node(
    nodes: list[dict[str, float]], per_worker: dict[str, float], expected: int
) -> None:
    assert num_workers_that_fit(nodes, per_worker) == expected


def test_label_selectors_mean_what_they_mean_to_ray() -> None:
    spot = {"ray.io/market-type": "spot", "zone": "a"}
    for condition, expected in [
        ("spot", True),
        ("on-demand", False),
        ("!on-demand", True),
        ("in(on-demand, spot)", True),
        ("!in(on-demand, spot)", False),
    ]:
        assert has_labels(spot, {"ray.io/market-type": condition, "zone": "a"}) is expected
    assert not has_labels(spot, {"rack": "7"})


@pytest.mark.parametrize("num_workers", [0, (2, 1), (0, 2)])
def test_impossible_numbers_of_workers(num_workers: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="num_workers"):
        Scaling(num_workers)


@pytest.mark.ray
def test_what_can_never_be_had_is_refused_at_once(ray_cluster: None) -> None:
    import ray

    assert ray.cluster_resources()["CPU"] == 2
    require(Scaling(2))
    require(Scaling((1, 64)))
    for scaling in (
        Scaling(3),
        Scaling(1, use_gpu=True),
        Scaling(1, cpus_per_worker=4),
        Scaling(1, memory_per_worker=1e6),
        Scaling(1, accelerator_type="A100"),
        Scaling(1, labels={"zone": "a"}),
    ):
        with pytest.raises(ClusterError, match="lower cluster.num_workers"):
            require(scaling)
    # A head alone, of a cluster that grows by itself.
    growing = Scaling(4, use_gpu=True, cluster_workers=16)
    require(growing)
    assert (num_jobs_at_once(growing), num_jobs_at_once(Scaling(1))) == (4, 2)


@pytest.mark.ray
def test_a_connected_process_keeps_its_cluster(ray_cluster: None) -> None:
    import ray

    with cluster():
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


def test_an_unreachable_cluster_is_one_sentence() -> None:
    # In a process of its own: this one may be connected to the tests' cluster.
    done = _python("""
        from orchestration.cluster.connect import ClusterError, cluster
        for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "no-port", "host:port"):
            try:
                with cluster(address):
                    pass
            except ClusterError as error:
                print(error)
    """)
    gone, client, *wrong = done.stdout.splitlines()
    assert "Nothing answers at the Ray address 127.0.0.1:9" in gone
    assert "Nothing answers" in client
    assert ["HOST:PORT" in line for line in wrong] == [True, True]


@pytest.mark.server
def test_without_the_right_token_nobody_connects(ray_head: RayHead, tmp_path: Path) -> None:
    program = f"""
        from orchestration.cluster.connect import ClusterError, cluster
        try:
            with cluster({ray_head.gcs_address!r}):
                print("connected")
        except ClusterError as error:
            print(error)
    """
    logins = [
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ""},
        {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""},
    ]
    clients = [ray_head.python(program, tmp_path, **login) for login in logins]
    for client in clients:
        answer, _ = client.communicate(timeout=60)
        assert answer.startswith(f"The Ray cluster at {ray_head.gcs_address} wants a token")
        assert len(answer.splitlines()) == 1
        assert "RAY_AUTH_TOKEN_PATH" in answer
        assert "0" * 32 not in answer


def test_a_cluster_of_another_ray_or_python_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    protocol: Any = gcs_service_pb2
    head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceServicer()
    head.CheckAlive = lambda *_: protocol.CheckAliveReply(ray_version="2.1.0")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(head, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ClusterError, match=r"runs Ray 2\.1\.0, and .* install ray==2\.1\.0"):
            _check_reachable(f"127.0.0.1:{port}")
    finally:
        server.stop(None)
    words = "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.9.1\n"
    error = _not_usable("10.0.0.1:6379", RuntimeError(words))
    assert "runs Python 3.9.1, and this is Python 3." in str(error)


@pytest.mark.ray
def test_on_a_cluster_of_others_gpus_are_hidden_and_storage_has_to_be_shared() -> None:
    # Every process has a memory of its own, as every node has a /tmp of its own.
    done = _python("""
        import os
        import ray
        from ray.cluster_utils import Cluster
        from orchestration.cluster.capacity import check_storage_is_shared
        from orchestration.cluster.connect import ClusterError, cluster
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1})
        nodes.add_node(num_cpus=1)
        with cluster(nodes.address):
            @ray.remote(num_cpus=0)
            def visible():
                return os.environ.get("CUDA_VISIBLE_DEVICES")
            print(repr(ray.get(visible.remote())))
            try:
                check_storage_is_shared("mock:///runs")
            except ClusterError as error:
                print(error)
        nodes.shutdown()
    """)
    hidden, sentence = done.stdout.splitlines()
    assert hidden == "''"
    assert sentence.startswith("storage.path 'mock:///runs' is not shared")
    assert "a folder that all nodes mount" in done.stdout


# A starved machine: Ray gives up after 30 seconds, and says so with a plain Exception.
_STARVED = """
        from types import SimpleNamespace
        from ray._private import node, services
        def get_node(*address_and_id):
            raise RuntimeError("not in the GCS")
        services.get_node = get_node
        clock = iter(range(0, 10**6, 40))
        node.time = SimpleNamespace(**{**vars(node.time), "monotonic": lambda: next(clock)})
"""


@pytest.mark.ray
def test_a_local_cluster_that_cannot_start_is_one_sentence() -> None:
    done = _python(f"""
        import os
        from orchestration.cluster.connect import ClusterError, cluster
        def start():
            try:
                with cluster(num_cpus=1):
                    pass
            except ClusterError as error:
                print(error)
        os.environ["RAY_TMPDIR"] = "/dev/null"
        start()
        del os.environ["RAY_TMPDIR"]
        {_STARVED.strip()}
        start()
    """)
    folder, starved = done.stdout.splitlines()
    for line, words in ((folder, "Not a directory"), (starved, "timed out during startup")):
        assert line.startswith("Ray could not start on this machine (")
        assert words in line


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_cluster_is_local_quiet_and_gone_afterwards(tmp_path: Path) -> None:
    # Started elsewhere than in the source tree: workers must import the project all the same.
    program = """
        import os
        from pathlib import Path
        from orchestration.cluster.connect import cluster
        before = dict(os.environ)
        with cluster(num_cpus=1):
            import ray
            import orchestration.store.fingerprint as module
            remote = ray.remote(lambda: __import__("orchestration.store.fingerprint").__file__)
            assert ray.get(remote.remote()) == __import__("orchestration").__file__
            (node,) = ray.nodes()
            print(node["NodeManagerAddress"])
        assert not ray.is_initialized()
        changed = {k for k in os.environ if os.environ[k] != before.get(k)}
        assert changed <= {k for k in changed if k.startswith("RAY_")}, changed
    """
    done = _python(program, tmp_path)
    assert done.stdout.split() == ["127.0.0.1"]
    assert done.stderr == ""


def _python(program: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_a_node_too_small_for_a_driver_is_refused_and_workers_keep_their_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib = 1024**3
    here = [{"NodeID": "here", "Resources": {"memory": 8.0 * gib}}]
    monkeypatch.setattr(capacity, "_nodes", lambda: here)
    monkeypatch.setattr(
        "ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here")
    )
    assert driver_room(gib, Scaling()) == 8
    assert driver_room(gib, Scaling(memory_per_worker=6)) == 2
    assert driver_room(gib, Scaling(memory_per_worker=8)) == 1
    with pytest.raises(
        ClusterError, match=r"8\.0 GiB of memory, and what drives a cell takes 9\.0"
    ):
        driver_room(9 * gib, Scaling())
