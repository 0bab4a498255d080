"""The Slurm job, run for real by Bash with stand-ins for Slurm, Ray and bnnas."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.deploy_files import DEPLOY

_SCRIPT = DEPLOY / "slurm.sbatch"
# `ray start` stays until it is ended, and `ray status` succeeds once a head has been started.
_STAND_INS = {
    "scontrol": 'printf "%s\\n" a01 a02 a03 | head -n "$NODES"',
    "srun": """
        echo "srun $*" >> log
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    """,
    "ray": """
        echo "ray $1 token=$RAY_AUTH_MODE:$RAY_AUTH_TOKEN" >> log
        case $1:$* in
            start:*--head*) [[ -z ${BROKEN:-} ]] || exit 1; touch up ;;
            status:*) [[ -e up ]]; exit ;;
        esac
        trap 'echo "ray ended" >> log; exit' TERM
        while true; do sleep 0.05; done
    """,
    "sleep": "exec /bin/sleep 0.05",
    # It begins when every srun before it has been heard of: they are sent to the background.
    "bnnas": """
for _ in {1..200}; do
    (($(grep -c ^srun log) >= (NODES > 1 ? 2 : 1))) && break
    /bin/sleep 0.05
done
echo "bnnas $*" >> log; echo "token=$RAY_AUTH_TOKEN" >> log; exit "$STATUS"
    """,
}


def _run(folder: Path, *arguments: str, **variables: str) -> tuple[int, list[str], str]:
    """Status, what was called in which order, and what was said."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, body in _STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "a[01-03]", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "7"}
    ended = subprocess.run(
        ["bash", str(_SCRIPT), *arguments],
        cwd=folder,
        env={**os.environ, **slurm, "NODES": "3", "STATUS": "0", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    log = folder / "log"
    return ended.returncode, log.read_text().splitlines() if log.exists() else [], ended.stderr


def test_bash_understands_it() -> None:
    subprocess.run(["bash", "-n", str(_SCRIPT)], check=True)


def test_head_then_workers_then_the_experiment_then_nothing_is_left(tmp_path: Path) -> None:
    status, log, _ = _run(tmp_path, "cell.yaml", "--set", "seed=1")
    assert status == 0
    sruns = [line for line in log if line.startswith("srun")]
    assert len(sruns) == 2
    assert "--nodes=1 --ntasks=1 --nodelist=a01 ray start --head --block" in sruns[0]
    assert "--nodes=2 --ntasks=2 --exclude=a01 ray start --block" in sruns[1]
    assert sruns[1].endswith("--address=a01:6379")
    (experiment,) = [line for line in log if line.startswith("bnnas")]
    expected = "bnnas run cell.yaml --set seed=1 --set cluster.address=a01:6379 "
    assert experiment == expected + "--set cluster.use_gpu=true --set cluster.cluster_workers=12"
    # The head answers before anybody else is sent to it, and both end when the experiment has.
    answered = max(number for number, line in enumerate(log) if line.startswith("ray status"))
    assert log.index(sruns[0]) < answered < log.index(sruns[1])
    assert answered < log.index(experiment) < log.index("ray ended")
    assert log.count("ray ended") == 2


def test_all_of_them_share_one_token(tmp_path: Path) -> None:
    _, log, _ = _run(tmp_path, "cell.yaml")
    tokens = {
        line.partition("token=")[2].removeprefix("token:") for line in log if "token=" in line
    }
    (token,) = tokens
    assert len(token) == 32
    assert not [line for line in log if line.startswith("srun") and token in line]


@pytest.mark.parametrize("status", ["0", "3"])
def test_it_ends_as_the_experiment_did(tmp_path: Path, status: str) -> None:
    assert _run(tmp_path, "cell.yaml", STATUS=status)[0] == int(status)


def test_on_one_node_the_head_is_all(tmp_path: Path) -> None:
    status, log, _ = _run(tmp_path, "cell.yaml", NODES="1")
    assert status == 0
    assert len([line for line in log if line.startswith("srun")]) == 1


def test_a_head_that_does_not_start_is_not_waited_for(tmp_path: Path) -> None:
    status, log, said = _run(tmp_path, "cell.yaml", BROKEN="1")
    assert status == 1
    assert "Ray did not start on a01" in said
    assert not [line for line in log if line.startswith("bnnas")]


def test_without_a_config_it_says_what_it_wants(tmp_path: Path) -> None:
    status, log, said = _run(tmp_path)
    assert (status, log) == (2, [])
    assert "usage" in said
