"""The command line: exit codes, one sentence for a wrong request, one JSON value for a script."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from experiments.config.places import open_tracker
from nas.data import DATASETS
from nas.indicators import INDICATORS
from nas.space import built_in_spaces
from tests.experiments.command import assert_refused
from tests.experiments.configs import small_config, write_config, write_yaml
from tests.nas.examples import RAGGED_YAML

PUBLISHED = "3 -1 0 4 0 -1 -1 0 4 -1 4 4 1 4 2 0 0 4 0 2 2"


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("supernet.epoch=3", ("supernet.epoch", "unknown key", "did you mean 'epochs'?")),
        ("supernet.epochs=many", ("supernet.epochs", "'many'", "integer")),
        ("space=sposs", ("'sposs'", *built_in_spaces())),
        ("data.name=imagenet", ("data.name", "'imagenet'", *DATASETS)),
        ("search.indicator=magic", ("search.indicator", "'magic'", *INDICATORS)),
        ("search.searcher=magic", ("search.searcher", "exact, evolution, random")),
        ("supernet.trainable=some", ("'all', 'bn' or 'last_bn'",)),
        (
            "search.indicator=accuracy search.searcher=exact",
            ("'exact'", "sum over layers", "evolution or random"),
        ),
        ("search.max_flops=10", ("flops of at most 10", "cheapest")),
        ("data.name=cifar10", ("cifar10", "root", "download=True")),
        ("data.root=ROOT data.name=fashion_mnist", ("ROOT", "train-images-idx3-ubyte", "apt-get")),
        ("data.root=ROOT data.name=imagefolder", ("ROOT/train", "not there", "<class>")),
        ("epochs", ("--set", "key=value")),
        ("tracking.uri=http://127.0.0.1:9", ("http://127.0.0.1:9", "mlflow server")),
        ("storage.path=/proc/none", ("/proc/none", "cannot be written")),
        ("cluster.address=127.0.0.1:9", ("127.0.0.1:9", "ray start")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_run_is_one_sentence_and_leaves_nothing_half_written(
    bnnas: Any, tmp_path: Path, setting: str, words: tuple[str, ...]
) -> None:
    config = write_config(tmp_path)
    outcome = bnnas("run", str(config), *(f"--set={word}" for word in setting.split()))
    assert_refused(outcome, *words)
    left = [path for path in tree(tmp_path) if not path.endswith((".yaml", "mlflow.db"))]
    assert left == []


def test_an_architecture_is_inspected_in_its_published_form(bnnas: Any) -> None:
    spaces = bnnas("inspect", "spos", "--arch", PUBLISHED, "--json")
    commas = bnnas("inspect", "spos", "--arch", PUBLISHED.replace(" ", ","), "--json")
    assert spaces.status == 0
    assert spaces.out == commas.out
    found = json.loads(spaces.out)
    assert found["space"] == "spos"
    assert found["arch"] == PUBLISHED
    assert (found["flops"], found["params"]) == (471_822_240, 5_228_536)
    assert sum(layer["flops"] for layer in found["layers"]) == found["flops"]
    assert len(found["layers"]) == 21 + 4


def test_a_users_space_is_inspected_like_a_built_in_one(bnnas: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RAGGED_YAML, encoding="utf-8")
    found = json.loads(bnnas("inspect", str(path), "--json").out)
    assert found["num_architectures"] > 1
    assert "architectures" in bnnas("inspect", str(path)).out


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("1 2 3", ("3 choices", "21 layers")),
        (PUBLISHED[:-1] + "9", ("layer 20", "index 9", "0 to 5")),
        ("-1" + PUBLISHED[1:], ("layer 0", "identity", "changes the shape")),
        ("a b", ("'a'", "whole number")),
    ],
)
def test_a_wrong_architecture_is_refused(bnnas: Any, arch: str, words: tuple[str, ...]) -> None:
    assert_refused(bnnas("inspect", "spos", f"--arch={arch}"), *words)


def test_the_doctor_speaks_json(bnnas: Any) -> None:
    outcome = bnnas("doctor", "--json")
    checks = json.loads(outcome.out)["checks"]
    assert {"name", "status", "detail", "mend"} <= set(checks[0])
    missing = any(check["status"] == "missing" for check in checks)
    assert outcome.status == int(missing)


def test_the_ui_of_nothing_is_refused(bnnas: Any, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert_refused(bnnas("ui", str(config)), "no tracking database", "run an experiment first")


@pytest.mark.server
def processes_naming(folder: Path) -> list[int]:
    """Those that have a folder in their command line, but for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder) in entry.read_bytes().decode(errors="replace"):
                found.append(int(entry.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def test_the_ui_serves_the_tracked_runs(tmp_path: Path) -> None:
    settings = small_config(tmp_path, tracking__experiment="shown")
    tracker = open_tracker(settings)
    Path(settings.storage.path).mkdir()
    tracker.check()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = "from experiments.cli import main; main()"
    arguments = ["ui", str(tmp_path / "small.yaml"), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
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
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}", timeout=5)
        assert not processes_naming(tmp_path)
    finally:
        process.kill()
        for pid in processes_naming(tmp_path):
            os.kill(pid, signal.SIGKILL)


def write_images(root: Path) -> Path:
    """A tiny folder of images, one of which is no image; returns that one."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    broken = root / "val" / "cat" / "3.png"
    broken.write_bytes(b"no image")
    return broken


@pytest.mark.ray
@pytest.mark.slow
def test_an_unreadable_image_is_named_and_skipping_it_is_a_choice(
    bnnas: Any, tmp_path: Path
) -> None:
    broken = write_images(tmp_path / "images")
    data = {"name": "imagefolder", "root": str(tmp_path / "images"), "resolution": 16}
    recipe = {"epochs": 1, "batch_size": 4, "warmup_epochs": 0}
    search = {"indicator": "flops"}
    config = write_config(
        tmp_path,
        data=data,
        search=search,
        retrain=recipe,
        random_baseline__num_architectures=0,
    )
    assert_refused(bnnas("run", str(config), "--quiet"), str(broken))
    skipping = bnnas("run", str(config), "--json", "--set=data.skip_unreadable=true")
    assert skipping.status == 0, skipping.err
    assert json.loads(skipping.out)["num_test_images"] == 15


def test_a_config_that_is_not_there_is_refused(bnnas: Any, tmp_path: Path) -> None:
    assert_refused(bnnas("run", str(tmp_path / "none.yaml")), "none.yaml", "no config file")
    assert_refused(bnnas("run", str(write_yaml(tmp_path / "list.yaml", [1]))), "expected a mapping")
