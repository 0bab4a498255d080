"""The doctor tells a healthy machine from every way in which one can be ill."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from experiments.doctor import storage
from experiments.doctor.data import check_fashion_mnist
from experiments.doctor.devices import check_cpu, check_gpu, gpu_verdict
from experiments.doctor.libraries import (
    check_detection,
    check_libraries,
    check_mmcv_operators,
    check_python,
    declared_requirements,
)
from experiments.doctor.storage import (
    check_commit,
    check_storage,
    check_tracking,
    tracking_verdict,
)
from nas.data.fashion_mnist import FASHION_MNIST_FILES
from tests.experiments.command import ROOT
from tests.orchestration.ray_head import web_server


def install(folder: Path, name: str, version: str, *lines: str) -> None:
    """Leave the metadata that an installed distribution leaves."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(metadata) + "\n")


# --- the whole ---


def test_the_command_speaks_json_and_its_status_says_what_is_missing(bnnas: Any) -> None:
    outcome = bnnas("doctor", "--json")
    checks = json.loads(outcome.out)["checks"]
    assert {"name", "status", "detail", "mend"} <= set(checks[0])
    assert outcome.status == int(any(check["status"] == "missing" for check in checks))


def test_diagnosis_is_plain_light_and_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import json, sys; from experiments.doctor import diagnose; "
        "checks = diagnose('runs', {'MLFLOW_TRACKING_URI': 'sqlite:///elsewhere.db'}); "
        "heavy = sorted({'torch', 'ray', 'mlflow', 'sklearn', 'mmcv'} & set(sys.modules)); "
        "print(json.dumps([[c.to_json() for c in checks], heavy]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    checks, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(tmp_path.iterdir()) == []
    details = {c["name"]: c["detail"] for c in checks}
    assert len(details) == len(checks)
    assert {"python", "torch", "ray", "mlflow", "gpu", "storage", "commit"} <= set(details)
    assert str(tmp_path / "runs") in details["storage"]
    assert "sqlite:///elsewhere.db" in details["mlflow tracking"]
    assert all((c["mend"] is None) == (c["status"] == "ok") for c in checks)


# --- Python and libraries ---


def test_what_is_installed_says_what_it_requires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = (
        "Requires-Dist: alpha>=2",
        "Requires-Dist: beta; python_version < '3'",
        "Requires-Dist: gamma; extra == 'detection'",
        "Requires-Dist: delta; extra == 'dev'",
    )
    for wanted, status in ((">=3.11", "ok"), (">=99", "missing")):
        install(tmp_path / status, "bnnas", "0.1", f"Requires-Python: {wanted}", *requirements)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / status)
            assert check_python().status == status
            assert [str(r) for r in declared_requirements(None)] == ["alpha>=2"]
            assert [r.name for r in declared_requirements("detection")] == ["gamma"]


def test_libraries_are_compared_with_what_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "present_lib", "1.5.0")
    install(tmp_path, "old_lib", "0.9")
    monkeypatch.syspath_prepend(tmp_path)
    declared = [Requirement(r) for r in ("present-lib>=1.5,<2", "old-lib>=1", "absent-lib==3")]

    by_name = check_libraries(declared, by_name=["present-lib", "old-lib", "absent-lib"])
    assert [(c.name, c.status) for c in by_name] == [
        ("present-lib", "ok"),
        ("old-lib", "warn"),
        ("absent-lib", "missing"),
    ]
    assert by_name[1].detail == "0.9, but bnnas needs >=1"

    _, others = check_libraries(declared, by_name=["present-lib"])
    assert others.status == "missing"
    assert "old-lib: 0.9" in others.detail
    assert "absent-lib: not installed" in others.detail

    assert check_detection(declared[:1]).status == "ok"
    partly = check_detection([declared[0], declared[2]])  # optional: no more than a warning
    assert partly.status == "warn"
    assert "absent-lib: not installed" in partly.detail
    assert "[detection]" in str(partly.mend)


def test_mmcv_is_looked_at_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.delitem(sys.modules, "mmcv", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    check = check_mmcv_operators()
    assert (check.status, check.detail == "compiled") == ("ok", False)
    (package / "_ext.cpython-311-x86_64-linux-gnu.so").touch()
    check = check_mmcv_operators()
    assert (check.status, check.detail == "compiled") == ("ok", True)


# --- devices ---


def test_gpu_agrees_with_torch() -> None:
    import torch

    check = check_gpu()
    for i in range(torch.cuda.device_count()):
        assert torch.cuda.get_device_name(i) in check.detail
    if not torch.cuda.is_available():
        assert "CPU" in check.detail or check.status == "warn"


def test_a_torch_that_does_not_start_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = check_gpu()
    assert check.status == "missing"
    assert "libcudart.so.13" in check.detail


def test_gpu_verdicts() -> None:
    gpu = {"name": "H100", "memory_bytes": 8.5e10}
    old = ["CUDA: the driver is too old"]
    for devices, built_for, warnings, nvidia_smi, status, text in (
        ([gpu], "13.0", [], "/smi", "ok", "1: H100, 85.0 GB"),
        ([], "13.0", [], None, "ok", "CPU"),
        ([], None, [], None, "ok", "CPU"),
        ([], None, [], "/smi", "warn", "without CUDA"),
        ([], "13.0", [], "/smi", "warn", "CUDA 13.0"),
        ([], "13.0", old, "/smi", "warn", "too old"),
    ):
        found = {"devices": devices, "built_for": built_for, "warnings": warnings}
        check = gpu_verdict(found, nvidia_smi)
        assert check.status == status
        assert text in check.detail


def test_cpu_counts_the_cores_that_this_process_may_use() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from experiments.doctor.devices import check_cpu; print(check_cpu().detail)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("1 core")
    assert "GB of memory" in check_cpu().detail


# --- data ---


def test_fashion_mnist_is_complete_or_names_what_is_not_there(tmp_path: Path) -> None:
    *most, last = FASHION_MNIST_FILES
    for suffix in ("", ".gz"):
        folder = tmp_path / f"with{suffix}"
        folder.mkdir()
        nothing = check_fashion_mnist(folder)
        assert nothing.status == "warn"
        assert "dataset-fashion-mnist" in str(nothing.mend)
        for name in most:
            (folder / f"{name}{suffix}").touch()
        partly = check_fashion_mnist(folder)
        assert partly.status == "warn"
        assert last in partly.detail
        assert most[0] not in partly.detail
        (folder / f"{last}{suffix}").touch()
        assert check_fashion_mnist(folder).status == "ok"


# --- storage ---


def test_storage_is_tried_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path, status, words in (
        (tmp_path / "some" / "runs", "ok", "writable"),
        (tmp_path / "file" / "runs", "missing", f"{tmp_path / 'file'} is a file"),
        (Path("/proc/bnnas-runs"), "missing", "/proc is not writable"),  # also for root
    ):
        check = check_storage(path)
        assert check.status == status
        assert words in check.detail
    monkeypatch.setattr(storage, "_MIN_FREE_DISK_BYTES", 10**18)
    assert check_storage(tmp_path).status == "warn"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tracking_servers_are_asked() -> None:
    for http_status, body, status, text in (
        (200, "3.17.2", "ok", "MLflow 3.17.2"),
        (200, "2.9.0", "warn", "MLflow 2.9.0, but this client is"),
        (200, "<html>a router's login page</html>", "missing", "not as an MLflow server"),
        (401, "", "ok", "asks for credentials"),
        (500, "", "missing", "HTTP 500"),
    ):
        with web_server(http_status, body) as uri:
            check = check_tracking(uri.replace("//", "//someone:secret@"))
        assert check.status == status
        assert text in check.detail
        assert uri.removeprefix("http://") in check.detail
        assert "secret" not in check.detail
    assert tracking_verdict("http://host", "3.0.1", None).status == "ok"  # without a client


def test_a_server_that_is_not_there_is_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, never listening: every connection is refused
        check = check_tracking(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert check.status == "missing"
    assert "refused" in check.detail


def test_tracking_places_that_are_not_contacted() -> None:
    for uri in ("", "sqlite:///mlflow.db", "databricks"):
        assert check_tracking(uri).status == "ok"
    for uri in ("./mlruns", "file:///tmp/mlruns", "http://localhost:port"):
        assert check_tracking(uri).status == "missing"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_commit_is_gits(tmp_path: Path) -> None:
    assert check_commit(tmp_path).status == "warn"
    git(tmp_path, "init")
    assert check_commit(tmp_path).status == "warn"

    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    clean = check_commit(tmp_path)
    assert (clean.status, clean.detail) == ("ok", git(tmp_path, "rev-parse", "HEAD")[:12])

    (tmp_path / "file").write_text("two")
    assert check_commit(tmp_path).detail == f"{clean.detail} with uncommitted changes"
