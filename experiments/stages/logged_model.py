"""A retrained network as an MLflow model: a folder that loads where this project is not installed.

The driver that writes it has no torch. So the weights are the very file that the worker saved, a
`state_dict` that is read back without unpickling code, and the folder brings the source of the
network itself: the modules of `nas` that it consists of, and `experiments/stages/subnet_model.py`,
which puts the two together. `mlflow.pyfunc.load_model(...).predict(images)` then gives logits.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np

import nas
from experiments.stages.worker_place import EXAMPLE, IMAGES, WEIGHTS
from orchestration.store.stage_store import StageRecord, StageStore

# All of `nas` that a network needs; a server takes every file of a model as a request of its own.
_MODULES = ("__init__.py", "blocks.py", "cost.py", "network.py", "space.py")
_LOADER = Path(__file__).with_name("subnet_model.py")
_REQUIREMENTS = ("torch", "numpy")  # MLflow adds itself


def write_model(record: StageRecord, store: StageStore, folder: Path) -> None:
    """Write the MLflow model of a retrain stage into an empty folder.

    Raises StorageError when the stage's files cannot be read.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells of every step
    images = json.loads(store.read_bytes(record, IMAGES))
    example = np.load(io.BytesIO(store.read_bytes(record, EXAMPLE)))
    float32 = np.dtype(np.float32)
    with tempfile.TemporaryDirectory(prefix="model-parts-") as temporary:
        data, source = Path(temporary, "subnet"), Path(temporary, "nas")
        store.fetch(record, WEIGHTS, data / WEIGHTS)
        described = {
            "data": record.config["data"]["name"],
            "arch": record.result["arch"],
            "space": record.config["space"],
            **images,
        }
        (data / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        source.mkdir()
        for module in _MODULES:
            shutil.copyfile(Path(nas.__file__).parent / module, source / module)
        mlflow.pyfunc.save_model(
            folder,
            loader_module=_LOADER.stem,
            data_path=str(data),
            code_paths=[str(source), str(_LOADER)],
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name).partition('+')[0]}"
                for name in _REQUIREMENTS
            ],
            signature=ModelSignature(
                Schema([TensorSpec(float32, (-1, *example.shape[1:]))]),
                Schema([TensorSpec(float32, (-1, len(images["class_names"])))]),
            ),
            input_example=example,
            # MLflow would take the lock file of whatever project the user stands in.
            uv_project_path=temporary,
        )
