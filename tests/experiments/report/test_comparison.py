"""Table 2: what is quoted, what is counted again, what was trained here, and what is kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.benchmarks.count_networks import NETWORKS, count_network
from experiments.report.comparison import comparison_section
from experiments.report.published import published, quoted
from experiments.report.tables import NOTHING, Number
from tests.experiments.made_up_runs import MadeUpRuns, names, row, table, two_seeds, value

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"
IMAGENET = {"data.name": "imagefolder", "space.input.num_classes": "1000", "retrain.epochs": 240}


def on_imagenet(*top1: float) -> MadeUpRuns:
    """A cell a seed, each with a retraining on ImageNet."""
    runs = MadeUpRuns()
    for seed, each in enumerate(top1):
        inputs = {"retrain": runs.retrain(f"r{seed}", seed, **IMAGENET)}
        runs.cell(f"cell{seed}", seed, inputs, top1=each)
        runs.change(-1, "params", data="imagefolder")
    return runs


# --- what others have published ---


def test_a_text_is_a_number_if_it_is_nothing_else() -> None:
    found = quoted("75.73")
    assert isinstance(found, Number)
    assert found.value == 75.73
    for text in ("75.73", "470", "33.460"):
        assert str(quoted(text)) == text
    for text in ("-", "", "None", "3 -1 0 4", "0 1 2", "MobileNetV2(1.4x)", "1 GPU day"):
        assert quoted(text) == text


def test_what_is_quoted_adds_up() -> None:
    totals = {
        ("table_1", "top1"): 75.73 + 75.67 + 74.07 + 74.12,
        ("table_2", "top1"): 1271.87,
        ("table_2", "params"): 113.6,
        ("table_2", "flops"): 11879.0,
        ("table_2", "days"): 5203.3,
        ("table_3", "mAP"): 27.6 + 31.7 + 32.2 + 33.46 + 33.32,
    }
    for (name, field), total in totals.items():
        cells = [quoted(each[field]) for each in published(name)["rows"] if field in each]
        numbers = [cell.value for cell in cells if isinstance(cell, Number)]
        assert sum(numbers) == pytest.approx(total), (name, field)


def test_the_counts_are_those_of_torchvision() -> None:
    rows = {row["network"]: row for row in published("table_2")["rows"] if "counted_flops" in row}
    counts = {name: count_network(model, options) for name, model, options in NETWORKS}
    assert counts == {
        name: (row["counted_flops"], row["counted_params"]) for name, row in rows.items()
    }


def test_a_multiply_add_counts_once() -> None:
    # AlexNet: five convolutions and three linear layers, by hand.
    convolutions = [(3, 64, 11, 55), (64, 192, 5, 27), (192, 384, 3, 13), (384, 256, 3, 13)]
    convolutions.append((256, 256, 3, 13))
    linears = [(9216, 4096), (4096, 4096), (4096, 1000)]
    flops = sum(inp * out * k**2 * side**2 for inp, out, k, side in convolutions)
    flops += sum(inp * out for inp, out in linears)
    params = sum(inp * out * k**2 + out for inp, out, k, _ in convolutions)
    params += sum(inp * out + out for inp, out in linears)
    assert count_network("alexnet", {}) == (flops, params)


def test_counted_networks_stand_beside_what_is_published_of_them() -> None:
    found = table(comparison_section(on_imagenet(0.75).runs), "comparison-published")
    beside = {
        each[0]: [str(each[place]) for place in (2, 3, -2, -1)]
        for each in found.rows
        if each[-1] != NOTHING
    }
    assert beside == {
        "ResNet50": ["25.6", "4100", "25.6", "4089.2"],
        "MobileNetV2(1.4x)": ["6.9", "585", "6.1", "582.2"],
        "ShuffleNetV2(2x)": ["7.4", "591", "7.4", "583.3"],
        "EfficientNet-B0(+SE)": ["5.3", "390", "5.3", "385.8"],
    }
    last = row(found, -1)
    assert last["network"] == "here: bn/bn/10"
    assert [str(last[name]) for name in ("top-1 (%)", "params (M)", "FLOPs (M)")] == [
        *("75.00", "0.0", "0.3")
    ]


def test_a_released_architecture_that_was_retrained_is_computed_beside_what_is_published() -> None:
    runs = MadeUpRuns()
    for number, released in enumerate(published("released")["rows"]):
        runs.retrain(f"r{number}", 0, **{**IMAGENET, "arch": released["arch"]})
    found = table(comparison_section(runs.runs), "comparison-released")
    shown = [[str(cell) for cell in each[2:]] for each in found.rows]
    assert shown == [["471.8", "473.5", "5.2", "5.2"], ["467.1", "468.8", "5.8", "5.8"]]
    config = CONFIGS / "detect_coco_searched.yaml"
    assert yaml.safe_load(config.read_text(encoding="utf-8"))["arch"] == found.rows[0][0]


# --- what was trained here ---


def test_networks_on_imagenet_come_first_with_their_seeds_as_one() -> None:
    runs = on_imagenet(0.75, 0.76)
    runs.retrain("backbone", 0, **IMAGENET)
    runs.retrain("digits", 0)
    section = comparison_section(runs.runs)
    assert names(section) == ["comparison-own", "comparison-published"]
    own = section.tables[0]
    assert [each[:3] for each in own.rows] == [
        ("bn/bn/10", "micro", "2"),
        ("given: backbone", NOTHING, "1"),
    ]
    accuracies = [value(cell) for cell in own.column("test top-1 (%)")]
    assert accuracies == pytest.approx([0.755, 0.9])
    assert not section.missing


def test_a_random_baseline_or_a_study_on_imagenet_is_no_network_that_was_given() -> None:
    runs = MadeUpRuns()
    runs.add("study", "correlate")
    runs.retrain("drawn", 0, **IMAGENET)
    runs.change(-1, "tags", **{"mlflow.parentRunId": "study"})
    assert "comparison-own" not in names(comparison_section(runs.runs))


def test_what_is_published_stands_only_beside_what_was_measured_on_imagenet() -> None:
    runs = MadeUpRuns()
    assert not comparison_section(runs.runs).blocks
    other = {"data.name": "imagefolder", "data.root": "/data/flowers"}
    runs.cell("cell", 0, {"retrain": runs.retrain("r", 0, **other)})
    runs.change(-1, "params", data="imagefolder")
    section = comparison_section(runs.runs)
    assert names(section) == ["comparison-elsewhere"]
    assert section.tables[0].column("data") == ["imagefolder flowers"]
    assert "imagenet_spos.yaml --set data.root=" in section.missing


def test_elsewhere_a_sweep_shows_its_winner_and_a_cell_stands_for_itself() -> None:
    runs = two_seeds()
    runs.change(0, "metrics", random_baseline=0.88, random_baseline_std=0.01)
    runs.cell("alone", 0, {})  # in the sweep's space, on its images: the sweep counts
    runs.cell("nano", 0, {})
    runs.change(-1, "params", space="nano")
    found = table(comparison_section(runs.runs), "comparison-elsewhere")
    assert [each[:4] for each in found.rows] == [
        ("digits", "micro", "sweep sweep", "cell1"),
        ("digits", "nano", "run alone", "nano"),
    ]
    shown = {
        "search-validation top-1 (%)": "80.00",
        "test top-1 (%)": "92.00",
        "test images": "359",
        # A winner is the best of its setting's seeds, which beats a mean over seeds by chance.
        "its setting over seeds (%)": "91.00 ± 1.41",
        "best random (%)": "88.00 ± 1.00",
    }
    assert {name: str(row(found)[name]) for name in shown} == shown
    assert "not to be compared" in found.title


def test_a_sweep_without_a_winner_gives_way_to_an_older_one() -> None:
    runs = two_seeds()
    runs.add("later", "sweep", {"space": "micro", "data": "digits"}, status="RUNNING")
    runs.cell("unfinished", 0, {}, parent="later")
    found = table(comparison_section(runs.runs), "comparison-elsewhere")
    assert found.column("cell") == ["cell1"]
