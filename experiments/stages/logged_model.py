"""Trained networks as MLflow models: folders that load where this project is not installed.

The driver that writes them has no torch. So the weights are the very file that the worker saved, a
`state_dict` that is read back without unpickling code, and a folder brings its network's source:
what it takes of the project's packages, and a loader, `subnet_model.py` or `detector_model.py`.
`mlflow.pyfunc.load_model(...).predict(images)` then gives logits, or objects.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import detection
import nas
from detection import DETECTOR_FILE
from experiments.stages.worker_place import EXAMPLE, IMAGES, WEIGHTS
from orchestration.store.stage_store import StageRecord, StageStore

if TYPE_CHECKING:
    from mlflow.types import Schema

# All of `nas` that a network needs; a server takes every file of a model as a request of its own.
_MODULES = ("__init__.py", "blocks.py", "cost.py", "network.py", "space.py")
_MMDETECTION = ("mmdet", "mmengine", "mmcv", "pycocotools")  # modules; packages have other names
_HERE = Path(__file__).parent


def write_subnet(record: StageRecord, store: StageStore, folder: Path) -> None:
    """Write the MLflow model of a retrain stage into an empty folder: images to logits.

    Raises StorageError when the stage's files cannot be read.
    """
    from mlflow.types import Schema, TensorSpec

    images = json.loads(store.read_bytes(record, IMAGES))
    example = np.load(io.BytesIO(store.read_bytes(record, EXAMPLE)))
    float32 = np.dtype(np.float32)
    described = {
        "data": record.config["data"]["name"],
        "arch": record.result["arch"],
        "space": record.config["space"],
        **images,
    }
    with tempfile.TemporaryDirectory(prefix="model-parts-") as temporary:
        data, source = Path(temporary, "subnet"), Path(temporary, "nas")
        store.fetch(record, WEIGHTS, data / WEIGHTS)
        source.mkdir()
        for module in _MODULES:
            shutil.copyfile(Path(nas.__file__).parent / module, source / module)
        _save(
            folder,
            _HERE / "subnet_model.py",
            data,
            described,
            sources=[source],
            requirements=("torch", "numpy"),
            inputs=Schema([TensorSpec(float32, (-1, *example.shape[1:]))]),
            outputs=Schema([TensorSpec(float32, (-1, len(images["class_names"])))]),
            input_example=example,
        )


def write_detector(
    record: StageRecord, store: StageStore, folder: Path, arguments: Mapping[str, Any]
) -> None:
    """Write the MLflow model of a detect stage into an empty folder: images to objects.

    `arguments` are those of `detection.recipe.detector_config` that make its network. Raises
    StorageError when the stage's files cannot be read.
    """
    from mlflow.types import ColSpec, Schema, TensorSpec

    installed = importlib.metadata.packages_distributions()
    with tempfile.TemporaryDirectory(prefix="model-parts-") as temporary:
        data = Path(temporary, "detector")
        store.fetch(record, DETECTOR_FILE, data / DETECTOR_FILE)
        sources = [Path(temporary, package.__name__) for package in (nas, detection)]
        for package, source in zip((nas, detection), sources, strict=True):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(str(package.__file__)).parent, source, ignore=ignored)
        _save(
            folder,
            _HERE / "detector_model.py",
            data,
            arguments,
            sources=sources,
            requirements=[
                *("torch", "torchvision", "numpy", "pandas", "wrapt"),
                *(installed[module][0] for module in _MMDETECTION),
            ],
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
            outputs=Schema(
                [
                    *(ColSpec("long", name) for name in ("image", "label")),
                    *(ColSpec("double", name) for name in ("x", "y", "width", "height", "score")),
                    ColSpec("string", "class_name"),
                ]
            ),
        )


def _save(
    folder: Path,
    loader: Path,
    data: Path,
    described: Mapping[str, Any],
    *,
    sources: Sequence[Path],
    requirements: Sequence[str],
    inputs: Schema,
    outputs: Schema,
    **options: Any,
) -> None:
    """Write a model; `described` becomes `model.json` in `data`, beside the weights."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature

    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells of every step
    (data / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    mlflow.pyfunc.save_model(
        folder,
        loader_module=loader.stem,
        data_path=str(data),
        code_paths=[*map(str, sources), str(loader)],
        pip_requirements=[  # MLflow adds itself
            f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in requirements
        ],
        signature=ModelSignature(inputs, outputs),
        # MLflow would take the lock file of whatever project the user stands in.
        uv_project_path=str(data),
        **options,
    )
