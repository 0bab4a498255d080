"""Of Ray only what it offers to the public: a private name may be gone in its next release."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def names_of_ray(tree: ast.AST) -> Iterator[str]:
    """Every dotted name below `ray` in a module, whether imported or looked up."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # a logger's name


def private_names(source: str) -> list[str]:
    found = {name for name in names_of_ray(ast.parse(source)) if name.startswith("ray.")}
    return sorted(
        name
        for name in found
        if any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    )


def test_the_look_finds_each_kind() -> None:
    for source in (
        "import ray._private.state",
        "from ray.train.v2._internal import constants",
        "from ray import _raylet",
        "import ray; ray._private.worker.global_worker",
        "logging.getLogger('ray._private.authentication')",
    ):
        assert private_names(source), source
    assert private_names("import ray; print(ray.__version__, ray.train.report)") == []


@pytest.mark.parametrize("package", ["nas", "orchestration", "detection", "experiments"])
def test_no_private_name(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {str(file): private_names(file.read_text("utf-8")) for file in files}
    assert {file: names for file, names in found.items() if names} == {}
