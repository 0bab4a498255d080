"""What `bnnas inspect` shows: an architecture layer by layer, a detector on it, or a space."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from detection import mmdetection
from experiments.config.detect import DetectConfig, DetectionData
from experiments.figures.numbers import count
from experiments.plan.decides import detect_stage, searched_backbone
from experiments.report.detection_table import parts_table
from experiments.stages.detect import build_config
from nas.cost import COST_TABLES, layer_costs
from nas.space import Architecture, SearchSpace, format_architecture
from nas.taps import select_taps


def inspect_architecture(space: SearchSpace, arch: Architecture) -> dict[str, Any]:
    """Plain values: the totals are the sums of the layers' rows. FLOPs are multiply-adds."""
    layers = [asdict(cost) for cost in layer_costs(space, arch)]
    return {
        "space": space.name,
        "arch": format_architecture(arch),
        "flops": sum(layer["flops"] for layer in layers),
        "params": sum(layer["params"] for layer in layers),
        "resolution": space.resolution,
        "num_classes": space.num_classes,
        "layers": layers,
    }


def inspect_detector(
    space: SearchSpace, arch: Architecture, *, image_size: int, num_classes: int
) -> dict[str, Any]:
    """Plain values: what EfficientDet-D0's neck and head cost on this backbone. FLOPs as above.

    Imports MMDetection. Raises ValueError where the space has no features at strides 8, 16 and 32.
    """
    select_taps(space, (8, 16, 32))
    detect = DetectConfig(data=DetectionData(name="digit_scenes"), image_size=image_size)
    stage = detect_stage(searched_backbone(space, arch), detect, seed=0)
    with mmdetection():
        from detection.efficientdet import detector_cost

        config = build_config(
            stage.config,
            root=".",
            class_names=[str(number) for number in range(num_classes)],
            pixels={"mean": [0.0] * space.in_channels, "std": [1.0] * space.in_channels},
        )
        cost = detector_cost(config.model, image_size)
    return {
        "image_size": image_size,
        "num_classes": num_classes,
        "flops": sum(cost.flops.values()),
        "params": sum(cost.params.values()),
        **{f"flops_{part}": value for part, value in cost.flops.items()},
        **{f"params_{part}": value for part, value in cost.params.items()},
    }


def print_detector(description: dict[str, Any], console: Console) -> None:
    """The parts of a detector and their sum, beside the published ones."""
    side = description["image_size"]
    console.print()
    console.print(
        parts_table(
            description,
            title=f"EfficientDet on it, at {side}×{side} with {description['num_classes']} classes",
        ).rich()
    )
    console.print(
        "Published at 512×512: EfficientDet-D0 2.5 G multiply-adds and 3.9 M parameters; "
        "BN-NAS's searched backbone 2.7 G.",
        highlight=False,
    )


def inspect_space(space: SearchSpace) -> dict[str, Any]:
    """Plain values: size, the range of every cost, and the layers with their candidates."""
    ranges = {}
    for name, table in COST_TABLES.items():
        cost = table(space)
        ranges[name] = {"min": int(cost.minimum), "max": int(cost.maximum)}
    return {
        "space": space.name,
        "num_architectures": space.num_architectures,
        "resolution": space.resolution,
        "num_classes": space.num_classes,
        **ranges,
        "layers": [
            {
                "layer": index,
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "stride": layer.stride,
                "resolution": layer.resolution,
                "candidates": ["identity"]
                if layer.fixed_identity
                else [str(candidate) for candidate in layer.candidates],
            }
            for index, layer in enumerate(space.layers)
        ],
    }


def print_architecture(description: dict[str, Any], console: Console) -> None:
    """The table that a person reads."""
    table = Table(
        title=f"{description['space']}: {description['arch']}", title_justify="left", box=None
    )
    for heading in ("part", "operation"):
        table.add_column(heading)
    for heading in ("in", "out", "stride", "input", "FLOPs", "params"):
        table.add_column(heading, justify="right")
    for layer in description["layers"]:
        table.add_row(
            layer["name"],
            layer["operation"],
            str(layer["in_channels"]),
            str(layer["out_channels"]),
            str(layer["stride"]),
            f"{layer['resolution']}²",
            f"{layer['flops']:,}",
            f"{layer['params']:,}",
            style="dim" if layer["operation"] == "identity" else None,
        )
    table.add_section()
    table.add_row(
        *("total", "", "", "", "", f"{description['resolution']}²"),
        f"{description['flops']:,}",
        f"{description['params']:,}",
        style="bold",
    )
    console.print(table)
    console.print(
        f"\n{count(description['flops'])} multiply-adds, {count(description['params'])} "
        f"parameters at {description['resolution']}×{description['resolution']} with "
        f"{description['num_classes']} classes.",
        highlight=False,
    )


def print_space(description: dict[str, Any], console: Console) -> None:
    """The space at a glance."""
    table = Table(
        title=f"{description['space']}: {description['num_architectures']:,} architectures",
        title_justify="left",
        box=None,
    )
    for heading in ("layer", "in", "out", "stride", "input"):
        table.add_column(heading, justify="right")
    table.add_column("candidate operations, by index")
    for layer in description["layers"]:
        table.add_row(
            str(layer["layer"]),
            str(layer["in_channels"]),
            str(layer["out_channels"]),
            str(layer["stride"]),
            f"{layer['resolution']}²",
            "identity"
            if layer["candidates"] == ["identity"]
            else "  ".join(f"{i}={name}" for i, name in enumerate(layer["candidates"])),
        )
    console.print(table)
    flops, params = description["flops"], description["params"]
    console.print(
        f"\nFLOPs {count(flops['min'])} to {count(flops['max'])}, parameters "
        f"{count(params['min'])} to {count(params['max'])}. "
        f"Add --arch 'index per layer' for one architecture.",
        highlight=False,
    )
