"""Have or make a detector: for `bnnas detect`, and as the end of a cell or a sweep.

The data set is looked at before anything is started; where every stage is in the store, Ray is not
started at all.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.plan.cell import CellPlan
from experiments.plan.decides import CODE_VERSIONS
from experiments.plan.detection import DetectionPlan
from experiments.plan.graph import list_stages
from experiments.run.cell import keep_figures
from experiments.run.display import Display
from experiments.run.provenance import provenance
from experiments.run.workbench import check_places, connected, open_setting, source_tags
from experiments.stages.detect import (
    Place,
    check_backbone,
    detection_json,
    detection_place,
    make_detect,
)
from experiments.stages.retrain import make_retrain, show_retrain
from experiments.stages.setting import Setting, stage_json
from nas.space import parse_architecture
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import CELL, Tracker


@dataclass(frozen=True)
class DetectionResult:
    """A finished detector.

    Attributes:
        plan: what was asked for.
        retrained: the stage that pretrained the backbone, where one did.
        detected: the detector.
        figures: the folder of its figures.
    """

    plan: DetectionPlan
    retrained: Done | None
    detected: Done
    figures: Path

    def to_json(self) -> dict[str, Any]:
        """What `bnnas detect --json` prints; APs are fractions, FLOPs are multiply-adds."""
        chain = [done for done in (self.retrained, self.detected) if done is not None]
        return {
            "status": "done",
            "name": self.plan.config.name,
            **detection_json(self.detected.record),
            "stages": [stage_json(done) for done in chain],
            "mlflow_run_id": self.detected.run_id,
            "figures": str(self.figures),
        }


def run_detection(plan: DetectionPlan, tracker: Tracker, display: Display) -> DetectionResult:
    """Have or make the stages of a detector.

    Raises ValueError (a wrong request) before anything is started where that can be known, and
    `JobError` when a stage fails for good.
    """
    config = plan.config
    check_places(config, tracker)
    place = detection_place(config, weights=plan.weights)
    store = StageStore(config.storage.path)
    is_made = all(one.record is not None for one in list_stages(plan, store).stages)
    if not is_made:
        check_backbone(plan)
    if not plan.is_pretrained:
        display.say("[yellow]![/] The backbone starts with random weights: no checkpoint is given.")
    with ExitStack() as stack:
        if not is_made:
            stack.enter_context(connected(config, display.say))
        code = provenance()
        setting = stack.enter_context(
            open_setting(
                config,
                tracker,
                display,
                code=code,
                parent_run_id=None,
                tags={CELL: config.name, **source_tags(code)},
            )
        )
        stack.enter_context(display.live())
        retrained = None
        if plan.retrain is not None:
            retrained = make_retrain(plan.retrain, setting)
        elif plan.checkpoint is not None:
            retrained = show_retrain(known_retraining(plan.checkpoint), plan.checkpoint, setting)
        inputs = {} if retrained is None else {"retrain": retrained}
        detected = make_detect(plan.stage, setting, place, inputs)
        figures = keep_figures(config, [done for done in (retrained, detected) if done is not None])
        detected.shown.result()
    return DetectionResult(plan, retrained, detected, figures)


def detect_found(plan: CellPlan, retrained: Done, setting: Setting, place: Place) -> Done:
    """The detector on the network that a cell has found and retrained."""
    stage = plan.detect(parse_architecture(retrained.record.result["arch"]))
    assert stage is not None  # who asks for none has no place for it
    return make_detect(stage, setting, place, {"retrain": retrained})


def known_retraining(record: StageRecord) -> Stage:
    """The stage of a record that is in the store."""
    return Stage(
        record.kind,
        record.config,
        CODE_VERSIONS["retrain"],
        record.inputs,
        name=f"retrain {record.result['arch']}",
    )
