"""The `detect` section: how a detector is trained.

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

    name: Literal["coco", "digit_scenes"] = Field(
        "coco", description="coco (COCO's layout below `root`), or digit_scenes (generated)."
    )
    root: str | None = Field(
        None, description="Folder of the images; scenes lie beside the results if not given."
    )
    num_train: PositiveInt = Field(200, description="Training scenes.")
    num_val: PositiveInt = Field(50, description="Validation scenes.")
    image_size: Annotated[int, Field(ge=32)] = Field(128, description="Side of a scene, in pixels.")
    seed: NonNegativeInt = Field(0, description="Of the scenes.")

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
    fields: dict[str, Any] = {}
    for name, value in options.items():
        inner = _by_path(value)
        nested = isinstance(inner, dict) and inner
        leaves = (
            {f"{name}.{path}": leaf for path, leaf in inner.items()} if nested else {name: value}
        )
        if twice := fields.keys() & leaves.keys():
            raise ValueError(f"{', '.join(sorted(twice))} is given twice")
        fields |= leaves
    return dict(sorted(fields.items()))


class DetectorRecipe(Section):
    """Training and evaluation of a detector, whatever its images."""

    image_size: PositiveInt = Field(
        512, description="Side of the square that images are fitted into, in pixels."
    )
    out_strides: Annotated[tuple[int, ...], AfterValidator(_three_strides)] = Field(
        (8, 16, 32), description="Of the backbone's three features."
    )
    epochs: PositiveInt = Field(300, description="Epochs of training.")
    batch_size: PositiveInt = Field(128, description="Images in a step, of all workers together.")
    lr: PositiveFloat = Field(
        0.16, description="Peak learning rate for a batch of 128; scales with it."
    )
    warmup_lr: PositiveFloat | None = Field(
        None,
        description="Learning rate at the start, for a batch of 128; a tenth of `lr` if not given.",
    )
    warmup_epochs: NonNegativeInt = Field(
        1, description="Epochs in which it rises to `lr`; then it falls as a cosine."
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd with `momentum`, or adamw.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Of SGD.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(4e-5, description="L2 penalty.")
    clip_norm: PositiveFloat | None = Field(
        10.0, description="Largest norm of the gradient; null for any."
    )
    scale_range: Annotated[tuple[float, float], AfterValidator(_scale_range)] = Field(
        (0.1, 2.0),
        description="By which an image is resized before a crop of `image_size` is taken.",
    )
    flip_prob: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Of a mirrored training image."
    )
    val_interval: PositiveInt = Field(
        10, description="Epochs between evaluations; the last epoch has one in any case."
    )
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.0002, description="Of the moving average of the weights, which is evaluated and kept."
    )
    bn_momentum: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="Of batch norm's running statistics in neck and head."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the forward pass; bfloat16 needs a GPU."
    )
    options: Annotated[dict[str, Any], BeforeValidator(_by_path)] = Field(
        default_factory=dict,
        description="More of MMDetection's config, such as model.test_cfg.score_thr: 0.01.",
    )
    num_workers: NonNegativeInt = Field(
        0, description="Processes that load images, for every worker."
    )
    log_interval: PositiveInt = Field(
        50, description="Steps whose mean losses are recorded, as those of epochs are."
    )
    num_images_shown: NonNegativeInt = Field(
        8, description="Validation images that are drawn with their detections."
    )

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


class DetectConfig(DetectorRecipe):
    """The `detect` section: a recipe, and what is detected on."""

    data: DetectionData = Field(description="What is detected on.")


class TorchvisionConfig(Section):
    """A classifier of torchvision as the backbone."""

    name: str = Field(description="As torchvision calls it, such as resnet18.")
    weights: str | None = Field(
        None, description="Such as IMAGENET1K_V1; workers download them. Null for random ones."
    )
