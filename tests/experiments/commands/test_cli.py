"""The command line: exit codes, one sentence for a wrong request, light imports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from experiments.config.load import load_experiment
from experiments.config.places import open_tracker
from experiments.stages import retrain
from nas.indicators import INDICATORS
from nas.space import built_in_spaces
from orchestration.tracking.links import pages
from tests.experiments.command import PROGRAM, assert_refused, environment, start
from tests.experiments.configs import small_plan, write_config, write_yaml
from tests.experiments.report.browser import visit
from tests.experiments.stage_work import payload, run
from tests.nas.data_files import truncate, write_image_tree
from tests.nas.examples import RAGGED_YAML
from tests.orchestration.ray_head import RayHead

PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"


def check_nothing_is_left(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix not in (".yaml", ".db")] == []


def test_a_wrong_request_is_one_sentence_and_leaves_nothing_half_written(
    bnnas: Any, tmp_path: Path
) -> None:
    """One of a kind; what a config may be is tested with its loading and planning."""
    config = write_config(tmp_path)
    for setting, words in {
        "supernet.epoch=3": ("supernet.epoch", "unknown key", "did you mean 'epochs'?"),
        "space=sposs": ("'sposs'", *built_in_spaces()),
        "search.indicator=magic": ("search.indicator", "'magic'", *INDICATORS),
        "search.max_flops=10": ("flops of at most 10", "cheapest"),
        "data.name=cifar10": ("cifar10", "root", "download=True"),
        "data.root=R data.name=fashion_mnist": ("R", "train-images-idx3-ubyte", "apt-get"),
        "data.root=R data.name=imagefolder": ("R/train", "not there", "<class>"),
        "epochs": ("--set", "key=value"),
        "grid.trainable=[all,some]": ("supernet.trainable", "'some'"),
        "tracking.uri=http://127.0.0.1:9": ("http://127.0.0.1:9", "mlflow server"),
        "storage.path=/proc/none": ("/proc/none", "cannot be written"),
    }.items():
        outcome = bnnas("run", config, *(f"--set={word}" for word in setting.split()))
        assert_refused(outcome, *words)
    assert_refused(bnnas("run", tmp_path / "none.yaml"), "none.yaml", "no config file")
    assert_refused(bnnas("run", write_yaml(tmp_path / "list.yaml", [1])), "expected a mapping")
    assert_refused(bnnas("ui", config), "no tracking database")
    check_nothing_is_left(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_cluster_cannot_do_is_refused_before_anything_is_started(
    bnnas: Any, ray_cluster: None, tmp_path: Path
) -> None:
    for settings, words in (
        ({"cluster.num_workers": 32}, ("32 workers of 1 CPU", "lower cluster.num_workers")),
        ({"cluster.use_gpu": "true"}, ("1 GPU", "cluster.use_gpu")),
    ):
        options = [f"--set={name}={value}" for name, value in settings.items()]
        assert_refused(bnnas("run", write_config(tmp_path), *options, "--quiet"), *words)
        check_nothing_is_left(tmp_path)


@pytest.mark.server
def test_a_cluster_that_is_not_there_or_wants_another_token(
    tmp_path: Path, ray_head: RayHead
) -> None:
    """In processes of their own, for this one may have a cluster, and reads its token once."""
    login = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}
    processes = []
    for address in ("127.0.0.1:9", ray_head.gcs_address):
        (tmp_path / address[-4:]).mkdir()
        config = write_config(tmp_path / address[-4:], cluster__address=address)
        processes.append(
            subprocess.Popen(
                [*PROGRAM, "run", str(config), "--json"],
                env=environment(HOME=str(tmp_path), **login),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process, words in zip(
        processes,
        (("127.0.0.1:9", "ray start"), (ray_head.gcs_address, "RAY_AUTH_TOKEN")),
        strict=True,
    ):
        out, err = process.communicate(timeout=120)
        # Ray's core adds a line of its own to a refused token, with the time in brackets.
        lines = [line for line in err.splitlines() if not line.startswith("[")]
        assert (process.returncode, out, len(lines)) == (2, "", 1), err
        for word in words:
            assert word in lines[0]
    check_nothing_is_left(tmp_path)


# --- light imports ---


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from experiments.cli import app; "
        "done = CliRunner().invoke(app, ['--help']); assert 'correlate' in done.output; "
        "assert not {'torch', 'ray', 'mlflow', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)


# --- looking ---


def test_an_architecture_is_inspected_in_its_published_form(bnnas: Any) -> None:
    spaces = bnnas("inspect", "spos", "--arch", PUBLISHED, "--json")
    commas = bnnas("inspect", "spos", "--arch", PUBLISHED.replace(" ", ","), "--json")
    assert spaces.out == commas.out
    found = spaces.json()
    assert found["space"] == "spos"
    assert found["arch"] == PUBLISHED
    assert (found["flops"], found["params"]) == (471_822_240, 5_228_536)
    assert sum(layer["flops"] for layer in found["layers"]) == found["flops"]
    assert len(found["layers"]) == 21 + 4


def test_a_users_space_is_inspected_like_a_built_in_one(bnnas: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RAGGED_YAML, encoding="utf-8")
    found = bnnas("inspect", str(path), "--json").json()
    assert found["num_architectures"] > 1
    assert "architectures" in bnnas("inspect", str(path)).out


def test_a_wrong_architecture_is_refused(bnnas: Any) -> None:
    assert_refused(bnnas("inspect", "spos", "--arch=1 2 3"), "3 choices", "21 layers")


def processes_naming(folder: Path) -> list[int]:
    """Those that have a folder in their command line, but for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder) in entry.read_bytes().decode(errors="replace"):
                found.append(int(entry.parent.name))
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.server
@pytest.mark.slow
def test_the_ui_serves_the_tracked_runs(tmp_path: Path) -> None:
    config = write_config(tmp_path, tracking__experiment="shown")
    (tmp_path / "runs").mkdir()
    tracker = open_tracker(load_experiment(config).shared)
    tracker.check()
    sweep = tracker.start_group("grid", {"bnnas.stage": "sweep"}, {}, group="grid")
    for top1 in (0.5, 0.75):
        cell = tracker.start_group(
            f"cell {top1}", {"bnnas.stage": "cell"}, {}, group=f"{top1}", parent_run_id=sweep
        )
        tracker.finish_group(cell, metrics={"top1": top1})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start("ui", config, "--port", port, cwd=tmp_path)
    try:
        answer = None
        end_s = time.monotonic() + 90
        while answer is None and time.monotonic() < end_s:
            try:
                answer = requests.get(
                    f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name",
                    params={"experiment_name": "shown"},
                    timeout=5,
                )
            except requests.ConnectionError:
                time.sleep(0.3)
        assert answer is not None
        assert answer.ok
        assert answer.json()["experiment"]["name"] == "shown"
        listed, compared = pages(tracker).values()
        for page in (listed, compared):
            with visit(f"http://127.0.0.1:{port}{page}", width=1280) as seen:
                best, other = (seen.page.get_by_text(f"cell {top1}") for top1 in (0.75, 0.5))
                best.first.wait_for(timeout=60_000)
                other.first.wait_for(timeout=60_000)
                if page == listed:
                    heights = [each.first.bounding_box() for each in (best, other)]
                    assert heights[0] is not None
                    assert heights[1] is not None
                    assert heights[0]["y"] < heights[1]["y"]
                    assert seen.page.get_by_text("grid", exact=True).count() == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}", timeout=5)
        assert not processes_naming(tmp_path)
    finally:
        process.kill()
        for pid in processes_naming(tmp_path):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
def test_an_unreadable_image_is_named_and_skipping_it_is_a_choice(
    bnnas: Any, ray_cluster: None, tmp_path: Path
) -> None:
    """What a worker finds wrong is a wrong request, too."""
    per_class = {"cat": 8, "dog": 8}
    write_image_tree(tmp_path / "images", per_class, per_class)
    broken = tmp_path / "images" / "val" / "cat" / "003.jpg"
    truncate(broken)
    changes: dict[str, Any] = {
        "data": {"name": "imagefolder", "root": str(tmp_path / "images"), "resolution": 16},
        "search": {"indicator": "flops"},
        "retrain": {"epochs": 1, "batch_size": 4, "warmup_epochs": 0},
        "random_baseline__num_architectures": 0,
    }
    assert_refused(bnnas("run", write_config(tmp_path, **changes), "--quiet"), str(broken))
    changes["random_baseline__num_architectures"] = 1
    cell = small_plan(tmp_path, **changes, data__skip_unreadable=True)
    config = payload(cell.retrain(cell.baseline_archs[0]), tmp_path)
    config["place"]["data_root"] = str(tmp_path / "images")
    last = run(retrain.work, config, tmp_path / "job").history[-1]
    assert (last["test/num_images"], last["data/num_skipped"]) == (15, 1)
