"""A good data set is summed up rightly; each thing that can be wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.coco.annotation_file import CocoError
from detection.coco.check import CocoSummary, check_coco
from tests.detection.coco.coco_files import document, write_coco

Change = Callable[[dict[str, Any]], Any]


def test_a_good_set_is_summed_up(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path, document())
    assert check_coco(file, images, ["cat", "ant"]) == CocoSummary(
        num_images=2,
        num_trainable=2,
        num_objects=2,
        class_names=("cat", "ant"),
        category_ids=(7, 3),
    )


def box(*bbox: float) -> Change:
    return lambda content: content["annotations"][2].update(bbox=list(bbox))


def _no_list(content: dict[str, Any]) -> None:
    del content["annotations"], content["categories"]


def _no_area(content: dict[str, Any]) -> None:
    for entry in content["annotations"][1:]:
        del entry["area"]


def _many_images(content: dict[str, Any]) -> None:
    content["images"] += [
        {"id": number, "file_name": f"{number}.png", "width": 9, "height": 9}
        for number in range(100, 112)
    ]


def _corners(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]


def _fractions(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["bbox"] = [0.5, 0.25, 0.5, 0.75]


NO_AREA, OUTSIDE = r"1 have no area .* ids 3\)", r"1 reach outside .* ids 3\)"
BROKEN: list[tuple[Change, str]] = [
    (_no_list, "no list of annotations or of categories: expected an object with the lists images"),
    (lambda c: c.update(images={}), "no list of images"),
    (lambda c: c.update(images=[]), "list of images in .* is empty"),
    (_no_area, r"2 of the 3 annotations in .* no usable 'area' .*: 1, 2\): expected the object's"),
    (lambda c: c["images"][1].update(width="50"), "1 of the 2 images .* no usable 'width' .*: 1"),
    (lambda c: c["categories"].append("dog"), "1 of the 3 categories .* no usable 'id' .*: 2"),
    (lambda c: c["annotations"][2].update(id=1), r"Several annotations in .* same id \(1\)"),
    (_many_images, r"12 of the 14 images .* \(100.png, 101.png, 102.png, …\)"),
    (lambda c: c["images"][0].update(file_name="inner/c.png"), r"1 of the 2 .* \(inner/c.png\)"),
    (lambda c: c["images"][0].update(file_name="far/a.png"), r"1 of the 2 .* \(far/a.png\)"),
    (lambda c: c["annotations"][1].update(image_id=30), r"'image_id' .* in no list .* ids 2\)"),
    (lambda c: c["annotations"][1].update(category_id=1), r"'category_id' .* no list .* ids 2\)"),
    (lambda c: c["categories"][1].update(name="cat"), r"categories .* same name \(cat\)"),
    (box(10, 10, 20, 0), NO_AREA),
    (box(10, 10, 20), NO_AREA),
    (box(1, 1, 9, float("nan")), NO_AREA),
    (lambda c: c["annotations"][2].update(area=float("nan")), NO_AREA),
    (box(-9, 10, 20, 20), OUTSIDE),
    (box(60, 10, 2, 2), OUTSIDE),
    (_fractions, "Of the 3 boxes in .*, 3 lie within the first pixel .*nor fractions"),
    (
        _corners,
        r"Of the 3 boxes in .*, 1 reach outside their image \(annotation ids 2\): .*corners",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_set_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    content = document()
    change(content)
    file, images = write_coco(tmp_path, content)
    with pytest.raises(CocoError, match=message):
        check_coco(file, images)


def test_another_kind_of_file_or_none_is_refused(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path, document())
    with pytest.raises(CocoError, match=r"no annotation file .*none\.json"):
        check_coco(tmp_path / "none.json", images)
    with pytest.raises(CocoError, match="annotation file .* cannot be read"):
        check_coco(tmp_path, images)
    with pytest.raises(CocoError, match="no image folder .*none"):
        check_coco(file, tmp_path / "none")
    for text, message in (
        (b'{"images": [', "is not JSON"),
        (b"\x89PNG\xff\xfe", "is not JSON"),
        (b"[1, 2]", "not in COCO's format"),
    ):
        file.write_bytes(text)
        with pytest.raises(CocoError, match=message):
            check_coco(file, images)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "ant", "dog"], r"not the 3 expected classes \(it has no dog\)"),
        (["cat", "bee"], r"\(it has no bee; not expected are ant\)"),
        (["ant", "cat"], r"in another order \(cat, ant instead of ant, cat\)"),
    ],
)
def test_categories_must_be_the_classes_in_their_order(
    tmp_path: Path, classes: list[str], message: str
) -> None:
    file, images = write_coco(tmp_path, document())
    with pytest.raises(CocoError, match=message):
        check_coco(file, images, classes)


def test_the_fraction_of_bad_boxes_that_coco_itself_has_is_left_out(tmp_path: Path) -> None:
    content = document()
    good = content["annotations"][2]
    content["annotations"] += [{**good, "id": number} for number in range(4, 10_001)]
    content["annotations"][-1]["bbox"] = [10, 10, 1.03, 0.0]
    file, images = write_coco(tmp_path, content)
    assert check_coco(file, images).num_objects == 10_000 - 2  # the other one is a crowd
    with pytest.raises(CocoError, match="1 have no area"):
        check_coco(file, images, max_bad_boxes=0.99e-4)
    content["annotations"][-2]["bbox"] = [10, 10, 1.03, 0.0]
    file, images = write_coco(tmp_path, content)
    with pytest.raises(CocoError, match="Of the 10000 boxes .* 2 have no area"):
        check_coco(file, images)
