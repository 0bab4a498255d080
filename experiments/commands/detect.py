"""Commands for detectors: `bnnas detect CONFIG`, predict, export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from experiments.commands.options import Json, Quiet, Set, arguments, print_json

if TYPE_CHECKING:
    from experiments.detectors.predict import Prediction
    from experiments.report.tables import Entry

_DEFAULT = "train"


class _TrainByDefault(TyperGroup):
    """`bnnas detect CONFIG` is `bnnas detect train CONFIG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="detect",
    cls=_TrainByDefault,
    no_args_is_help=True,
    help="Train a detector on a searched backbone ('bnnas detect CONFIG'), use it, export it.",
)

Storage = Annotated[
    str | None, typer.Option(metavar="PATH", help="Where stages lie; by default bnnas-runs.")
]
Detector = Annotated[
    str,
    typer.Option(
        metavar="FINGERPRINT|FOLDER",
        help="A detect stage in the storage, or what 'bnnas detect export' has written.",
    ),
]


@app.command(_DEFAULT)
def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file with a detect section.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Of the backbone: a built-in space or a YAML file.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="Of the backbone, such as '3 -1 0 4 …'.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT|FILE",
            help="The backbone's weights: a retrain stage in the storage, or a state dict.",
        ),
    ] = None,
    overrides: Set = None,
    dump_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train nothing; write the config for MMDetection's own tools to a .py file.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector on a searched backbone, and evaluate it by COCO's metrics.

    'train' may be left out. What was trained before is not trained again.
    """
    from experiments.commands.run import run_and_print
    from experiments.config.load import load_detector, load_experiment

    given = {"space": space, "arch": arch, "checkpoint": checkpoint}
    given = {name: value for name, value in given.items() if value is not None}
    if config is not None and not given and dump_config is None:
        experiment = load_experiment(config, overrides or [])
    else:
        experiment = load_detector(config, overrides or [], given)
    if dump_config is None:
        named = arguments(config, overrides) if config is not None else []
        run_and_print(experiment, named, json, quiet)
        return
    from experiments.config.places import scaling
    from experiments.detectors.export import dump_runner_config
    from experiments.plan.graph import plan_experiment

    plan = plan_experiment(experiment).detector
    assert plan is not None  # it is one
    dump_runner_config(plan, dump_config)
    if json:
        print_json({"status": "done", "config": str(dump_config)})
    elif not quiet:
        Console().print(
            f"Written: {dump_config}, for {scaling(plan.config).max_workers} process(es), which "
            "share each batch",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files or folders.")],
    checkpoint: Detector,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Is made; images with boxes, detections.json.")
    ] = Path("detections"),
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="The lowest score that is drawn.")
    ] = 0.3,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON", help="COCO's file of these images, whose ids the results then have."
        ),
    ] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Detect objects in images: draws them, and writes COCO's results format."""
    from experiments.detectors.predict import image_files, predict_images
    from experiments.detectors.source import open_source
    from orchestration.store.whole_folder import require_new

    require_new(output, "--output")
    files = image_files(images, annotations)
    with (
        open_source(checkpoint, storage) as source,
        Console(stderr=True, quiet=json).status("Loading the detector, and looking"),
    ):
        prediction = predict_images(source, files, output, threshold=threshold)
    if json:
        print_json(prediction.to_json())
    else:
        print_prediction(prediction, Console())


def print_prediction(prediction: Prediction, console: Console) -> None:
    """How many objects of which class, and where the files lie."""
    from experiments.detectors.predict import IMAGE_LIST
    from experiments.report.formats import decimals, plain
    from experiments.report.tables import Number, Table
    from experiments.stages.detect import DETECTIONS

    rows: list[dict[str, Entry]] = []
    for category, num in Counter(one["category_id"] for one in prediction.drawn).most_common():
        best = max(one["score"] for one in prediction.drawn if one["category_id"] == category)
        rows.append(
            {
                "class": prediction.class_names[category],
                "detections": Number(num, plain),
                "best score": Number(best, decimals(2)),
            }
        )
    title = f"detected with a score of {prediction.threshold:g} at least"
    console.print(Table.of("predictions", title, rows).rich())
    folder = escape(str(prediction.folder))
    console.print(
        f"Images    {len(prediction.images)} drawn, and listed in {IMAGE_LIST}, in {folder}",
        highlight=False,
    )
    console.print(
        f"Results   {folder}/{DETECTIONS}: {len(prediction.detections)} of any score, in COCO's "
        "format",
        highlight=False,
    )


@app.command()
def export(
    checkpoint: Detector,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Is made; may not exist.")] = Path(
        "detector"
    ),
    storage: Storage = None,
    tracking: Annotated[
        str | None, typer.Option(metavar="URI", help="Of MLflow, for the ids of the runs.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a trained detector as plain files: weights, MMDetection's config, a model card."""
    from experiments.detectors.export import export_detector

    exported = export_detector(checkpoint, storage, output, tracking=tracking)
    if json:
        print_json(exported)
    else:
        console = Console()
        console.print(f"Exported to {output}:", highlight=False, soft_wrap=True)
        for name, what in exported["files"].items():
            console.print(f"  {name:16} {what}", highlight=False, soft_wrap=True)
