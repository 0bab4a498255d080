"""MMDetection's names where it looks for them, and one small training for all tests.

Nothing here imports torch or MMDetection for tests of `detection.coco`, which do without.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import detection

if TYPE_CHECKING:
    from tests.detection.runs import Trained


@pytest.fixture(autouse=True)
def _mmdetection(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent.name == "coco":
        yield
        return
    from mmengine.registry import DefaultScope

    detection.register()
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.detection.runs import small_scenes

    return small_scenes(tmp_path_factory.mktemp("scenes") / "64")


@pytest.fixture(scope="session")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three epochs that nothing interrupted; nobody changes them."""
    from tests.detection.runs import Trained

    return Trained.on(scenes, tmp_path_factory.mktemp("trained"))
