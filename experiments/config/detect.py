"""How a detector is trained: the `detect` section of a config.

The defaults are EfficientDet-D0's recipe on COCO (BN-NAS, section 4.4 and Table 3).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from detection.coco.digit_scenes import PARAMETERS
from experiments.config.section import Section


class DetectionData(Section):
    """Images with boxes: `coco` reads COCO's layout below `root`, `digit_scenes` makes it.

    Scenes are made where `root` says, or beside the results. What a set is known by is the content
    of its annotation files, so `root` is a place and nothing else; the fields after it are those of
    `detection.coco.digit_scenes.make_digit_scenes`.
    """

    name: Literal["coco", "digit_scenes"] = "coco"
    root: str | None = None
    num_train: PositiveInt = 200
    num_val: PositiveInt = 50
    image_size: Annotated[int, Field(ge=32)] = 128
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _fields_fit_the_name(self) -> Self:
        if self.name == "coco":
            if self.root is None:
                raise ValueError(
                    "root is missing: give the folder that holds annotations/, train2017/ and "
                    "val2017/, or name: digit_scenes"
                )
            # Not by `model_fields_set`: a dumped config names all fields.
            fields = type(self).model_fields
            given = [name for name in PARAMETERS if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(f"{', '.join(given)} belong to name: digit_scenes")
        return self


def _three_strides(strides: tuple[int, ...]) -> tuple[int, ...]:
    if len(strides) != 3 or strides[0] < 1 or strides != tuple(strides[0] * f for f in (1, 2, 4)):
        raise ValueError("expected three strides, each twice the one before, such as [8, 16, 32]")
    return strides


def _scale_range(scales: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scales[0] <= scales[1]:
        raise ValueError("expected [smallest, largest], both above 0, such as [0.1, 2.0]")
    return scales


def _by_path(options: Any) -> Any:
    """Nested mappings as dotted paths, so that an option has one name, however it was given."""
    if not isinstance(options, dict):
        return options
    found: dict[str, Any] = {}
    for name, value in options.items():
        inner = _by_path(value)
        nested = isinstance(inner, dict) and inner
        leaves = (
            {f"{name}.{path}": leaf for path, leaf in inner.items()} if nested else {name: value}
        )
        if twice := found.keys() & leaves.keys():
            raise ValueError(f"{', '.join(sorted(twice))} is given twice")
        found |= leaves
    return dict(sorted(found.items()))


class DetectConfig(Section):
    """Training and evaluation of a detector.

    Attributes:
        data: what is detected on.
        image_size: side of the square that images are fitted into, pixels.
        out_strides: of the backbone's three features.
        epochs: of training.
        batch_size: of all workers together.
        lr: of a batch of 128, and scaled with it.
        warmup_lr: likewise; a tenth of `lr` if not given.
        warmup_epochs: of a learning rate that rises from `warmup_lr`; then it falls as a cosine.
        optimizer: `sgd` with `momentum`, or `adamw`.
        clip_norm: of the gradient.
        scale_range: by which an image is resized before a crop of `image_size` is taken.
        flip_prob: of a mirrored image.
        val_interval: epochs between evaluations; the last epoch has one in any case.
        ema_momentum: of the moving average of the weights, which is what is evaluated and kept.
        bn_momentum: of batch norm's running statistics in neck and head.
        precision: of the forward pass.
        options: anything else of MMDetection's config, `model.test_cfg.score_thr: 0.01`.
        num_workers: processes that load images, for every worker.
        log_interval: optimiser steps whose mean losses are recorded, as those of epochs are.
        num_images_shown: validation images that are drawn with their detections.
    """

    data: DetectionData
    image_size: PositiveInt = 512
    out_strides: Annotated[tuple[int, ...], AfterValidator(_three_strides)] = (8, 16, 32)
    epochs: PositiveInt = 300
    batch_size: PositiveInt = 128
    lr: PositiveFloat = 0.16
    warmup_lr: PositiveFloat | None = None
    warmup_epochs: NonNegativeInt = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    clip_norm: PositiveFloat | None = 10.0
    scale_range: Annotated[tuple[float, float], AfterValidator(_scale_range)] = (0.1, 2.0)
    flip_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    val_interval: PositiveInt = 10
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.0002
    bn_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    precision: Literal["float32", "bfloat16"] = "float32"
    options: Annotated[dict[str, Any], BeforeValidator(_by_path)] = Field(default_factory=dict)
    num_workers: NonNegativeInt = 0
    log_interval: PositiveInt = 50
    num_images_shown: NonNegativeInt = 8

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, which must be less than epochs "
                f"({self.epochs})"
            )
        if self.warmup_lr is not None and self.warmup_lr > self.lr:
            raise ValueError(
                f"warmup_lr is {self.warmup_lr:g}, which must be at most lr ({self.lr:g}), because "
                "it rises to that"
            )
        coarsest = 4 * self.out_strides[-1]
        if self.image_size % coarsest:
            raise ValueError(
                f"image_size is {self.image_size}, which must be a multiple of {coarsest}, the "
                "stride of the pyramid's last level"
            )
        return self
