"""The images get the versions that were tested, and what they copy exists."""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.deploy_files import ROOT, instructions, locked, project

_IMAGES = ["Dockerfile", "mlflow/Dockerfile"]


def _installs(dockerfile: str) -> list[list[str]]:
    """The words of every `pip install`."""
    runs = [shlex.split(rest) for word, rest in instructions(dockerfile) if word == "RUN"]
    return [words for words in runs if words[:2] == ["pip", "install"]]


def _requirements(install: list[str]) -> list[str]:
    """What is asked for, with the project itself replaced by what it requires."""
    asked = [word for word in install[2:] if not word.startswith("--")]
    asked.remove("requirements.lock")  # the argument of --constraint
    if asked == [".[detection]"]:
        table = project()["project"]
        asked = [*table["dependencies"], *table["optional-dependencies"]["detection"]]
    return asked


def _unpinned(requirements: list[str], pins: dict[str, str]) -> set[str]:
    """Of all that pip would install for this machine, what the pins leave open or contradict.

    What each version requires is read from the installed distributions, which are those of the
    lock; an extra counts with the distribution that it is asked of.
    """
    wrong, seen = set(), set()
    left = [(Requirement(text), "") for text in requirements]
    while left:
        requirement, extra = left.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        pin = pins.get(name)
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            wrong.add(str(requirement))
        for asked in ["", *requirement.extras]:
            if (name, asked) in seen:
                continue
            seen.add((name, asked))
            try:
                requires = distribution(name).requires or []
            except PackageNotFoundError:
                continue  # of another environment than this one
            left += [(Requirement(text), asked) for text in requires]
    return wrong


@pytest.mark.parametrize("dockerfile", _IMAGES)
def test_pip_can_install_no_version_but_the_locked_one(dockerfile: str) -> None:
    (install,) = _installs(dockerfile)
    assert install[install.index("--constraint") + 1] == "requirements.lock"
    requirements = _requirements(install)
    assert _unpinned(requirements, locked()) == set()
    # And the look is a real one: one pin less, and it finds what is open.
    pins = {name: pin for name, pin in locked().items() if name != "sqlalchemy"}
    assert any(text.lower().startswith("sqlalchemy") for text in _unpinned(requirements, pins))


@pytest.mark.parametrize("dockerfile", _IMAGES)
def test_what_is_copied_exists(dockerfile: str) -> None:
    copies = [shlex.split(rest) for word, rest in instructions(dockerfile) if word == "COPY"]
    sources = [source for words in copies for source in words[:-1] if not source.startswith("--")]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_all_that_the_project_is_built_from_is_copied() -> None:
    table = project()
    needed = {
        "pyproject.toml",
        "requirements.lock",
        table["project"]["readme"],
        *table["project"]["license-files"],
        *table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }
    copies = [shlex.split(rest) for word, rest in instructions("Dockerfile") if word == "COPY"]
    assert needed <= {source.rstrip("/") for words in copies for source in words[:-1]}


def test_the_image_has_the_ray_and_the_python_that_were_tested() -> None:
    (base,) = [rest for word, rest in instructions("Dockerfile") if word == "FROM"]
    python = project()["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert base == f"rayproject/ray:{locked()['ray']}-py{python}-gpu"


def test_the_wheel_holds_nothing_of_deploy() -> None:
    packages = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert not [name for name in packages if "deploy" in name]
