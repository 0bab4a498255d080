"""One cell: supernet → search → retrain, what it found, and its run in MLflow.

`experiments.run.one` runs one with the random baseline beside it, `experiments.run.sweep` a grid of
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.load import dump_config
from experiments.config.places import local_folder
from experiments.plan.cell import CellPlan
from experiments.run.workbench import AnyConfig
from experiments.stages.detect import coco_of, detection_json, said
from experiments.stages.retrain import make_retrain
from experiments.stages.search import make_search
from experiments.stages.setting import Setting, stage_json
from experiments.stages.supernet import make_supernet
from nas.space import parse_architecture
from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import CELL, INPUT, STAGE, Tracker


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        chain: what led to the result, in order: supernet (where the indicator reads one), search,
            retrain.
        baseline: the retrainings of the random architectures.
        run_id: the MLflow run that the stages' runs are nested under, where it is known.
        figures: the folder of the chain's figures.
        detected: the detector on the retrained network, where one was asked for.
    """

    plan: CellPlan
    chain: tuple[Done, ...]
    baseline: tuple[Done, ...]
    run_id: str | None
    figures: Path
    detected: Done | None = None

    @property
    def stages(self) -> tuple[Done, ...]:
        """All of them, in the order in which they are shown."""
        detected = () if self.detected is None else (self.detected,)
        return (*self.chain, *self.baseline, *detected)

    @property
    def search(self) -> Done:
        """The search stage."""
        return self.chain[-2]

    @property
    def retrained(self) -> Done:
        """The retraining of the architecture that the search chose."""
        return self.chain[-1]

    @property
    def best_random(self) -> Done | None:
        """The best of the random architectures by test top-1; None without a baseline."""
        return max(self.baseline, key=lambda done: done.record.metrics["top1"], default=None)

    @property
    def metrics(self) -> dict[str, float]:
        """The cell's numbers, as its MLflow run shows them."""
        # The search may choose what the baseline has drawn: that was retrained once.
        stages = {done.record.fingerprint: done for done in self.stages}
        metrics = {
            name: self.retrained.record.metrics[name] for name in ("top1", "flops", "params")
        }
        metrics["device_hours"] = sum(done.record.device_hours for done in stages.values())
        metrics["wall_s"] = sum(done.record.wall_s for done in stages.values())
        if self.detected is not None:
            metrics |= coco_of(self.detected.record)
        if self.best_random is not None:
            metrics["random_baseline"] = self.best_random.record.metrics["top1"]
        return metrics

    def summary(self) -> str:
        """What was found, in Markdown: the description of the cell's MLflow run."""
        rows = [("searched", self.retrained)]
        rows += [("random", done) for done in self.baseline]
        lines = [
            f"| {what} | `{done.record.result['arch']}` | {done.record.metrics['flops']:,.0f} "
            f"| {done.record.metrics['params']:,.0f} | {done.record.metrics['top1']:.2%} |"
            for what, done in rows
        ]
        head = ["| | architecture | FLOPs | params | test top-1 |", "|---|---|--:|--:|--:|"]
        if self.detected is not None:
            lines += ["", f"Detector on this backbone: {said(self.detected.record.metrics)}."]
        return "\n".join([*head, *lines])

    def to_json(self) -> dict[str, Any]:
        """What `bnnas run --json` prints; top-1 is a fraction, FLOPs are multiply-adds."""
        return {
            "status": "done",
            "name": self.plan.config.name,
            "arch": self.search.record.result["arch"],
            "random_baseline": None,
            **self.metrics,
            "num_test_images": int(self.retrained.record.metrics["num_test_images"]),
            "num_skipped": int(self.retrained.record.metrics["num_skipped"]),
            "random_architectures": [dict(done.record.result) for done in self.baseline],
            "detection": None if self.detected is None else detection_json(self.detected.record),
            "stages": [stage_json(done) for done in self.stages],
            "mlflow_run_id": self.run_id,
            "figures": str(self.figures),
        }


class CellRun(GroupRun):
    """The MLflow run of a cell: what it is as its params, what was found as its metrics."""

    @classmethod
    def of(
        cls,
        plan: CellPlan,
        tracker: Tracker,
        *,
        tags: Mapping[str, str],
        part_of: str = "",
        parent_run_id: str | None = None,
    ) -> CellRun:
        """The run of a cell.

        It is found by what decides the cell's result and by its name, so that neither a restart nor
        other workers make a second one; `part_of` keeps apart the sweeps that share a cell.
        """
        config = plan.config
        # MLflow compares runs by the first three params that differ, in alphabetical order. In a
        # sweep these are what its grid is made of.
        params: dict[str, JSON] = {
            "trainable": config.supernet.trainable,
            "indicator": config.search.indicator,
            "epochs": config.supernet.epochs,
            "seed": config.seed,
            "space": plan.space.name,
            "data": config.data.name,
            "max_flops": config.search.max_flops,
            "retrain_epochs": config.retrain.epochs,
        }
        key: dict[str, JSON] = {
            "part_of": part_of,
            "name": config.name,
            "stages": [stage.fingerprint for stage in plan.known],
            "retrain": config.retrain.model_dump(mode="json"),
        }
        return cls(
            name=config.name,
            tracker=tracker,
            tags={CELL: config.name, STAGE: "cell", **tags},
            params=params,
            group=fingerprint("cell", key, code_version=1),
            parent_run_id=parent_run_id,
        )

    def show(self, result: CellResult) -> str | None:
        """End it with what was found; returns its id, None where the server could not be told."""
        found = [*result.chain, *([] if result.detected is None else [result.detected])]
        lineage = {f"{INPUT}{done.stage.kind}": done.run_id for done in found if done.run_id}
        return self.finish(
            metrics=result.metrics,
            artifacts=result.figures,
            params={"winner": result.search.record.result["arch"]},
            tags={**lineage, "mlflow.note.content": result.summary()},
            parts=[done.record.fingerprint for done in result.stages],
        )


def make_chain(plan: CellPlan, setting: Setting) -> tuple[Done, ...]:
    """Have or make the stages that lead to a cell's result, in order."""
    inputs = {}
    if plan.supernet is not None:
        inputs["supernet"] = make_supernet(plan.supernet, setting)
    search = make_search(plan.search, setting, inputs)
    arch = parse_architecture(search.record.result["arch"])
    retrained = make_retrain(plan.retrain(arch), setting, {"search": search})
    return (*inputs.values(), search, retrained)


def keep_figures(config: AnyConfig, stages: Iterable[Done]) -> Path:
    """The figures of some stages and the resolved config, in one folder on this machine."""
    folder = local_folder(config.storage) / "figures" / config.name
    for done in stages:
        shutil.copytree(done.figures, folder, dirs_exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder
