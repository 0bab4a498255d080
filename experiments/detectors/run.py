"""Have or make a detector: for `bnnas detect`, and as the end of a cell or a sweep.

The data set is looked at before anything is started; where every stage is in the store, Ray is not
started at all.
"""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cell import keep_figures
from experiments.coco.data import look_at
from experiments.config import Config
from experiments.detectors.config import DetectionConfig
from experiments.detectors.plan import DetectionPlan
from experiments.plan import CellPlan
from experiments.provenance import provenance
from experiments.quiet import quiet
from experiments.section import ConfigError
from experiments.stage_configs import CODE_VERSIONS
from experiments.stage_list import list_stages
from experiments.stages.detect import Place, detection_json, make_detect
from experiments.stages.retrain import make_retrain, show_retrain
from experiments.stages.setting import Setting, stage_json
from experiments.terminal import Display
from experiments.tracking_uri import local_folder
from experiments.workbench import check_places, connected, open_setting, source_tags
from nas.space import parse_architecture
from orchestration.stage import Stage
from orchestration.stage_runs import Done
from orchestration.stage_store import StageRecord, StageStore
from orchestration.tracking import CELL, Tracker


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


def check_backbone(plan: DetectionPlan) -> None:
    """Find out in this process whether workers will be able to build the backbone.

    Where it comes from a file or from torchvision; imports what that takes. Raises ValueError.
    """
    backbone = plan.stage.config["backbone"]
    if plan.weights is not None:
        with quiet():
            from detection.backbone import SearchedBackbone

            SearchedBackbone(backbone["space"], backbone["arch"], checkpoint=plan.weights)
    elif backbone["type"] == "TorchvisionBackbone":
        from torchvision.models import get_model_weights, list_models

        name, weights = backbone["name"], backbone["weights"]
        if name not in list_models():
            near = difflib.get_close_matches(name, list_models(), n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ConfigError(
                f"torchvision.name is {name!r}, which torchvision does not have{hint}"
            )
        known = list(get_model_weights(name).__members__)
        if weights is not None and weights not in known:
            raise ConfigError(
                f"torchvision.weights is {weights!r}, but {name} has {', '.join(known)}: give one "
                "of these, or leave it out."
            )


def detection_place(config: Config | DetectionConfig, weights: Path | None = None) -> Place:
    """Look at the data set of an experiment's `detect` section, and say where it lies.

    Raises CocoError, in one sentence, where it cannot be used.
    """
    detect = config.detect
    assert detect is not None  # who has none does not ask
    return Place(
        images=look_at(detect, local_folder(config.storage)),
        weights=weights,
        num_loaders=detect.num_workers,
        log_interval=detect.log_interval,
        num_images_shown=detect.num_images_shown,
        use_gpu=config.cluster.use_gpu,
    )


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
