"""Drawn boxes are where the detections are, in their class's colour, and nothing else changes."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image

from detection.coco.drawing import class_colour, draw_detections

NAMES = {3: "ant", 7: "cat"}
BOX = {"bbox": [100, 200, 50, 80], "category_id": 7, "score": 0.75}


def pixels(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def test_a_box_frames_the_pixels_it_covers() -> None:
    image = Image.new("RGB", (512, 512), "grey")
    drawn = pixels(draw_detections(image, [BOX], NAMES))
    changed = (drawn != pixels(image)).any(axis=2)
    colour = class_colour(7)
    for y, x in ((200, 100), (200, 149), (279, 100), (279, 149)):
        assert tuple(drawn[y, x]) == colour
    assert not changed[202:278, 102:148].any()  # inside the frame of two pixels
    assert not changed[280:].any()
    assert not changed[200:, 150:].any()
    assert not changed[:, :100].any()
    label = changed[:200]  # the label stands on the box
    assert label[199, 100:110].all()
    assert not label[:170].any()
    assert (pixels(image) == pixels(Image.new("RGB", (512, 512), "grey"))).all()


def test_the_label_says_class_and_score() -> None:
    image = Image.new("RGB", (512, 512))
    drawn = {
        (name, score): draw_detections(image, [{**BOX, "score": score}], {7: name}).tobytes()
        for name in ("cat", "dog")
        for score in (0.75, 0.76)
    }
    assert len(set(drawn.values())) == 4


def test_only_detections_from_the_threshold_on_are_drawn() -> None:
    image = Image.new("RGB", (512, 512))
    unsure = {**BOX, "bbox": [300, 300, 40, 40], "score": 0.49}
    both = draw_detections(image, [BOX, unsure], NAMES, threshold=0.5)
    assert both.tobytes() == draw_detections(image, [BOX], NAMES).tobytes()
    assert draw_detections(image, [BOX], NAMES, threshold=0.76).tobytes() == image.tobytes()
    assert draw_detections(image, [BOX], NAMES, threshold=0.75).tobytes() != image.tobytes()


def test_the_surest_detection_is_on_top_whatever_the_order() -> None:
    image = Image.new("RGB", (512, 512))
    weaker = {**BOX, "category_id": 3, "score": 0.5}
    one, other = (draw_detections(image, d, NAMES) for d in ([BOX, weaker], [weaker, BOX]))
    assert one.tobytes() == other.tobytes()
    assert tuple(pixels(one)[240, 100]) == class_colour(7)


def test_small_images_of_any_mode_are_enlarged_with_their_boxes() -> None:
    grey = Image.fromarray(np.arange(128 * 200, dtype=np.uint8).reshape(128, 200))
    drawn = draw_detections(grey, [{**BOX, "bbox": [100, 50, 20, 10]}], NAMES)
    assert (drawn.mode, drawn.size) == ("RGB", (800, 512))
    assert tuple(pixels(drawn)[4 * 50, 4 * 100]) == class_colour(7)
    assert tuple(pixels(drawn)[4 * 60 - 1, 4 * 120 - 1]) == class_colour(7)
    untouched = pixels(draw_detections(grey, [], NAMES))
    assert (untouched == pixels(grey).repeat(4, axis=0).repeat(4, axis=1)[:, :, None]).all()


def test_labels_stay_within_the_image() -> None:
    image = Image.new("RGB", (512, 512), "grey")
    for bbox in ([0, 0, 30, 30], [490, 0, 22, 512], [490, 490, 22, 22], [40, 40, 0, 0]):
        drawn = pixels(draw_detections(image, [{**BOX, "bbox": bbox}], NAMES))
        label = (drawn == np.array(class_colour(7))).all(axis=2)
        assert label.sum() > 8 * 30  # a label's background, whole
        assert (drawn != pixels(image)).any(axis=2).sum() > label.sum()  # and text on it


def test_colours_of_neighbouring_classes_differ() -> None:
    colours = [np.array(class_colour(category)) for category in range(1, 12)]
    for one, other in itertools.pairwise(colours):
        assert np.abs(one - other).max() > 80
