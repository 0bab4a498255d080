"""A good data set is summed up rightly; each thing that can be wrong is told by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.coco.check import CocoError, CocoSummary, check_coco
from tests.detection.coco.coco_files import document, write_coco

Change = Callable[[dict[str, Any]], Any]


def test_a_good_set_is_summed_up(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path, document())
    assert check_coco(file, images, ["cat", "ant"]) == CocoSummary(
        num_images=2,
        num_trainable=2,
        num_boxes=3,
        num_crowds=1,
        num_bad_boxes=0,
        class_names=("cat", "ant"),
        category_ids=(7, 3),
        boxes_per_class={"cat": 2, "ant": 1},
        num_small=1,
        num_medium=1,
        num_large=1,
    )


def _no_list(content: dict[str, Any]) -> None:
    del content["annotations"], content["categories"]


def _no_area(content: dict[str, Any]) -> None:
    for entry in content["annotations"][1:]:
        del entry["area"]


def _corners(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]


def _fractions(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["bbox"] = [0.5, 0.25, 0.5, 0.75]


BROKEN: list[tuple[Change, str]] = [
    (_no_list, "no list of annotations or of categories: expected an object with the lists images"),
    (lambda c: c.update(images={}), "no list of images"),
    (lambda c: c.update(images=[]), "list of images in .* is empty"),
    (lambda c: c.update(annotations=[]), "list of annotations in .* is empty"),
    (_no_area, "2 of the 3 annotations in .* no usable 'area' .*: 1, 2\\): expected the object's"),
    (lambda c: c["images"][1].update(width="50"), "1 of the 2 images .* no usable 'width' .*: 1"),
    (lambda c: c["categories"].append("dog"), "1 of the 3 categories .* no usable 'id' .*: 2"),
    (lambda c: c["annotations"][2].update(id=1), "Several annotations in .* same id \\(1\\)"),
    (lambda c: c["images"][0].update(file_name="inner/c.png"), "1 of the 2 .* \\(inner/c.png\\)"),
    (
        lambda c: c["images"][0].update(file_name="far/a.png"),
        "1 of the 2 images .* \\(far/a.png\\)",
    ),
    (lambda c: c["annotations"][1].update(image_id=30), "'image_id' .* in no list .* ids 2\\)"),
    (
        lambda c: c["annotations"][1].update(category_id=1),
        "'category_id' .* in no list .* ids 2\\)",
    ),
    (lambda c: c["categories"][1].update(name="cat"), "categories .* same name \\(cat\\)"),
    (lambda c: c["annotations"][2].update(bbox=[10, 10, 20, 0]), "1 have no area .* ids 3\\)"),
    (lambda c: c["annotations"][2].update(bbox=[10, 10, 20]), "1 have no area .* ids 3\\)"),
    (lambda c: c["annotations"][2].update(bbox=[1, 1, 9, float("nan")]), "1 have no area .* 3\\)"),
    (lambda c: c["annotations"][2].update(area=float("nan")), "1 have no area .* ids 3\\)"),
    (lambda c: c["annotations"][2].update(bbox=[-9, 10, 20, 20]), "1 reach outside .* ids 3\\)"),
    (lambda c: c["annotations"][2].update(bbox=[60, 10, 2, 2]), "1 reach outside .* ids 3\\)"),
    (_fractions, "Of the 3 boxes in .*, 3 lie within the first pixel .*nor fractions"),
    (
        _corners,
        "Of the 3 boxes in .*, 1 reach outside their image \\(annotation ids 2\\): .*corners",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_what_is_wrong_is_said(tmp_path: Path, change: Change, message: str) -> None:
    content = document()
    change(content)
    file, images = write_coco(tmp_path, content)
    with pytest.raises(CocoError, match=message):
        check_coco(file, images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "is not JSON"),
        ("\x00\x01", "is not JSON"),
        ("[1, 2]", "not in COCO's format"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file, images = write_coco(tmp_path, text)
    with pytest.raises(CocoError, match=message):
        check_coco(file, images)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path, "")
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(CocoError, match="is not JSON"):
        check_coco(file, images)


def test_a_missing_file_and_a_missing_folder_are_told_apart(tmp_path: Path) -> None:
    file, images = write_coco(tmp_path, document())
    with pytest.raises(CocoError, match="no annotation file .*none.json"):
        check_coco(tmp_path / "none.json", images)
    with pytest.raises(CocoError, match="annotation file .* cannot be read"):
        check_coco(tmp_path, images)
    with pytest.raises(CocoError, match="no image folder .*none"):
        check_coco(file, tmp_path / "none")


def test_many_missing_images_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    content = document()
    content["images"] += [
        {"id": number, "file_name": f"{number}.png", "width": 9, "height": 9}
        for number in range(100, 112)
    ]
    file, images = write_coco(tmp_path, content)
    with pytest.raises(
        CocoError, match="12 of the 14 images .* \\(100.png, 101.png, 102.png, …\\)"
    ):
        check_coco(file, images)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "ant", "dog"], "not the 3 expected classes \\(it has no dog\\)"),
        (["cat"], "not the 1 expected classes \\(not expected are ant\\)"),
        (["cat", "bee"], "\\(it has no bee; not expected are ant\\)"),
        (["ant", "cat"], "in another order \\(cat, ant instead of ant, cat\\)"),
    ],
)
def test_categories_must_be_the_classes_in_their_order(
    tmp_path: Path, classes: list[str], message: str
) -> None:
    file, images = write_coco(tmp_path, document())
    with pytest.raises(CocoError, match=message):
        check_coco(file, images, classes)


def test_a_few_bad_boxes_among_many_are_counted_and_left_out(tmp_path: Path) -> None:
    content = document()
    flat = {**content["annotations"][2], "id": 4, "bbox": [10, 10, 5, 0]}
    content["annotations"].append(flat)
    file, images = write_coco(tmp_path, content)
    summary = check_coco(file, images, max_bad_boxes=0.25)
    assert (summary.num_boxes, summary.num_bad_boxes) == (3, 1)
    assert summary.boxes_per_class == {"cat": 2, "ant": 1}
    with pytest.raises(CocoError, match="1 have no area"):
        check_coco(file, images, max_bad_boxes=0.24)


def test_the_fraction_that_coco_itself_has_is_allowed(tmp_path: Path) -> None:
    content = document()
    good = content["annotations"][2]
    content["annotations"] += [{**good, "id": number} for number in range(4, 10_001)]
    content["annotations"][-1]["bbox"] = [10, 10, 1.03, 0.0]
    file, images = write_coco(tmp_path, content)
    assert check_coco(file, images).num_bad_boxes == 1
    content["annotations"][-2]["bbox"] = [10, 10, 1.03, 0.0]
    file, images = write_coco(tmp_path, content)
    with pytest.raises(CocoError, match="Of the 10000 boxes .* 2 have no area"):
        check_coco(file, images)
