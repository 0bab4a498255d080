"""A sweep on a cluster: shared stages are made once, nothing that is there is made again."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.run import engine
from experiments.run.display import Display
from experiments.run.result import Result
from tests.experiments.command import environment
from tests.experiments.recorded import Recorded, run_file, tracked

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# A process in which neither Ray nor torch was ever needed, and where no cluster is.
LIGHT = """
import json, sys
from experiments.config.load import load_experiment
from experiments.config.places import open_tracker
from experiments.plan.graph import plan_experiment
from experiments.run.display import Display
from experiments.run.engine import run_experiment
from rich.console import Console
for path in sys.argv[1:]:
    experiment = load_experiment(path, ["cluster.address=127.0.0.1:9"])
    plan = plan_experiment(experiment)
    result = run_experiment(plan, open_tracker(experiment.shared), Display(Console(), quiet=True))
    print(json.dumps(result.to_json()))
heavy = {"torch", "ray", "mmdet", "mmengine"} & set(sys.modules)
assert not heavy, heavy
"""


def findings(result: Result) -> dict[str, Any]:
    """Everything that a sweep says but how it came by it."""
    whole = result.to_json()
    return {key: whole[key] for key in whole if key not in ("executed", "cached")}


def contents(recorded: Recorded) -> dict[str, dict[str, Any]]:
    """All runs, with what they show and when they ended."""
    return {
        run.info.run_id: {**run.data.to_dictionary(), "end": run.info.end_time}
        for run in tracked(recorded.folder)
    }


def test_four_cells_need_two_supernets_and_no_architecture_twice(recorded: Recorded) -> None:
    result = recorded.sweep
    assert result.failures == {}
    assert [cell.chain.name for cell in result.cells] == [
        *("all-accuracy-2", "bn-accuracy-2", "all-bn-2", "bn-bn-2")
    ]
    kinds = Counter(record.kind for record in result.records)
    assert (kinds["supernet"], kinds["search"]) == (2, 4)
    retrained = [each.retrained for each in (*result.cells, *result.baseline)]
    archs = {record.result["arch"] for record in retrained if record is not None}
    assert kinds["retrain"] == len(archs) < 4 + 1
    assert sorted(result.executed) == sorted(record.fingerprint for record in result.records)
    assert result.cached == ()
    assert {record.fingerprint for record in recorded.store.list()} >= set(result.executed)
    # What a cell shows is what it has found itself.
    for cell in result.cells:
        supernet, search, retrain = cell.records
        assert (supernet.config["supernet"]["trainable"], search.result["indicator"]) == (
            *cell.chain.name.split("-")[:2],
        )
        assert search.inputs == {"supernet": supernet.fingerprint}
        assert retrain.result["arch"] == search.result["arch"]


def test_every_result_has_one_run_and_can_be_walked_to(recorded: Recorded) -> None:
    result = recorded.sweep
    parent_id = result.run_id
    assert parent_id is not None
    below = tracked(recorded.folder, f"tags.`mlflow.parentRunId` = '{parent_id}'")
    stages = [run for run in below if "bnnas.fingerprint" in run.data.tags]
    cells = [run for run in below if run.data.tags["bnnas.stage"] == "cell"]
    fingerprints = Counter(run.data.tags["bnnas.fingerprint"] for run in stages)
    assert fingerprints == dict.fromkeys(result.executed, 1)
    assert {run.info.status for run in below} == {"FINISHED"}
    assert {run.info.run_id for run in cells} == {cell.run_id for cell in result.cells}
    by_id = {run.info.run_id: run for run in stages}
    for cell in cells:
        tags, params = cell.data.tags, cell.data.params
        name = f"{params['trainable']}-{params['indicator']}-{params['epochs']}"
        assert tags["mlflow.runName"] == tags["bnnas.cell"] == name
        supernet, search, retrain = (
            by_id[tags[f"bnnas.input.{kind}"]] for kind in ("supernet", "search", "retrain")
        )
        assert retrain.data.metrics["top1"] == cell.data.metrics["top1"]
        assert retrain.data.params["arch"] == params["winner"]
        assert search.data.tags["bnnas.input.supernet"] == supernet.info.run_id
        assert supernet.data.params["supernet.epochs"] == params["epochs"]
        assert supernet.data.params["supernet.trainable"] == params["trainable"]
        hours = [run.data.metrics["device_hours"] for run in (supernet, search, retrain)]
        assert cell.data.metrics["device_hours"] == pytest.approx(sum(hours))
        assert params["winner"] in tags["mlflow.note.content"]
    parent = recorded.client.get_run(parent_id)
    assert parent.data.metrics["random_baseline"] == result.to_json()["random_baseline"]
    assert result.winner is not None
    assert parent.data.params["winner"] == result.winner.chain.name
    assert parent.data.tags["mlflow.user"] == getpass.getuser()


def test_every_epoch_is_tracked_once_and_figures_are_artifacts(recorded: Recorded) -> None:
    client = recorded.client
    figures = {
        "supernet": {"supernet_training.png"},
        "search": {"search_front.png"},
        "retrain": {"retrain_training.png"},
    }
    for cell in recorded.sweep.cells:
        for stage, record in zip(cell.stages, cell.records, strict=True):
            run_id = str(stage.mlflow_run_id)
            losses = client.get_metric_history(run_id, "train/loss")
            assert [(each.step, each.value) for each in losses] == [
                (row["epoch"], row["train/loss"]) for row in record.history if "train/loss" in row
            ]
            drawn = {Path(file.path).name for file in client.list_artifacts(run_id, "figures")}
            assert drawn >= figures[record.kind]
            files = {file.path for file in client.list_artifacts(run_id)}
            assert files >= {"config.yaml", "record.json", "figures"}


def test_again_everything_is_there_and_neither_ray_nor_mlflow_hears_of_it(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [recorded.sweep, recorded.study, recorded.detector]
    before = contents(recorded)
    paths = [recorded.folder / f"{name}.yaml" for name in ("sweep", "study", "detect")]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *map(str, paths)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def refuse(*_: object) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(engine, "_connected", refuse)
    for path, first in zip(paths, made, strict=True):
        again = run_file(path)
        assert again.executed == ()
        assert set(again.cached) == {*first.executed, *first.cached}
        whole = findings(again)
        for stage in whole.get("stages", ()):
            assert stage.pop("cached")
        expected = findings(first)
        for stage in expected.get("stages", ()):
            del stage["cached"]
        assert whole == expected
    assert contents(recorded) == before


def test_a_stage_that_is_deleted_is_made_again_with_what_depends_on_it(recorded: Recorded) -> None:
    first, store = recorded.sweep, recorded.store
    cell = next(each for each in first.cells if each.chain.name == "all-bn-2")
    supernet, search, retrain = cell.records
    store.delete(supernet.fingerprint)
    store.delete(retrain.fingerprint)
    alone = recorded.write("alone", grid={"trainable": ["all"], "indicator": ["bn"], "epochs": [2]})
    (again,) = (result := run_file(alone)).cells
    assert set(result.executed) == {each.fingerprint for each in (supernet, search, retrain)}
    # The same machine makes the same weights, hence the same everything after them.
    assert again.network_json == cell.network_json
    fingerprints = Counter(
        run.data.tags["bnnas.fingerprint"]
        for run in tracked(recorded.folder, "tags.`bnnas.fingerprint` != ''")
    )
    assert set(fingerprints.values()) == {1}


def test_a_cell_that_fails_leaves_the_others_and_is_told(
    recorded: Recorded, tmp_path: Path
) -> None:
    """And one more axis is one more line of YAML: here the learning rate."""
    assert recorded.sweep
    shutil.copytree(recorded.folder / "runs" / "stages", tmp_path / "runs" / "stages")
    axes = {"trainable": ["all"], "supernet.lr": [1.0, 1e30]}
    config = Recorded(tmp_path).write("failing", grid=axes)
    shown = Console(record=True, width=200, quiet=False, file=(tmp_path / "shown").open("w"))
    result = run_file(config, display=Display(shown))
    good, bad = result.cells
    assert "training diverged" in str(bad.error)
    assert f"✗ {bad.chain.name}" in shown.export_text()
    assert good.network_json == recorded.sweep.cells[2].network_json
    assert all(each.retrained is not None for each in result.baseline)
    assert result.executed == ()
    whole = result.to_json()
    assert (whole["status"], whole["failed"]) == ("failed", 1)
    assert whole["failures"] == {bad.chain.name: bad.error}
    assert [(c["supernet.lr"], c["status"]) for c in whole["cells"]] == [
        (1.0, "done"),
        (1e30, "failed"),
    ]
    is_cell = "tags.`bnnas.stage` = 'cell'"
    (failed,) = tracked(tmp_path, f"tags.`bnnas.cell` = '{bad.chain.name}' and {is_cell}")
    assert failed.info.status == "FAILED"
    assert failed.data.params["supernet.lr"] == "1e+30"
    assert "diverged" in failed.data.tags["bnnas.error"]
    (parent,) = tracked(tmp_path, "tags.`bnnas.stage` = 'sweep'")
    assert parent.info.status == "FAILED"
