"""The command that shows an architecture layer by layer, a detector on it, or a space: inspect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from experiments.commands.options import Json, print_json
from experiments.figures.numbers import count

if TYPE_CHECKING:
    from nas.space import Architecture, SearchSpace


def inspect(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A built-in space or a YAML file.")],
    arch: Annotated[
        str | None, typer.Option(help="Indices between spaces or commas: '3 -1 0 4 …'.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(min=1, help="Image side in pixels.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Image channels.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    detector: Annotated[
        bool,
        typer.Option(
            "--detector",
            help="Also what an EfficientDet on it costs, by default at 512 pixels with 80 classes.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show what an architecture is and costs, layer by layer; without --arch, the space."""
    from nas.space import load_space, parse_architecture

    loaded = load_space(space).for_images(
        in_channels=channels, resolution=resolution, num_classes=classes
    )
    if detector and arch is None:
        raise ValueError("--detector needs a backbone: add --arch 'index per layer'.")
    if arch is None:
        description = inspect_space(loaded)
        show: Callable[[dict[str, Any], Console], None] = print_space
    else:
        description = inspect_architecture(loaded, parse_architecture(arch))
        show = print_architecture
    if detector:
        description["detector"] = inspect_detector(
            loaded,
            parse_architecture(str(arch)),
            image_size=resolution or 512,
            num_classes=classes or 80,
        )
    if json:
        print_json(description)
        return
    show(description, Console())
    if detector:
        print_detector(description["detector"], Console())


def inspect_architecture(space: SearchSpace, arch: Architecture) -> dict[str, Any]:
    """Plain values: the totals are the sums of the layers' rows. FLOPs are multiply-adds."""
    from nas.cost import layer_costs
    from nas.space import format_architecture

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
    from detection import mmdetection
    from experiments.config.detect import DetectConfig, DetectionData
    from experiments.plan.decides import detect_stage, searched_backbone
    from experiments.stages.detect import build_config
    from nas.taps import select_taps

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
    from experiments.report.detection import parts_table

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
    from nas.cost import COST_TABLES

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
