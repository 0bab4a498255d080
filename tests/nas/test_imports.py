"""`nas` imports without cluster, tracker or detector, and its light half without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A finder that comes first makes the packages look as if they were not installed.
PROGRAM = """
import importlib, pkgutil, sys

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

import nas
names = ["nas", *(m.name for m in pkgutil.walk_packages(nas.__path__, "nas."))]
for name in names:
    if {only!r} is None or name.startswith({only!r}):
        importlib.import_module(name)
        print(name)
"""

CLUSTER = ("ray", "mlflow", "mmdet", "mmengine", "mmcv", "pyarrow")
LIGHT = (
    "nas.cost",
    "nas.early_bird",
    "nas.indicators",
    "nas.ranking",
    "nas.sampling",
    "nas.schedule",
    "nas.search",
    "nas.space",
)


def imported(blocked: tuple[str, ...], only: tuple[str, ...] | None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked, only=only)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_module_imports_without_cluster_tracker_and_detector() -> None:
    names = imported((*CLUSTER, "orchestration", "experiments", "detection"), None)
    modules = {path.stem for path in (Path(__file__).parents[2] / "nas").glob("*.py")}
    assert {f"nas.{module}" for module in modules - {"__init__"}} <= set(names)


def test_the_light_half_imports_without_pytorch() -> None:
    names = imported((*CLUSTER, "torch", "torchvision", "scipy", "sklearn", "yaml"), LIGHT)
    assert set(LIGHT) <= set(names)
    assert len(names) > len(LIGHT)  # the searchers


@pytest.mark.parametrize("name", ["nas", "nas.space", "nas.search"])
def test_light_modules_load_nothing_heavy(name: str) -> None:
    program = (
        f"import sys, {name}\n"
        "print([n for n in ('torch', 'torchvision', 'scipy', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
