"""`nas` imports without cluster, tracker or detector, and its light half without PyTorch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import nas

# A finder that comes first makes the packages look as if they were not installed.
PROGRAM = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Blocked())
for name in {blocked!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{{name}} was not blocked")
for name in {modules!r}:
    importlib.import_module(name)
"""

CLUSTER = ("ray", "mlflow", "mmdet", "mmengine", "mmcv", "pyarrow")
MODULES = ["nas", *(module.name for module in pkgutil.walk_packages(nas.__path__, "nas."))]
HEAVY = {"nas.blocks", "nas.latency", "nas.network", "nas.trainable", "nas.training"}
HEAVY |= {"nas.zero_cost", "nas.sync_batch_norm", "nas.data.folder", "nas.data.memory"}


def import_without(blocked: tuple[str, ...], modules: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked, modules=modules)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_module_imports_without_cluster_tracker_and_detector() -> None:
    assert set(MODULES) > HEAVY
    import_without((*CLUSTER, "orchestration", "experiments", "detection"), MODULES)


def test_the_light_half_imports_without_pytorch() -> None:
    heavy_packages = ("torch", "torchvision", "scipy", "sklearn", "yaml", "PIL")
    light = [name for name in MODULES if name not in HEAVY]
    import_without((*CLUSTER, *heavy_packages), light)
