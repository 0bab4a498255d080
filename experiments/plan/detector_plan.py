"""From the config of a detector to its stages: pretraining of the backbone, detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detection.coco.data import file_digest
from experiments.config.experiment import DetectorConfig
from experiments.config.places import scaling
from experiments.config.section import ConfigError
from experiments.plan.cell_plan import check_batches, check_detector_batch, describe_images
from experiments.plan.decides import detect_stage, retrain_stage, searched_backbone
from experiments.plan.find_stage import FINGERPRINT, find_stage
from nas.space import (
    Architecture,
    SearchSpace,
    format_architecture,
    load_space,
    parse_architecture,
    space_from_dict,
)
from nas.taps import select_taps, torchvision_taps
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord


@dataclass(frozen=True)
class DetectorPlan:
    """What has to be made for a detector.

    Attributes:
        config: what was asked for.
        retrain: the stage that pretrains the backbone, where the config says how.
        checkpoint: the record of the retrain stage that was given instead.
        weights: the file that was given instead.
        detect: the training of the detector.
    """

    config: DetectorConfig
    retrain: Stage | None
    checkpoint: StageRecord | None
    weights: Path | None
    detect: Stage

    @property
    def is_pretrained(self) -> bool:
        """Whether the backbone starts with weights that were trained."""
        sources = (self.retrain, self.checkpoint, self.weights)
        return any(source is not None for source in sources) or bool(
            self.detect.config["backbone"].get("weights")
        )


def plan_detector(config: DetectorConfig) -> DetectorPlan:
    """Work out the stages of a detector.

    Raises ValueError, before anything runs, where the backbone cannot be or has no features at the
    strides, or where the checkpoint is not there or another network's.
    """
    check_detector_batch(config.detect, scaling(config))
    if config.torchvision is not None:
        torchvision_taps(config.torchvision.name, config.detect.out_strides)
        backbone = {"type": "TorchvisionBackbone", **config.torchvision.model_dump()}
        return DetectorPlan(
            config, None, None, None, detect_stage(backbone, config.detect, config.seed)
        )
    checkpoint, weights = _find_checkpoint(config)
    space, arch = _searched(config, checkpoint)
    retrain = None
    if config.data is not None and config.retrain is not None:
        images = describe_images(config.data)
        batch_sizes = {"retrain": config.retrain.batch_size}
        check_batches(batch_sizes, config.data, images, scaling(config))
        space = space.for_images(
            in_channels=images.in_channels,
            resolution=images.resolution,
            num_classes=images.num_classes,
        )
        retrain = retrain_stage(space, arch, config.data, config.retrain, config.seed)
    select_taps(space, config.detect.out_strides)
    pretraining = checkpoint if retrain is None else retrain
    detect = detect_stage(
        searched_backbone(space, arch),
        config.detect,
        config.seed,
        retrain=None if pretraining is None else pretraining.fingerprint,
        weights=None if weights is None else file_digest(weights, "give a checkpoint that can."),
    )
    return DetectorPlan(config, retrain, checkpoint, weights, detect)


def _find_checkpoint(config: DetectorConfig) -> tuple[StageRecord | None, Path | None]:
    if config.checkpoint is None:
        return None, None
    path = Path(config.checkpoint).expanduser().absolute()
    if path.is_file():
        if config.space is None or config.arch is None:
            raise ConfigError(
                f"checkpoint is the file {config.checkpoint!r}, which does not say what network "
                "its weights are of: give space and arch, too."
            )
        return None, path
    if not FINGERPRINT.fullmatch(config.checkpoint):
        raise ConfigError(
            f"checkpoint is {config.checkpoint!r}, and there is no such file: give a file, or at "
            "least 8 digits of the fingerprint of a retrain stage."
        )
    return find_stage(config.checkpoint, "retrain", config.storage.path), None


def _searched(
    config: DetectorConfig, checkpoint: StageRecord | None
) -> tuple[SearchSpace, Architecture]:
    """Space and architecture, of the checkpoint's stage where there is one."""
    if checkpoint is None:
        assert config.space is not None  # the config says so
        assert config.arch is not None
        space = load_space(config.space)
        arch = parse_architecture(config.arch)
        space.validate(arch)
        return space, arch
    space = space_from_dict(checkpoint.config["space"])
    arch = parse_architecture(checkpoint.result["arch"])
    if config.arch is not None and parse_architecture(config.arch) != arch:
        raise ConfigError(
            f"arch is {config.arch!r}, but the checkpoint {config.checkpoint} has the weights of "
            f"{format_architecture(arch)!r}: leave out arch, or give another checkpoint."
        )
    if config.space is not None:
        given = load_space(config.space).for_images(
            in_channels=space.in_channels,
            resolution=space.resolution,
            num_classes=space.num_classes,
        )
        if searched_backbone(given, arch) != searched_backbone(space, arch):
            raise ConfigError(
                f"space is {config.space!r}, but the checkpoint {config.checkpoint} has the "
                "weights of a network in another space: leave out space, or give another "
                "checkpoint."
            )
    return space, arch
