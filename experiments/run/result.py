"""What a chain of stages, and an experiment of whatever kind, has come to: values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from experiments.plan.chain import Chain
from experiments.plan.graph import BASELINE, DETECTION, ExperimentPlan, validation_rank
from experiments.run.groups import Ending, ShownStage, cell_ending, note, retrained_of, run_key
from experiments.run.study import Study
from experiments.stages.detect import detection_json, format_metrics
from orchestration.store.stage_store import StageRecord
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.tracker import Tracker


@dataclass(frozen=True)
class ChainResult:
    """How a chain has ended.

    Attributes:
        chain: what was to be made.
        records: of its stages, in their order; empty where it failed, or was not looked up.
        error: why it failed.
        details: traceback of the worker in which it did.
        is_wrong_request: whether it failed because of what was asked for.
        run_id: the chain's own MLflow run, where it has one.
        stages: those that are there, the one that was given first.
        metrics: of a cell, what Ray Tune shows of it.
    """

    chain: Chain
    records: tuple[StageRecord, ...] = ()
    error: str | None = None
    details: str = ""
    is_wrong_request: bool = False
    run_id: str | None = None
    stages: tuple[ShownStage, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_unshown(self) -> bool:
        """Whether MLflow was away when it was done."""
        run_ids = [stage.mlflow_run_id for stage in self.stages]
        return None in run_ids or (self.chain.group is not None and self.run_id is None)

    @property
    def ending(self) -> Ending:
        """How the MLflow run of a cell ends."""
        if not self.records:
            return Ending(error=self.error or "", status="FAILED")
        return cell_ending(self.records, self.stages)

    @property
    def retrained(self) -> StageRecord | None:
        """The retraining of the chain's architecture."""
        return retrained_of(self.records) if self.records else None

    @property
    def device_hours(self) -> float:
        """What it costs on its own, stages that it shares included."""
        return sum(record.device_hours for record in self.records)

    @property
    def network_json(self) -> dict[str, Any]:
        """Status, architecture and numbers of its retrained network."""
        metrics = {} if self.retrained is None else self.retrained.metrics
        return {
            "status": "failed" if self.retrained is None else "done",
            "error": self.error,
            "arch": None if self.retrained is None else self.retrained.result["arch"],
            "flops": metrics.get("flops"),
            "params": metrics.get("params"),
            "top1": metrics.get("top1"),
            "val_top1": None if self.retrained is None else self.retrained.history[-1]["val/top1"],
        }


@dataclass(frozen=True)
class Result(ABC):
    """An experiment that has come to its end; for each kind of experiment there is a class.

    Attributes:
        plan: what was asked for.
        chains: in the order of the plan; a sweep's detector last.
        executed: fingerprints of the stages that were made.
        cached: fingerprints of those that were there before.
        run_id: the experiment's MLflow run; None where it has none, or it could not be told.
        figures: folder of figures and configs, on this machine.
        study: the numbers of a correlation study; None of other kinds, and where too few
            architectures have all their measurements.
        detection_error: why a sweep's detector was not begun.
    """

    figure_section: ClassVar[str | None] = None
    """The section of its report whose figure is kept beside the configs."""
    is_single: ClassVar[bool] = False
    """Whether there is nothing to show where its first chain has failed."""

    plan: ExperimentPlan
    chains: tuple[ChainResult, ...]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    run_id: str | None
    figures: Path
    study: Study | None = None
    detection_error: str | None = None

    @property
    def kind(self) -> str:
        """The experiment's."""
        return self.plan.experiment.kind

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.plan.experiment.name

    @property
    def cells(self) -> tuple[ChainResult, ...]:
        """Those that are cells."""
        return tuple(each for each in self.chains if each.chain.is_cell)

    @property
    def baseline(self) -> tuple[ChainResult, ...]:
        """Those of the random baseline."""
        return tuple(each for each in self.chains if each.chain.member == BASELINE)

    @property
    def detected(self) -> StageRecord | None:
        """The detector, where one was asked for and made."""
        return next((each for each in self.records if each.kind == "detect"), None)

    @property
    def failures(self) -> dict[str, str]:
        """What failed, by name, and why."""
        failed = {}
        for each in self.chains:
            if each.error:
                label, member = each.chain.label, each.chain.member
                failed[label if member in label else f"{label}, {member}"] = each.error
        if self.detection_error is not None:
            failed[DETECTION] = self.detection_error
        return failed

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """Every stage once."""
        records = [record for each in self.chains for record in each.records]
        return tuple({record.fingerprint: record for record in records}.values())

    @property
    def winner(self) -> ChainResult | None:
        """The cell whose network does best on the search-validation images.

        Not on the test set: who chooses by it can no longer report it.
        """
        done = [each for each in self.cells if each.records]
        return max(done, key=lambda each: validation_rank(retrained_of(each.records)), default=None)

    def compare_page(self, tracker: Tracker) -> str | None:
        """MLflow's page that compares what was made, after the server's address."""
        return None

    @property
    def registered(self) -> ChainResult | None:
        """The cell whose network is registered in MLflow."""
        return None

    @classmethod
    @abstractmethod
    def run_of(
        cls, plan: ExperimentPlan, tracker: Tracker, tags: Mapping[str, str]
    ) -> GroupRun | None:
        """The MLflow run of such an experiment, above those of its stages; None without one."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The experiment's numbers, as its MLflow run shows them."""

    @property
    def ending(self) -> Ending:
        """How its MLflow run ends."""
        return Ending(
            metrics=self.metrics,
            records=self.records,
            status="FAILED" if self.failures else "FINISHED",
        )

    def end(self, run: GroupRun, tracker: Tracker, tags: Mapping[str, str]) -> None:
        """End the experiment's MLflow run with what was found; `tags` are those of all runs."""
        self.ending.show(run, self.figures, self.note(tracker), self._run_ids())

    def note(self, tracker: Tracker) -> str | None:
        """The description of its MLflow run, in Markdown."""
        return self._description()

    def _description(self) -> str:
        rows = [(each.chain.label, each.retrained or str(each.error)) for each in self.cells]
        rows += [("random", each.retrained) for each in self.baseline if each.retrained is not None]
        text = note(rows)
        if self.detected is not None:
            text += f"\n\nDetector on this backbone: {format_metrics(self.detected.metrics)}."
        return text

    def _run_ids(self) -> dict[str, str]:
        """The runs below its own, by stage and cell; what MLflow was not told is not there."""
        run_ids = {
            run_key(stage.fingerprint): stage.mlflow_run_id
            for each in self.chains
            for stage in each.stages
        }
        run_ids |= {
            run_key(each.chain.group): each.run_id
            for each in self.cells
            if each.chain.group is not None
        }
        return {key: run_id for key, run_id in run_ids.items() if run_id is not None}

    def keep(self) -> None:
        """Write the resolved configs, and what else is kept as text, beside the figures."""
        self.figures.mkdir(parents=True, exist_ok=True)
        for name, text in self._files().items():
            (self.figures / name).write_text(text, encoding="utf-8")

    def _files(self) -> dict[str, str]:
        """Name → text; the chains have written the rest."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints; top-1 and APs are fractions, FLOPs are multiply-adds."""
        status = "failed" if self.failures else "done"
        return {"status": status, "name": self.name, **self._json()}

    @abstractmethod
    def _json(self) -> dict[str, Any]:
        """The rest of what `--json` prints."""

    def _detection_json(self) -> dict[str, Any] | None:
        return None if self.detected is None else detection_json(self.detected)

    def _stages_json(self) -> list[dict[str, Any]]:
        stages = [
            {**asdict(stage), "device_hours": record.device_hours}
            for each in self.chains
            for stage, record in zip(each.stages, (*each.chain.given, *each.records), strict=True)
        ]
        return sorted(stages, key=lambda stage: stage["kind"] == "detect")  # after the baseline

    def _counts_json(self) -> dict[str, Any]:
        return {
            "executed": len(self.executed),
            "cached": len(self.cached),
            "failed": len(self.failures),
            "failures": self.failures,
        }
