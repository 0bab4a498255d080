"""A detector's training from plain values, as a config that MMDetection's own Runner trains.

The recipe is EfficientDet-D0's, which `configs/efficientdet_d0_searched.py` holds; what a user
chooses goes over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

_RECIPE = Path(__file__).with_name("configs") / "efficientdet_d0_searched.py"


def detector_config(
    detect: Mapping[str, Any],
    *,
    backbone: Mapping[str, Any],
    pixels: Mapping[str, Sequence[float]],
    data_root: str,
    class_names: Sequence[str],
    seed: int,
    num_workers: int = 1,
    num_loaders: int = 0,
    use_gpu: bool = False,
) -> Config:
    """The config of MMEngine's Runner.

    Args:
        detect: `image_size`, `out_strides`, `epochs`, `batch_size` (of all workers), `lr` and
            `warmup_lr` (of 128 images; None for a tenth of `lr`), `warmup_epochs`, `optimizer`
            (``sgd`` or ``adamw``), `momentum`, `weight_decay`, `clip_norm`, `scale_range`,
            `flip_prob`, `val_interval`, `ema_momentum`, `bn_momentum`, `precision`, and `options`:
            anything else of the config by its dotted path.
        backbone: MMDetection's `model.backbone`, such as {"type": "SearchedBackbone", …}.
        pixels: ``mean`` and ``std`` of each channel, one (grey) or three (RGB): the backbone is fed
            (pixels in 0..1 − mean) / std.
        data_root: of a data set in COCO's layout.
        class_names: in the order of its files' categories.
        seed: of everything that is random.
        num_workers: processes that train together; each has its share of `batch_size`.
        num_loaders: processes that load images, for each of them.
        use_gpu: with SyncBN over several processes, which PyTorch has on GPUs only.
    """
    config = Config.fromfile(_RECIPE, import_custom_modules=False)
    is_grey = len(pixels["mean"]) == 1
    root, size = f"{Path(data_root)}/", (detect["image_size"], detect["image_size"])
    strides = tuple(detect["out_strides"])
    levels = [*strides, strides[-1] * 2, strides[-1] * 4]  # of the pyramid
    norm = {"type": "BN", "momentum": detect["bn_momentum"], "eps": 1e-3}
    optimizer = {
        "sgd": {"type": "SGD", "momentum": detect["momentum"]},
        "adamw": {"type": "AdamW"},
    }[detect["optimizer"]]
    epochs, warmup_epochs = detect["epochs"], detect["warmup_epochs"]
    lr, warmup_lr, clip_norm = detect["lr"], detect["warmup_lr"], detect["clip_norm"]
    config.merge_from_dict(
        {
            "data_root": root,
            "image_size": size,
            "batch_size": detect["batch_size"] // num_workers,
            "max_epochs": epochs,
            "randomness.seed": seed,
            "sync_bn": "torch" if use_gpu else None,
            "env_cfg.cudnn_benchmark": use_gpu,
            "env_cfg.dist_cfg.backend": "nccl" if use_gpu else "gloo",
            "model.backbone": {**backbone, "out_strides": strides, "_delete_": True},
            "model.neck.norm_cfg": norm,
            "model.bbox_head.norm_cfg": norm,
            "model.bbox_head.num_classes": len(class_names),
            "model.bbox_head.anchor_generator.strides": levels,
            "model.data_preprocessor": {
                "mean": [255 * value for value in pixels["mean"]],
                "std": [255 * value for value in pixels["std"]],
                "bgr_to_rgb": not is_grey,
                "pad_size_divisor": levels[-1],
            },
            "model.data_preprocessor.batch_augments.0.size": size,
            "train_dataloader.batch_size": detect["batch_size"] // num_workers,
            "train_dataloader.dataset.seed": seed,
            "val_evaluator.ann_file": f"{root}{config.val_dataloader.dataset.ann_file}",
            "train_cfg.max_epochs": epochs,
            "train_cfg.val_interval": detect["val_interval"],
            "optim_wrapper.optimizer": {
                **optimizer,
                "lr": lr,
                "weight_decay": detect["weight_decay"],
                "_delete_": True,
            },
            "optim_wrapper.clip_grad": clip_norm and {"max_norm": clip_norm, "norm_type": 2},
            "param_scheduler.0": {
                "start_factor": 0.1 if warmup_lr is None else warmup_lr / lr,
                "end": warmup_epochs,
            },
            "param_scheduler.1": {
                "begin": warmup_epochs,
                "end": epochs,
                "T_max": epochs - warmup_epochs,
            },
            "custom_hooks.0.momentum": detect["ema_momentum"],
        }
    )
    if warmup_epochs == 0:
        del config.param_scheduler[0]
    if detect["precision"] != "float32":
        config.optim_wrapper.update(type="AmpOptimWrapper", dtype=detect["precision"])
    if not use_gpu:
        # MMEngine's own wrapper names a GPU.
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
        }
    transforms: dict[str, dict[str, Any]] = {
        "RandomResize": {"scale": size, "ratio_range": tuple(detect["scale_range"])},
        "RandomCrop": {"crop_size": size},
        "RandomFlip": {"prob": detect["flip_prob"]},
        "Resize": {"scale": size},
    }
    if is_grey:
        transforms["LoadImageFromFile"] = {"color_type": "grayscale"}
    for split, pipeline in (("train", config.train_pipeline), ("val", config.test_pipeline)):
        for transform in pipeline:
            transform.update(transforms.get(transform.type, {}))
        loader = config[f"{split}_dataloader"]
        loader.update(num_workers=num_loaders, persistent_workers=num_loaders > 0)
        loader.dataset.update(
            data_root=root,
            metainfo={"classes": tuple(class_names)},
            pipeline=pipeline,
        )
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    for path in detect["options"]:
        if path.partition(".")[0] not in config:
            raise ValueError(
                f"detect.options has {path!r}, but MMDetection's config of this recipe begins with "
                f"{', '.join(sorted(config.keys()))}: name something in it."
            )
    config.merge_from_dict(dict(detect["options"]))
    return config
