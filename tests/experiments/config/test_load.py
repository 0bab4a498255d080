"""Configs: what is wrong is one sentence that names the field; what is right is read as meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from experiments.config.experiment import CellConfig
from experiments.config.load import dump_config, load_experiment
from experiments.config.section import ConfigError, Section, added
from experiments.config.training import SupernetConfig
from nas.data import DATASETS
from nas.indicators import INDICATORS
from nas.sampling import SAMPLERS
from nas.search import SEARCHERS
from nas.trainable import TRAINABLES
from tests.experiments.configs import changed, complaint, small, write_yaml

STUDY = {"correlate": {"num_architectures": 5}, "seeds": [3, 1]}


def load(folder: Path, values: Any, *overrides: str) -> CellConfig:
    (cell,) = load_experiment(write_yaml(folder / "config.yaml", values), overrides).cells
    return cell


# --- what a file is ---


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    cell = write_yaml(tmp_path / "cell.yaml", small())
    study = write_yaml(tmp_path / "study.yaml", {**small(), **STUDY})
    sweep = write_yaml(tmp_path / "sweep.yaml", {**small(), "grid": {"epochs": [2, 3]}})
    assert [load_experiment(path).kind for path in (cell, study, sweep)] == [
        "run",
        "correlate",
        "sweep",
    ]
    assert [config.seed for config in load_experiment(study).cells] == [3, 1]
    # Any cell can be asked about, by name; nothing else changes by the name of a command.
    asked = load_experiment(cell, as_study=True)
    assert (asked.kind, asked.cells) == ("correlate", load_experiment(cell).cells)
    with pytest.raises(ConfigError, match="has a grid, and a correlation study asks about one"):
        load_experiment(sweep, as_study=True)
    assert "has seeds" in complaint(tmp_path, {**small(), "seeds": [0, 1]})


def test_a_dumped_cell_is_the_cell(tmp_path: Path) -> None:
    detect = {"data": {"name": "digit_scenes"}}
    for values in (small(), changed(small("micro_detection"), detect=detect)):
        config = load(tmp_path, values)
        dumped = tmp_path / "dumped.yaml"
        dumped.write_text(dump_config(config), encoding="utf-8")
        again = load_experiment(dumped)
        assert (again.kind, again.cells) == ("run", (config,))


def test_a_space_beside_the_config_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").touch()
    monkeypatch.chdir("/")
    assert load(tmp_path, small("own.yaml")).space == str(tmp_path / "own.yaml")
    assert load(tmp_path, small("micro")).space == "micro"


# --- extends ---


def test_a_config_may_be_the_difference_from_another(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    values = changed(small("own.yaml"), supernet__clip_norm=1.0, seed=5)
    write_yaml(tmp_path / "bases" / "base.yaml", values)
    (tmp_path / "bases" / "own.yaml").touch()
    middle = {"extends": "bases/base.yaml", "name": "middle", "supernet": {"epochs": 9}}
    write_yaml(tmp_path / "middle.yaml", middle)
    last = {"extends": "middle.yaml", "seed": None, "supernet": {"clip_norm": None}}
    found = load(tmp_path, last, "retrain.epochs=7")
    expected = changed(values, name="middle", supernet__epochs=9, retrain__epochs=7)
    del expected["seed"], expected["supernet"]["clip_norm"]
    expected["space"] = str(tmp_path / "bases" / "own.yaml")  # beside the file that names it
    assert found == load(tmp_path, expected)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"extends": "absent.yaml"}, r"absent.yaml.*, which .*config.yaml extends"),
        ({"extends": "config.yaml"}, "extends itself"),
        ({"extends": ["a"]}, "extends is .*expected the path of another config file"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, values: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, values)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("data__name", DATASETS),
        ("supernet__sampler", SAMPLERS),
        ("search__indicator", INDICATORS),
        ("search__searcher", SEARCHERS),
    ],
)
def test_an_unknown_name_lists_the_known_ones(
    tmp_path: Path, key: str, known: dict[str, object]
) -> None:
    message = complaint(tmp_path, changed(small(), **{key: "nonsense"}))
    assert f"{key.replace('__', '.')} is 'nonsense'" in message
    assert message.endswith(f"the known ones are {', '.join(known)}.")


def test_every_searcher_goes_with_the_indicators_that_it_can_search(tmp_path: Path) -> None:
    for indicator in INDICATORS.values():
        for searcher in SEARCHERS.values():
            values = changed(
                small(), search__indicator=indicator.name, search__searcher=searcher.name
            )
            if searcher.additive_only and not indicator.additive:
                message = complaint(tmp_path, values)
                assert searcher.name in message
                assert indicator.name in message
            else:
                assert load(tmp_path, values).search.indicator == indicator.name


def test_trainables_are_those_of_the_method() -> None:
    assert get_args(SupernetConfig.model_fields["trainable"].annotation) == tuple(TRAINABLES)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown section": ({"supernt": {}}, ("supernt", "did you mean 'supernet'?")),
    "no near key": ({"search__zzz": 3}, ("search.zzz", "the known keys are indicator, searcher")),
    "word for number": ({"supernet__epochs": "many"}, ("supernet.epochs", "'many'", "integer")),
    "infinite": ({"supernet__lr": float("inf")}, ("supernet.lr", "inf", "finite")),
    "no suffix": ({"search__max_flops": "475X"}, ("search.max_flops", "'475X'")),
    "a path for a name": ({"name": "../up"}, ("name", "'../up'", "no slashes")),
    "min above max": (
        {"search__min_flops": "2M", "search__max_flops": "1M"},
        ("search", "min_flops (2e+06)", "max_flops (1e+06)"),
    ),
    "more children than places": (
        {"search__evolution": {"population": 8}},
        ("search.evolution", "num_mutations (25)", "num_crossovers (25)", "population (8)"),
    ),
    "warm-up for ever": (
        {"supernet__warmup_epochs": 3},
        ("supernet", "warmup_epochs is 3", "less than epochs (3)"),
    ),
    "an indicator twice": ({"correlate": {"indicators": ["bn", "bn"]}}, ("each once",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    changes, says = WRONG[case]
    message = complaint(tmp_path, changed(small(), **changes))
    for words in says:
        assert words in message


def test_all_that_is_wrong_comes_in_one_message(tmp_path: Path) -> None:
    values = changed(small(), supernet__epochs=0, seed="x")
    del values["data"]
    message = complaint(tmp_path, values)
    for words in ("data is missing", "supernet.epochs is 0", "seed is 'x'"):
        assert words in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: \xff\xfe", "not valid YAML"),
        (b"- micro\n", "expected a mapping of keys such as space and data, got list"),
        (None, r"there is no config file .*bad\.yaml"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- --set ---


def test_overrides_are_yaml_values_at_any_depth(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        small(),
        "supernet.epochs=30",
        "search.max_flops=0.9M",
        "search.evolution.mutation_prob=0.25",
        "supernet.early_bird.window=2",
        "supernet.clip_norm=null",
        "data.augment=false",
        "name=a=b",
        "cluster={num_workers: 2, use_gpu: true}",
        "supernet.epochs=31",
    )
    assert config.supernet.epochs == 31
    assert config.search.max_flops == 900_000
    assert config.search.evolution.mutation_prob == 0.25
    assert config.search.evolution.population == small()["search"]["evolution"]["population"]
    assert config.supernet.early_bird is not None
    assert (config.supernet.early_bird.window, config.supernet.early_bird.threshold) == (2, 0.1)
    assert config.supernet.clip_norm is None
    assert config.data.augment is False
    assert config.name == "a=b"
    assert (config.cluster.num_workers, config.cluster.use_gpu) == (2, True)


@pytest.mark.parametrize(
    ("text", "value"), [("475m", 475e6), ("0.5G", 5e8), ("1.5B", 1.5e9), ("1e2 k", 1e5)]
)
def test_budgets_take_suffixes(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, small(), f"search.max_flops={text}").search.max_flops == value


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("supernet.epochs", "expected key=value"),
        ("supernet.epochs=[1", "is not a YAML value"),
        ("name.value=1", "'name' is a value and not a section"),
        ("nonsense=3", "nonsense is an unknown key"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, says: str) -> None:
    assert says in complaint(tmp_path, small(), override)


def test_an_override_changes_one_of_two_sections_that_share_an_anchor(tmp_path: Path) -> None:
    values = small()
    values["supernet"] = values["retrain"]
    text = yaml.dump(values)
    assert "*id" in text
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    (config,) = load_experiment(tmp_path / "config.yaml", ["supernet.epochs=9"]).cells
    assert (config.supernet.epochs, config.retrain.epochs) == (9, 2)


# --- values ---


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, small())
    for section, field in ((config, "seed"), (config.supernet, "epochs")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_a_field_that_is_added_later_changes_no_identity_while_it_has_its_default() -> None:
    class Inner(Section):
        lr: float = 0.1

    class Old(Section):
        epochs: int = 3
        inner: Inner = Inner()

    class NewInner(Inner):
        ema: float | None = added(None, description="Of the weights.")

    class New(Section):
        epochs: int = 3
        inner: NewInner = NewInner()
        mixup: float = added(0.0, description="Share of mixed images.")

    assert New().identity() == Old().identity() == {"epochs": 3, "inner": {"lr": 0.1}}
    assert New(mixup=0.5).identity() == {**Old().identity(), "mixup": 0.5}
    assert New(inner=NewInner(ema=0.9)).identity()["inner"] == {"lr": 0.1, "ema": 0.9}


def test_names_that_others_rely_on() -> None:
    names = {
        *("space", "data.name", "data.root", "seed", "retrain.epochs", "storage.path"),
        *("supernet.trainable", "supernet.sampler", "supernet.epochs"),
        *("search.indicator", "search.searcher", "search.max_flops"),
        *("tracking.uri", "tracking.experiment", "cluster.num_workers", "cluster.use_gpu"),
    }
    values = CellConfig.model_validate(small()).model_dump()
    for name in names:
        section, _, field = name.partition(".")
        assert section in values
        assert not field or field in values[section], name
