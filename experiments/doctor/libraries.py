"""Python, the libraries that bnnas declares, and the optional ones for detection."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from experiments.doctor.check import Check, Status

DISTRIBUTION = "bnnas"
INSTALL = 'pip install -c requirements.lock -e "."'
INSTALL_DETECTION = 'pip install -c requirements.lock -e ".[detection]"'

_MAIN_LIBRARIES = ("torch", "torchvision", "ray", "mlflow", "numpy")


def declared_requirements(extra: str | None) -> list[Requirement]:
    """What the installed ``bnnas`` says it needs: always (``None``), or only for ``extra``.

    Empty where bnnas runs from a folder without having been installed.
    """
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = list(map(Requirement, lines))
    always = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    if extra is None:
        return always
    return [
        r
        for r in requirements
        if r not in always and r.marker is not None and r.marker.evaluate({"extra": extra})
    ]


def check_python() -> Check:
    """The interpreter against the version that the installed bnnas asks for."""
    detail = f"{platform.python_version()} at {sys.executable}"
    try:
        wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "python", "warn", f"{detail}; bnnas itself is not installed, only found", INSTALL
        )
    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Check("python", "missing", f"{detail}, but bnnas needs {wanted}", "make install")
    return Check("python", "ok", detail)


def check_libraries(
    declared: Sequence[Requirement], by_name: Sequence[str] = _MAIN_LIBRARIES
) -> list[Check]:
    """One check for each library in ``by_name``, and one for all other declared requirements."""
    requirements: dict[str, Requirement] = {canonicalize_name(r.name): r for r in declared}
    checks = [_check_library(requirements.pop(n, Requirement(n))) for n in by_name]
    others = [_check_library(r) for r in requirements.values()]
    bad = [c for c in others if c.status != "ok"]
    if bad:
        worst: Status = "missing" if any(c.status == "missing" for c in bad) else "warn"
        detail = "; ".join(f"{c.name}: {c.detail}" for c in bad)
        checks.append(Check("other libraries", worst, detail, INSTALL))
    elif others:
        checks.append(Check("other libraries", "ok", f"{len(others)} as required"))
    return checks


def _check_library(requirement: Requirement) -> Check:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(requirement.name, "missing", "not installed", INSTALL)
    if not requirement.specifier.contains(version, prereleases=True):
        detail = f"{version}, but bnnas needs {requirement.specifier}"
        return Check(requirement.name, "warn", detail, INSTALL)
    return Check(requirement.name, "ok", version)


def check_detection(declared: Sequence[Requirement]) -> Check:
    """The optional packages that detection needs."""
    checks = [_check_library(r) for r in declared]
    bad = [c for c in checks if c.status != "ok"]
    if bad or not checks:
        if not checks:
            detail = "bnnas itself is not installed, so what detection needs is not known"
        elif all(c.status == "missing" for c in checks):
            detail = "not installed"
        else:
            detail = "; ".join(f"{c.name}: {c.detail}" for c in bad)
        return Check("detection", "warn", f"{detail} (optional)", INSTALL_DETECTION)
    return Check("detection", "ok", ", ".join(f"{c.name} {c.detail}" for c in checks))


def check_mmcv_operators() -> Check:
    """Whether mmcv carries compiled operators; detection works without them, too."""
    spec = importlib.util.find_spec("mmcv")
    if spec is None or not spec.submodule_search_locations:
        detail = "mmcv is not installed (optional)"
        return Check("mmcv operators", "warn", detail, INSTALL_DETECTION)
    if any(any(Path(p).glob("_ext*.so")) for p in spec.submodule_search_locations):
        return Check("mmcv operators", "ok", "compiled")
    detail = "not compiled; those of one-stage detectors come from torchvision and PyTorch"
    return Check("mmcv operators", "ok", detail)
