"""Table 2: what is quoted, what is counted again, what was trained here, and what is kept apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from experiments.benchmarks.count_networks import NETWORKS, RESOLUTION, count_network
from experiments.report.evidence.comparison import comparison_section
from experiments.report.evidence.published import counted, published, quoted
from experiments.report.evidence.units import plain
from experiments.report.evidence.values import (
    NOTHING,
    Derived,
    Number,
    Published,
    Section,
    Table,
    Tracked,
)
from experiments.report.page import cell_text
from tests.experiments.made_up_runs import (
    Runs,
    check_found_again,
    column,
    number_of,
    numbers,
    table,
    two_seeds,
)

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
IMAGENET = {"data.name": "imagefolder", "space.input.num_classes": "1000", "retrain.epochs": 240}


def imagenet_cell(runs: Runs, run_id: str, seed: int, top1: float) -> None:
    runs.cell(run_id, seed, {"retrain": runs.retrain(f"r-{run_id}", seed, **IMAGENET)}, top1=top1)
    runs.change(-1, "params", data="imagefolder")


def names(section: Section) -> list[str]:
    return [each.name for each in section.tables]


# --- what others say ---


def test_a_text_is_a_number_if_it_is_nothing_else() -> None:
    for text, value in (("75.73", 75.73), ("470", 470.0)):
        assert quoted(text, "somewhere") == Number(value, text, Published("somewhere"))
    for text in ("-", "", "None", "3 -1 0 4", "0 1 2", "MobileNetV2(1.4x)"):
        assert quoted(text, "somewhere") == text


def test_what_is_printed_with_a_unit_keeps_it() -> None:
    # A number alone would say that 1 day is longer than 0.14 s by a factor of seven.
    assert [row[0] for row in published("table_1").cells(["search"])] == [
        *("1 GPU day", "0.14s on CPU", "1 GPU day", "0.14s on CPU")
    ]


@pytest.mark.parametrize(
    ("name", "field", "total"),
    [
        ("table_1", "top1", 75.73 + 75.67 + 74.07 + 74.12),
        ("table_2", "top1", 1271.87),
        ("table_2", "params", 113.6),
        ("table_2", "flops", 11879.0),
        ("table_2", "days", 5203.3),
        ("table_3", "mAP", 27.6 + 31.7 + 32.2 + 33.46 + 33.32),
    ],
)
def test_what_is_quoted_adds_up(name: str, field: str, total: float) -> None:
    cells = [row[0] for row in published(name).cells([field])]
    assert sum(cell.value for cell in cells if isinstance(cell, Number)) == pytest.approx(total)


def test_the_counts_are_those_of_torchvision() -> None:
    for network, model, options in NETWORKS:
        cost = count_network(model, options)
        for name, value in cost._asdict().items():
            number = counted(network, name, plain)
            assert number is not None
            assert number.value == value
            assert isinstance(number.source, Derived)
            assert f"{model} at {RESOLUTION}×{RESOLUTION}" in number.source.rule


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
    found = table(comparison_section(Runs().evidence), "comparison-published")
    beside = {
        row[0]: [number_of(row[found.columns.index(name)]).text for name in found.columns[2:4]]
        + [number_of(row[found.columns.index(name)]).text for name in found.columns[-2:]]
        for row in found.rows
        if row[-1] != NOTHING
    }
    assert beside == {
        "ResNet50": ["25.6", "4100", "25.6", "4089.2"],
        "MobileNetV2(1.4x)": ["6.9", "585", "6.1", "582.2"],
        "ShuffleNetV2(2x)": ["7.4", "591", "7.4", "583.3"],
        "EfficientNet-B0(+SE)": ["5.3", "390", "5.3", "385.8"],
    }


def test_the_released_architectures_are_computed_beside_what_is_said_of_them() -> None:
    found = table(comparison_section(Runs().evidence), "comparison-released")
    shown = [[number_of(cell).text for cell in row[2:]] for row in found.rows]
    assert shown == [["471.8", "473.5", "5.2", "5.2"], ["467.1", "468.8", "5.8", "5.8"]]
    assert {type(number_of(row[2]).source) for row in found.rows} == {Derived}
    config = CONFIGS / "detect_coco_searched.yaml"
    assert yaml.safe_load(config.read_text(encoding="utf-8"))["arch"] == found.rows[0][0]


# --- what was trained here ---


def test_networks_on_imagenet_come_first_with_their_seeds_as_one() -> None:
    runs = Runs()
    for seed, top1 in ((0, 0.75), (1, 0.76)):
        imagenet_cell(runs, f"cell{seed}", seed, top1)
    runs.retrain("backbone", 0, **IMAGENET)
    runs.retrain("digits", 0)
    section = comparison_section(runs.evidence)
    assert names(section)[0] == "comparison-own"
    own = section.tables[0]
    assert [row[:3] for row in own.rows] == [
        ("bn/bn/10", "micro", "2"),
        ("given: backbone", NOTHING, "1"),
    ]
    accuracies = [number_of(cell).value for cell in column(own, "test top-1 (%)")]
    assert accuracies == pytest.approx([0.755, 0.9])
    assert "comparison-elsewhere" not in names(section)
    assert not any("ImageNet" in sentence for sentence in section.missing)
    assert check_found_again(section, runs.evidence) >= 8


def test_a_random_baseline_or_a_study_on_imagenet_is_no_network_that_was_given() -> None:
    runs = Runs()
    runs.add("study", "correlate")
    runs.retrain("drawn", 0, **IMAGENET)
    runs.change(-1, "tags", **{"mlflow.parentRunId": "study"})
    assert "comparison-own" not in names(comparison_section(runs.evidence))


def test_a_folder_of_other_images_is_not_imagenet() -> None:
    runs = Runs()
    other = {"data.name": "imagefolder", "data.root": "/data/flowers"}
    runs.cell("cell", 0, {"retrain": runs.retrain("r", 0, **other)})
    runs.change(-1, "params", data="imagefolder")
    section = comparison_section(runs.evidence)
    found = table(section, "comparison-elsewhere")
    assert column(found, "data") == ["imagefolder flowers"]
    assert any("imagenet_spos.yaml --set data.root=" in sentence for sentence in section.missing)


def test_elsewhere_a_sweep_shows_its_winner_and_a_cell_stands_for_itself() -> None:
    runs = two_seeds(Runs())
    runs.change(0, "metrics", random_baseline=0.88, random_baseline_std=0.01)
    runs.cell("alone", 0, {})  # in the sweep's space, on its images: the sweep counts
    runs.cell("nano", 0, {})
    runs.change(-1, "params", space="nano")
    section = comparison_section(runs.evidence)
    found = table(section, "comparison-elsewhere")
    assert [row[:4] for row in found.rows] == [
        ("digits", "micro", "sweep sweep", "cell1"),
        ("digits", "nano", "run alone", "nano"),
    ]
    by_column = {
        "search-validation top-1 (%)": ("80.00", ("retrain1",)),
        "test top-1 (%)": ("92.00", ("cell1",)),
        "test images": ("359", ("retrain1",)),
        "best random (%)": ("88.00", ("sweep",)),
    }
    for name, (text, run_ids) in by_column.items():
        number = number_of(column(found, name)[0])
        assert isinstance(number.source, Tracked)
        assert (number.text, number.source.run_ids) == (text, run_ids)
    # A winner is the best of its setting's seeds, which beats a mean over seeds by chance alone.
    shown = [column(found, name)[0] for name in ("its setting over seeds (%)", "best random (%)")]
    assert [cell_text(cell) for cell in shown] == ["91.00 ± 1.41", "88.00 ± 1.00"]
    assert "not to be compared" in found.title
    check_found_again(section, runs.evidence)


def test_a_sweep_without_a_winner_gives_way_to_an_older_one() -> None:
    runs = two_seeds(Runs())
    runs.add("later", "sweep", {"space": "micro", "data": "digits"}, status="RUNNING")
    runs.cell("unfinished", 0, {}, parent="later")
    found = table(comparison_section(runs.evidence), "comparison-elsewhere")
    assert column(found, "cell") == ["cell1"]


def test_an_empty_experiment_shows_what_is_published_and_names_the_commands() -> None:
    section = comparison_section(Runs().evidence)
    assert names(section) == ["comparison-released", "comparison-published"]
    assert len(section.missing) == 2
    assert all(re.search(r"`bnnas \w+ experiments/", sentence) for sentence in section.missing)
    assert not any(isinstance(number.source, Tracked) for number in numbers(section))


def test_own_and_published_numbers_share_no_table() -> None:
    runs = two_seeds(Runs())
    imagenet_cell(runs, "cell", 0, 0.75)

    def kinds(found: Table) -> set[type]:
        return {type(number_of(c).source) for row in found.rows for c in row if type(c) is not str}

    for found in comparison_section(runs.evidence).tables:
        assert not {Tracked, Published} <= kinds(found)
