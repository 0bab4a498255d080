"""The generated set depends on its seed alone, is rightly annotated, and whole or absent."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.coco.annotation_file import CocoError
from detection.coco.check import check_coco
from detection.coco.digit_scenes import make_digit_scenes
from detection.coco.scene import INK, Digit, Scene, covered, draw_scene
from nas.data.digits import read_digits

SPLITS = ("train2017", "val2017")


def make(root: Path, **changes: int) -> Path:
    parameters = {"num_train": 6, "num_val": 3, "image_size": 96, "seed": 5, **changes}
    return make_digit_scenes(root, **parameters)


def content(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def read_split(root: Path, split: str) -> dict[str, Any]:
    text = (root / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def scenes(stream: int, num_scenes: int, seed: int = 5, side_px: int = 96) -> list[Scene]:
    """What the scenes of a split are said to be: functions of (seed, number) and its scans."""
    digits = read_digits()
    scans_NCHW, labels_N = (
        (digits.test_NCHW, digits.test_labels_N)
        if stream
        else (digits.train_NCHW, digits.train_labels_N)
    )
    scans_N88 = scans_NCHW[:, 0].astype(np.float32)
    return [
        draw_scene(scans_N88, labels_N, side_px, np.random.default_rng((stream, seed, number)))
        for number in range(num_scenes)
    ]


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    first, again = (content(make(tmp_path / name)) for name in ("first", "again"))
    assert first == again
    other = content(make(tmp_path / "other", seed=6))
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first)


def test_files_hold_the_scenes_and_their_boxes(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    for stream, split in enumerate(SPLITS):
        document = read_split(root, split)
        summary = check_coco(root / "annotations" / f"instances_{split}.json", root / split)
        assert summary.num_images == (6, 3)[stream]
        assert summary.num_objects == len(document["annotations"])
        assert summary.class_names == tuple("0123456789")
        name_of = {category["id"]: category["name"] for category in document["categories"]}
        assert name_of == {number + 1: str(number) for number in range(10)}
        expected = scenes(stream, len(document["images"]))
        for image, scene in zip(document["images"], expected, strict=True):
            with Image.open(root / split / image["file_name"]) as file:
                np.testing.assert_array_equal(np.asarray(file), scene.pixels())
            assert [
                (name_of[entry["category_id"]], tuple(entry["bbox"]), entry["area"])
                for entry in document["annotations"]
                if entry["image_id"] == image["id"]
            ] == [
                (str(digit.label), digit.box, digit.box[2] * digit.box[3]) for digit in scene.digits
            ]


def seen_box(digit: Digit, side_px: int) -> tuple[int, int, int, int]:
    """The box around what a digit leaves of the difference between a black and a white ground."""
    grounds = (np.full((side_px, side_px), grey, dtype=np.float32) for grey in (0, 1))
    black_HW, white_HW = (Scene(ground, (digit,)).pixels() / 255.0 for ground in grounds)
    ink_HW = 1 - (white_HW - black_HW)
    rows, columns = (np.flatnonzero((ink_HW > INK - 0.01).any(axis=axis)) for axis in (1, 0))
    y, x = int(rows[0]), int(columns[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


@pytest.mark.parametrize("side_px", [32, 128])
def test_boxes_are_tight_around_ink_that_is_wholly_in_the_image(side_px: int) -> None:
    digits = [digit for scene in scenes(0, 60, side_px=side_px) for digit in scene.digits]
    assert {digit.label for digit in digits} == set(range(10))
    for digit in digits:
        assert seen_box(digit, side_px) == digit.box


def test_digits_vary_stand_out_from_their_background_and_hide_each_other_little() -> None:
    drawn = scenes(0, 100, side_px=128)
    assert {len(scene.digits) for scene in drawn} == set(range(1, 7))
    for scene in drawn:
        for digit in scene.digits:
            assert digit.grey - scene.background_HW.max() >= 0.25
            assert digit.ink_HW.max() == 1.0
    longest = [max(digit.box[2:]) for scene in drawn for digit in scene.digits]
    assert min(longest) in range(14, 20)
    assert max(longest) in range(80, 97)
    shares = [
        covered(one.box, other.box)
        for scene in drawn
        for one, other in itertools.combinations(scene.digits, 2)
    ]
    assert 0 < max(shares) <= 0.2
    assert covered((0, 0, 10, 10), (5, 5, 10, 10)) == 0.25
    assert covered((0, 0, 10, 10), (8, 0, 4, 5)) == 0.5
    assert covered((0, 0, 10, 10), (10, 0, 10, 10)) == 0.0


def test_a_set_that_is_there_is_used_again_or_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    mark = root / "train2017" / "mark"
    mark.touch()
    assert make(root) == root
    assert mark.exists()
    with pytest.raises(CocoError, match="made with .*seed=5, not with .*seed=6"):
        make(root, seed=6)
    assert mark.exists()


def test_other_content_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    before = content(tmp_path)
    with pytest.raises(CocoError, match="holds something else than digit scenes"):
        make(tmp_path)
    with pytest.raises(CocoError, match="holds something else than digit scenes"):
        make(tmp_path / "mine.txt")
    with pytest.raises(CocoError, match="cannot be written to .*Not a directory"):
        make(tmp_path / "mine.txt" / "set")
    assert content(tmp_path) == before


def test_an_empty_folder_is_filled_and_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = os.umask(0o027)
    try:
        root = make(tmp_path / "empty")
    finally:
        os.umask(before)
    assert content(root) == content(make(tmp_path / "set"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "train2017")] == [0o750] * 2


def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    draw_pixels = Scene.pixels

    def interrupted(scene: Scene) -> Any:
        if next(calls) == 7:  # in the validation split
            raise KeyboardInterrupt
        assert not (tmp_path / "set").exists()
        return draw_pixels(scene)

    with monkeypatch.context() as patch:
        patch.setattr(Scene, "pixels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    assert len(content(make(tmp_path / "set"))) == 12


def test_several_makers_of_one_set_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make(tmp_path / "set"), range(4)))
    assert made == [tmp_path / "set"] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert content(tmp_path / "set") == content(make(tmp_path / "alone"))


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    for name, value in (("num_train", 0), ("num_val", -1), ("image_size", 31), ("seed", -1)):
        message = f"{name} of the digit scenes is {value}: give at least"
        with pytest.raises(CocoError, match=message):
            make(tmp_path / "set", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_making_and_checking_needs_neither_torch_nor_mmdetection(tmp_path: Path) -> None:
    program = f"""
import sys
from detection.coco.check import check_coco
from detection.coco.digit_scenes import make_digit_scenes
from detection.coco.drawing import draw_detections
root = make_digit_scenes({str(tmp_path / "set")!r}, num_train=1, num_val=1)
file = root / "annotations" / "instances_val2017.json"
check_coco(file, root / "val2017")
heavy = {{"torch", "torchvision", "mmdet", "mmcv", "mmengine", "pycocotools", "ray", "mlflow"}}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(content(tmp_path / "set")) == 5
