"""What `bnnas submit` sends, what it refuses to send, and what becomes of it on a real head."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.config.cell import Config
from experiments.config.load import load_config, load_experiment
from experiments.config.study import Correlation
from experiments.config.sweep import Sweep
from experiments.plan.cell import plan_cell
from experiments.run.package import pack
from experiments.run.provenance import commit, provenance
from nas.data import describe_data
from orchestration.store.stage_store import StageStore
from tests.experiments import command
from tests.experiments.configs import write_config, write_yaml
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


@pytest.mark.server
def test_the_package_arrives_as_it_was_sent(
    ray_head: RayHead, tmp_path: Path, package_folder: Path
) -> None:
    pack(write_config(tmp_path), [], package_folder)
    program = f"""
        from pathlib import Path
        from orchestration.cluster.submission import Submissions
        jobs = Submissions({ray_head.address!r})
        submission_id = jobs.submit("find -type f", Path({str(package_folder)!r}))
        print("".join(jobs.follow(submission_id)))
    """
    out, err = ray_head.python(program, tmp_path).communicate(timeout=60)
    arrived = {line[2:] for line in out.splitlines() if line.startswith("./")}
    assert arrived == tree(package_folder), err


def fingerprints(config: Config) -> list[str]:
    return [stage.fingerprint for stage in plan_cell(config, describe_data("digits")).known]


def test_the_job_makes_the_same_stages_in_the_cluster_that_it_is_in(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, cluster={"address": "10.0.0.1:6379", "cpus_per_worker": 2})
    write_yaml(tmp_path / "larger.yaml", {"extends": "tiny.yaml", "head": {"channels": 24}})
    overrides = ["space=larger.yaml", "supernet.epochs=2", "seed=3"]
    package = pack(config, overrides, package_folder)
    monkeypatch.chdir(package_folder)
    here, there = load_config(config, overrides), load_config("config.yaml")
    assert fingerprints(there) == fingerprints(here)
    assert there.cluster == here.cluster.model_copy(update={"address": None})
    assert package.entrypoint == "python -m experiments run config.yaml"
    assert package.metadata["bnnas.storage"] == str(tmp_path / "runs")


def test_a_sweep_travels_with_its_grid(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"trainable": ["all", "bn"], "indicator": ["bn", "accuracy"], "epochs": [2, 4]}
    config = write_config(tmp_path, grid=grid, seeds=[0, 1])
    package = pack(config, [], package_folder)
    monkeypatch.chdir(package_folder)
    here, there = load_experiment(config), load_experiment("config.yaml")
    assert isinstance(here, Sweep)
    assert isinstance(there, Sweep)
    assert len(there.cells) == 16
    assert [fingerprints(cell) for cell in there.cells] == [
        fingerprints(cell) for cell in here.cells
    ]
    assert package.entrypoint == "python -m experiments sweep config.yaml"


def test_a_study_travels_with_its_seeds(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, seeds=[0, 1], correlate={"num_architectures": 5})
    package = pack(config, [], package_folder)
    monkeypatch.chdir(package_folder)
    here, there = load_experiment(config), load_experiment("config.yaml")
    assert isinstance(here, Correlation)
    assert isinstance(there, Correlation)
    assert there.shared.correlate == here.shared.correlate
    assert [fingerprints(cell) for cell in there.cells] == [
        fingerprints(cell) for cell in here.cells
    ]
    assert package.entrypoint == "python -m experiments correlate config.yaml"
    with pytest.raises(ValueError, match="absolute path"):
        pack(config, ["storage.path=bnnas-runs"], package_folder)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["storage.path=bnnas-runs"], ("storage.path", "'bnnas-runs'", "absolute path")),
        (["storage.path=~/runs"], ("storage.path", "'~/runs'", "absolute path")),
        (["data.root=data"], ("data.root", "'data'", "absolute path")),
        (["tracking.uri=sqlite:///mlflow.db"], ("tracking.uri", "'sqlite:///mlflow.db'")),
        (["storage.path=s3://bucket/runs"], ("s3://bucket/runs", "MLFLOW_TRACKING_URI")),
        (["supernet.epoch=1"], ("supernet.epoch", "unknown key")),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_would_be_lost_is_refused_before_anything_is_packed(
    tmp_path: Path, package_folder: Path, overrides: list[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=words[0]) as caught:
        pack(write_config(tmp_path), overrides, package_folder)
    for word in words:
        assert word in str(caught.value)
    assert tree(package_folder) == set()


def test_a_relative_tracking_uri_of_the_environment_is_refused(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI is 'sqlite:///mlflow.db'"):
        pack(write_config(tmp_path), [], package_folder)
    absolute = f"sqlite:///{tmp_path}/mlflow.db"
    package = pack(write_config(tmp_path), [f"tracking.uri={absolute}"], package_folder)
    assert load_config(package.folder / "config.yaml").tracking.uri == absolute


def test_of_the_environment_only_what_is_named_travels(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://10.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    config = write_config(tmp_path)
    package = pack(config, [], package_folder, variables=["AWS_ACCESS_KEY_ID"])
    expected = {"MLFLOW_TRACKING_URI": uri, "AWS_ACCESS_KEY_ID": "key"}
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


class Client:
    """`bnnas` with the address and the token of a head in its environment."""

    def __init__(self, head: RayHead, folder: Path) -> None:
        self.folder = folder
        self.variables = {
            "RAY_API_SERVER_ADDRESS": head.address,
            "RAY_AUTH_TOKEN": head.token,
            "BNNAS_COMMIT": "0123456789ab",
        }

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = command.run(*arguments, cwd=self.folder, **self.variables)
        assert "Traceback" not in done.stderr
        assert self.variables["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
        return done

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command.PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=command.environment(**self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submissions(self, submission_id: str | None = None) -> Any:
        program = f"""if True:
            import json
            from rich.console import Console
            from experiments.commands.jobs import print_submissions, submissions_json
            print(json.dumps(submissions_json(None, {submission_id!r})))
            print_submissions(None, {submission_id!r}, Console(width=200))
        """
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=command.environment(**self.variables),
            capture_output=True,
            text=True,
            check=True,
        )
        values, _, table = done.stdout.partition("\n")
        return json.loads(values), table


@pytest.fixture
def bnnas(ray_head: RayHead, tmp_path: Path) -> Client:
    return Client(ray_head, tmp_path)


@pytest.mark.server
@pytest.mark.slow
def test_a_submitted_experiment_runs_and_leaves_its_results_in_the_storage(
    bnnas: Client, tmp_path: Path
) -> None:
    config = write_config(tmp_path, random_baseline__num_architectures=0)
    done = bnnas.run("submit", config)
    assert done.returncode == 0, done.stdout + done.stderr
    submission_id, *log = done.stdout.splitlines()
    assert submission_id.startswith("small-")
    assert any("what was found" in line for line in log)
    known = plan_cell(load_config(config), describe_data("digits")).known
    store = StageStore(tmp_path / "runs")
    records = [store.get(stage.fingerprint) for stage in known]
    assert [record is not None for record in records] == [True] * len(known)
    assert {record.code["commit"] for record in records if record} == {"0123456789ab"}

    again = bnnas.run("logs", submission_id)
    assert again.returncode == 0
    assert again.stdout.splitlines() == log
    (one,), table = bnnas.submissions(submission_id)
    assert (one["id"], one["status"]) == (submission_id, "SUCCEEDED")
    assert one["metadata"]["bnnas.storage"] == str(tmp_path / "runs")
    assert submission_id in table
    assert "SUCCEEDED" in table


@pytest.mark.server
@pytest.mark.slow
def test_a_job_that_fails_is_the_status_of_its_submission(bnnas: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = bnnas.run("submit", config, "--set=data.name=cifar10", "--json")
    assert done.returncode == 1
    one = json.loads(done.stdout)
    assert one["status"] == "FAILED"
    assert "cifar10" in done.stderr  # the log, which says what is missing
    assert f"{one['id']} FAILED: " in done.stderr


@pytest.mark.server
@pytest.mark.slow
def test_following_ends_with_ctrl_c_and_the_job_with_stop(bnnas: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path, retrain__epochs=10_000, supernet__epochs=10_000)
    process = bnnas.start("submit", config)
    assert process.stdout is not None
    submission_id = process.stdout.readline().strip()
    assert "entrypoint" in "".join(process.stdout.readline() for _ in range(2))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"{submission_id} goes on." in err
    assert f"bnnas logs {submission_id} --address http://127.0.0.1:" in err
    (one,), _ = bnnas.submissions(submission_id)
    assert one["status"] == "RUNNING"

    stopped = bnnas.run("stop", "--json")  # the only one, so that it need not be named
    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["id"] == submission_id
    assert json.loads(stopped.stdout)["status"] == "STOPPED"
    assert "had ended before" in bnnas.run("stop", submission_id).stdout
    nothing = bnnas.run("stop")
    assert nothing.returncode == 2
    assert "no job runs there" in nothing.stderr
    assert bnnas.run("logs", submission_id).returncode == 1


@pytest.mark.server
@pytest.mark.slow
def test_without_waiting_the_id_is_all(bnnas: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = bnnas.run("submit", config, "--no-wait", "--set=data.name=cifar10")
    assert done.returncode == 0
    submission_id = done.stdout.strip()
    assert "Stop it" in done.stderr
    values, table = bnnas.submissions()
    assert submission_id in [one["id"] for one in values]
    assert submission_id in table
    assert bnnas.run("logs", submission_id).returncode == 1  # it ended, and not well


@pytest.mark.server
def test_a_wrong_request_is_one_sentence(bnnas: Client, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    nobody = ("--address", "http://127.0.0.1:9")
    for arguments, words in (
        (("submit", config, "--set=storage.path=runs"), "storage.path is 'runs'"),
        (("submit", config, *nobody), "Nobody answers at the Ray dashboard http://127.0.0.1:9"),
        (("submit", config, "--address", "head"), "give http://HOST:PORT"),
        (("logs", "nonesuch"), "no submission 'nonesuch'"),
        (("stop", "nonesuch"), "no submission 'nonesuch'"),
    ):
        done = bnnas.run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
