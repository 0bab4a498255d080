"""What `bnnas submit` sends, what it refuses to send, and what becomes of it on a real head."""

from __future__ import annotations

import getpass
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.config.load import load_experiment
from experiments.run.package import pack
from experiments.run.provenance import commit, provenance
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.command import Client, assert_refused
from tests.experiments.configs import plan_file, write_config, write_yaml
from tests.experiments.recorded import tracked
from tests.orchestration.ray_head import RayHead

SOURCE = command.ROOT
PACKAGES = ("nas", "orchestration", "detection", "experiments")


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def package_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    return folder


@pytest.mark.skipif(not (SOURCE / ".git").exists(), reason="no Git checkout to compare with")
def test_the_code_and_the_config_travel_and_nothing_else(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    for path in ("data/cat.png", "bnnas-runs/stages/x.yaml", "notes.py", ".env", "mlflow.db"):
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_text("secret")
    monkeypatch.chdir(own)
    pack(write_config(own), [], package_folder)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    left_out = ("experiments/results/", "experiments/benchmarks/")
    source = {
        path
        for path in listed
        if not path.startswith(left_out) and not path.endswith(".md") and (SOURCE / path).is_file()
    }
    assert tree(package_folder) == source | {"config.yaml", "space.yaml"}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("run", {}),
        ("sweep", {"grid": {"trainable": ["all", "bn"], "epochs": [2, 4]}, "seeds": [0, 1]}),
        ("correlate", {"correlate": {"num_architectures": 5}, "seeds": [0, 1]}),
    ],
)
def test_the_job_makes_the_same_stages_in_the_cluster_that_it_is_in(
    tmp_path: Path,
    package_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    changes: dict[str, Any],
) -> None:
    cluster = {"address": "10.0.0.1:6379", "cpus_per_worker": 2}
    config = write_config(tmp_path, cluster=cluster, **changes)
    write_yaml(tmp_path / "larger.yaml", {"extends": "tiny.yaml", "head": {"channels": 24}})
    overrides = ["space=larger.yaml", "retrain.epochs=3"]
    package = pack(config, overrides, package_folder)
    monkeypatch.chdir(package_folder)
    here, there = plan_file(config, *overrides), plan_file(Path("config.yaml"))
    assert (there.experiment.kind, there.group) == (kind, here.group)
    assert there.known == here.known
    before = here.experiment.shared.cluster
    assert there.experiment.shared.cluster == before.model_copy(update={"address": None})
    assert package.entrypoint == f"python -m experiments {kind} config.yaml"
    assert package.metadata["bnnas.storage"] == str(tmp_path / "runs")


def test_what_would_be_lost_is_refused_before_anything_is_packed(
    tmp_path: Path, package_folder: Path
) -> None:
    for override, words in (
        ("storage.path=bnnas-runs", "storage.path is 'bnnas-runs', .* absolute path"),
        ("storage.path=~/runs", "storage.path is '~/runs', .* absolute path"),
        ("data.root=data", "data.root is 'data', .* absolute path"),
        ("tracking.uri=sqlite:///mlflow.db", "tracking.uri is 'sqlite:///mlflow.db'"),
        ("storage.path=s3://bucket/runs", "s3://bucket/runs.* MLFLOW_TRACKING_URI"),
        ("supernet.epoch=1", "supernet.epoch is an unknown key"),
    ):
        with pytest.raises(ValueError, match=words):
            pack(write_config(tmp_path), [override], package_folder)
    assert tree(package_folder) == set()


def test_a_relative_tracking_uri_of_the_environment_is_refused(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI is 'sqlite:///mlflow.db'"):
        pack(write_config(tmp_path), [], package_folder)
    absolute = f"sqlite:///{tmp_path}/mlflow.db"
    package = pack(write_config(tmp_path), [f"tracking.uri={absolute}"], package_folder)
    assert load_experiment(package.folder / "config.yaml").tracking.uri == absolute


def test_of_the_environment_only_what_is_named_travels(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://10.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    config = write_config(tmp_path)
    variables = ["AWS_ACCESS_KEY_ID", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=1"]
    package = pack(config, [], package_folder, variables=variables)
    expected = {"MLFLOW_TRACKING_URI": uri, "AWS_ACCESS_KEY_ID": "key"}
    expected["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "1"
    expected["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"  # who asks for no GPU sees none
    expected["BNNAS_USER"] = getpass.getuser()
    if (version := commit()) is not None:
        expected["BNNAS_COMMIT"] = version
    assert package.env_vars == expected
    assert "key" not in package.metadata.values()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    for name in ("RAY_AUTH_TOKEN", "NOT_SET_ANYWHERE"):
        with pytest.raises(ValueError, match=f"--env {name}: .*leave it out"):
            pack(config, [], package_folder, variables=[name])


def test_a_job_knows_the_commit_that_it_was_packed_from(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNNAS_COMMIT", "0123456789ab-dirty")
    package = pack(write_config(tmp_path), [], package_folder)
    assert package.metadata["bnnas.commit"] == "0123456789ab-dirty"
    assert provenance()["commit"] == "0123456789ab-dirty"


@pytest.fixture
def client(ray_head: RayHead, tmp_path: Path) -> Client:
    return Client(ray_head, tmp_path)


@pytest.mark.server
@pytest.mark.slow
def test_a_submitted_experiment_runs_and_leaves_its_results_in_the_storage(
    client: Client, tmp_path: Path
) -> None:
    search = {"indicator": "flops"}
    config = write_config(tmp_path, search=search, random_baseline__num_architectures=0)
    # Its process takes a core of the node, and its environment has what the config puts there.
    environment = "cluster.runtime_env={env_vars: {OMP_NUM_THREADS: '1'}}"
    cores = "--set=cluster.entrypoint_cpus=0.5"
    done = client.run("submit", config, "--no-check", "--set", environment, cores)
    assert done.returncode == 0, done.stdout + done.stderr
    submission_id, *log = done.stdout.splitlines()
    assert submission_id.startswith("small-")
    (chain,) = plan_file(config).chains
    records = chain.records(StageStore(tmp_path / "runs"))
    assert records is not None
    assert {record.code["commit"] for record in records} == {"0123456789ab"}

    again = client.run("logs", submission_id)
    assert again.returncode == 0
    assert again.stdout.splitlines() == log
    (one,) = json.loads(client.run("status", submission_id, "--json").stdout)
    assert (one["id"], one["status"]) == (submission_id, "SUCCEEDED")
    assert one["metadata"]["bnnas.storage"] == str(tmp_path / "runs")


@pytest.mark.server
@pytest.mark.slow
def test_a_job_that_fails_is_the_status_of_its_submission(client: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    missing = ("submit", config, "--set=data.name=cifar10", "--set=data.root=/nowhere")
    refused = client.run(*missing)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "On node 127.0.0.1 data.root '/nowhere' does not exist" in refused.stderr
    # Its process takes a core of the node.
    done = client.run(*missing, "--no-check", "--json", "--set=cluster.entrypoint_cpus=0.5")
    assert done.returncode == 1
    one = json.loads(done.stdout)
    assert one["status"] == "FAILED"
    assert "cifar10" in done.stderr  # the log, which says what is missing
    assert f"{one['id']} FAILED: " in done.stderr
    assert client.run("logs", one["id"]).returncode == 1  # it ended, and not well


@pytest.mark.server
@pytest.mark.slow
def test_following_ends_with_ctrl_c_and_the_job_with_stop(client: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path, retrain__epochs=10_000, supernet__epochs=10_000)
    submitted = client.run("submit", config, "--no-wait", "--no-check")
    assert submitted.returncode == 0
    submission_id = submitted.stdout.strip()
    assert "Stop it" in submitted.stderr
    process = client.start("logs", submission_id)
    assert process.stdout is not None
    assert "entrypoint" in "".join(process.stdout.readline() for _ in range(2))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"{submission_id} goes on." in err
    assert f"bnnas logs {submission_id} --address http://127.0.0.1:" in err
    table = client.run("status").stdout  # of all that were submitted
    assert submission_id in table
    assert "RUNNING" in table

    end_s = time.monotonic() + 120
    while not list((tmp_path / "runs" / "jobs").glob("supernet-*/checkpoint_*")):
        assert time.monotonic() < end_s
        time.sleep(0.2)
    stopped = client.run("stop", "--json")  # the only one, so that it need not be named
    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["id"] == submission_id
    assert json.loads(stopped.stdout)["status"] == "STOPPED"
    assert "had ended before" in client.run("stop", submission_id).stdout
    # It was told by SIGTERM: nothing has failed.
    end_s = time.monotonic() + 60
    while {run.info.status for run in tracked(tmp_path)} != {"KILLED"}:
        assert time.monotonic() < end_s
        time.sleep(0.2)
    stages = json.loads(client.run("status", config, "--json").stdout)["stages"]
    assert stages[0]["status"] == "interrupted"
    for arguments, words in (
        (("stop",), "no job runs there"),
        (("logs", "x"), "no submission 'x'"),
    ):
        refused = client.run(*arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert words in refused.stderr


@pytest.mark.server
def test_a_wrong_request_is_one_sentence(
    ray_head: RayHead, bnnas: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ray_head.address)
    config = write_config(tmp_path)
    for arguments, words in (
        (("submit", config, "--set=storage.path=runs"), "storage.path is 'runs'"),
        (("submit", config, "--address", "http://127.0.0.1:9"), "Nobody answers at the Ray"),
        (("submit", config, "--address", "head"), "give http://HOST:PORT"),
    ):
        assert_refused(bnnas(*arguments), words)
