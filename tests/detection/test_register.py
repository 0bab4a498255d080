"""Whoever imports MMDetection has this package's modules; nobody else pays for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import detection

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "program",
    [
        """
import detection.coco.data
assert not {"torch", "mmengine", "mmdet"} & set(sys.modules)
from mmdet.registry import METRICS, MODELS
""",
        """
from mmengine.config import Config
Config.fromfile("detection/configs/efficientdet_d0_searched.py")
from mmdet.registry import METRICS, MODELS
""",
    ],
    ids=["package first", "config alone"],
)
def test_modules_are_registered_silently_once_mmdetection_is_there(program: str) -> None:
    modules = "print(MODELS.get('BiFPN'), METRICS.get('UnroundedCocoMetric'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\n{modules}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    classes = ("detection.bifpn.BiFPN", "detection.coco_metric.UnroundedCocoMetric")
    assert done.stdout == "{} {}\n".format(*(f"<class '{name}'>" for name in classes))


@pytest.mark.parametrize("missing", ["mmdet", "mmcv"])
def test_a_missing_extra_is_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    detection.register.cache_clear()
    with (
        pytest.raises(
            ValueError, match=rf"{missing} cannot be imported .* pip install 'bnnas\[detection\]'"
        ),
        detection.mmdetection(),
    ):
        pytest.fail("the extra is missing")


class StopError(Exception):
    """Stands for whatever goes wrong."""


def test_prints_and_warnings_of_libraries_do_not_reach_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with detection.mmdetection():
            print("chatter")  # noqa: T201
            warnings.warn("deprecated", stacklevel=1)
        warnings.warn("ours", stacklevel=1)
    assert [str(each.message) for each in caught] == ["ours"]
    assert capsys.readouterr() == ("", "")
    with contextlib.suppress(StopError), detection.mmdetection():
        print("the cause")  # noqa: T201
        raise StopError
    assert capsys.readouterr() == ("", "the cause\n")
    with pytest.raises(StopError), detection.mmdetection():
        raise StopError
