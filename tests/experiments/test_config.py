"""Configs: what is published is valid, what is wrong is one sentence that names the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from experiments.config.cell import Config, SupernetConfig
from experiments.config.cells import Cells
from experiments.config.load import (
    dump_config,
    load_config,
    load_correlation,
    load_experiment,
    load_sweep,
)
from experiments.config.section import ConfigError
from experiments.config.study import Correlation
from nas.data import DATASETS
from nas.indicators import INDICATORS
from nas.sampling import SAMPLERS
from nas.search import SEARCHERS
from nas.trainable import TRAINABLES
from tests.experiments.command import Outcome, assert_refused
from tests.experiments.configs import changed, small, write_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "configs").glob("*.yaml"))


def load(tmp_path: Path, values: Any, *overrides: str) -> Config:
    return load_config(write_yaml(tmp_path / "config.yaml", values), overrides)


def complaint(tmp_path: Path, values: Any, *overrides: str) -> str:
    """The message of the error, which has to be one sentence on one line."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, values, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def test_there_are_published_configs() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_published_configs_load_and_survive_a_dump(path: Path, tmp_path: Path) -> None:
    experiment = load_experiment(path)
    configs = experiment.cells if isinstance(experiment, Cells) else (experiment,)
    for config in configs:
        dumped = tmp_path / "dumped.yaml"
        dumped.write_text(dump_config(config), encoding="utf-8")
        again = load_experiment(dumped)
        assert isinstance(again, Correlation) == isinstance(experiment, Correlation)
        assert (again.shared if isinstance(again, Correlation) else again) == config


STUDY = {"correlate": {"num_architectures": 5}, "seeds": [3, 1]}


def test_a_file_with_a_correlate_section_is_a_study_and_a_cell(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "study.yaml", {**small(), **STUDY})
    study = load_experiment(path)
    assert study == load_correlation(path)
    assert isinstance(study, Correlation)
    assert [cell.seed for cell in study.cells] == [3, 1]
    assert (study.name, study.shared.correlate.num_architectures) == ("small", 5)
    del (values := {**small(), **STUDY})["seeds"]
    cell = load(tmp_path, values)
    assert load_correlation(tmp_path / "config.yaml").cells == (cell,)
    # A cell is none, also where its resolved config is read; any can be asked about, by name.
    plain = write_yaml(tmp_path / "plain.yaml", small())
    assert isinstance(load_experiment(plain), Config)
    assert load_correlation(plain).cells == (load_config(plain),)


def test_the_ui_of_a_study_is_where_it_tracks(
    bnnas: Callable[..., Outcome], tmp_path: Path
) -> None:
    values = {**small(), **STUDY, "storage": {"path": str(tmp_path / "runs")}}
    path = write_yaml(tmp_path / "study.yaml", values)
    assert_refused(bnnas("ui", path), "no tracking database", str(tmp_path / "runs"))


def test_seeds_are_not_of_one_cell(tmp_path: Path) -> None:
    for values in ({**small(), **STUDY}, {**small(), "seeds": [0, 1]}):
        message = complaint(tmp_path, values)
        for words in ("has seeds", "'bnnas correlate'", "'bnnas sweep'", "one cell has one seed"):
            assert words in message
    path = write_yaml(tmp_path / "study.yaml", {**small(), **STUDY})
    with pytest.raises(ConfigError, match="is a correlation study: start it with 'bnnas correl"):
        load_sweep(path)


def test_a_space_beside_the_config_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").touch()
    monkeypatch.chdir("/")
    assert load(tmp_path, small("own.yaml")).space == str(tmp_path / "own.yaml")
    assert load(tmp_path, small("micro")).space == "micro"


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
    assert key.replace("__", ".") in message
    assert "'nonsense'" in message
    assert message.endswith(f"the known ones are {', '.join(known)}.")


def test_every_known_name_is_accepted(tmp_path: Path) -> None:
    for name in SAMPLERS:
        assert load(tmp_path, small(), f"supernet.sampler={name}").supernet.sampler == name
    for name in DATASETS:
        assert load(tmp_path, small(), f"data.name={name}").data.name == name
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


def test_trainables_are_those_of_the_method(tmp_path: Path) -> None:
    assert get_args(SupernetConfig.model_fields["trainable"].annotation) == tuple(TRAINABLES)
    message = complaint(tmp_path, changed(small(), supernet__trainable="gamma"))
    assert all(repr(name) in message for name in TRAINABLES)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown section": ({"supernt": {}}, ("supernt", "did you mean 'supernet'?")),
    "unknown key": ({"supernet__epoch": 3}, ("supernet.epoch ", "did you mean 'epochs'?")),
    "no near key": ({"search__zzz": 3}, ("search.zzz", "the known keys are indicator, searcher")),
    "nested key": (
        {"search__evolution": {"populaton": 3}},
        ("search.evolution.populaton", "did you mean 'population'?"),
    ),
    "optional section": (
        {"supernet__early_bird": {"windw": 3}},
        ("supernet.early_bird.windw", "did you mean 'window'?"),
    ),
    "word for number": ({"supernet__epochs": "many"}, ("supernet.epochs", "'many'", "integer")),
    "part of an epoch": ({"supernet__epochs": 2.5}, ("supernet.epochs", "2.5")),
    "list for text": ({"space": ["micro"]}, ("space", "['micro']", "string")),
    "value for section": ({"data": "digits"}, ("data", "'digits'")),
    "nothing for section": ({"search": None}, ("search", "None")),
    "zero epochs": ({"retrain__epochs": 0}, ("retrain.epochs", "0", "greater than 0")),
    "negative seed": ({"seed": -1}, ("seed", "-1")),
    "not a number": ({"supernet__lr": float("nan")}, ("supernet.lr", "nan")),
    "infinite": ({"supernet__lr": float("inf")}, ("supernet.lr", "inf", "finite")),
    "no suffix": ({"search__max_flops": "475X"}, ("search.max_flops", "'475X'")),
    "two dots": ({"search__max_flops": "4.7.5M"}, ("search.max_flops", "'4.7.5M'")),
    "half of the images": (
        {"data__search_val_fraction": 0.6},
        ("data.search_val_fraction", "0.6", "0.5"),
    ),
    "no name": ({"name": ""}, ("name", "at least 1 character")),
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
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    changes, says = WRONG[case]
    message = complaint(tmp_path, changed(small(), **changes))
    assert "config.yaml" in message
    for words in says:
        assert words in message


def test_a_missing_key_and_several_problems_are_named_together(tmp_path: Path) -> None:
    values = changed(small(), supernet__epochs=0, seed="x")
    del values["data"]
    message = complaint(tmp_path, values)
    assert "data is missing" in message
    assert "supernet.epochs is 0" in message
    assert "seed is 'x'" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("- micro\n- digits\n", "expected a mapping of keys such as space and data, got list"),
        ("", "got NoneType"),
        ("micro", "got str"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_and_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"there is no config file .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="there is no config file"):
        load_config(tmp_path)


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
    ("text", "value"),
    [
        ("475M", 475e6),
        ("475m", 475e6),
        ("0.5G", 5e8),
        ("1.5B", 1.5e9),
        ("800k", 8e5),
        ("475e6", 475e6),
        ("475000000", 475e6),
        ("1e2 k", 1e5),
    ],
)
def test_budgets_take_suffixes(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, small(), f"search.max_flops={text}").search.max_flops == value


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("supernet.epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("supernet.epochs=[1", "is not a YAML value"),
        ("name.value=1", "'name' is a value and not a section"),
        ("supernet.epoch=3", "did you mean 'epochs'?"),
        ("nonsense=3", "nonsense is an unknown key"),
        ("supernet.epochs=0", "supernet.epochs is 0"),
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
    config = load_config(tmp_path / "config.yaml", ["supernet.epochs=9"])
    assert (config.supernet.epochs, config.retrain.epochs) == (9, 2)


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    detect = {"data": {"name": "digit_scenes"}}
    config = load(tmp_path, changed(small(), detect=detect))
    for section, field in ((config, "seed"), (config.supernet, "epochs"), (config.detect, "lr")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_names_that_others_rely_on() -> None:
    names = {
        *("space", "data.name", "data.root", "seed", "retrain.epochs", "storage.path"),
        *("supernet.trainable", "supernet.sampler", "supernet.epochs"),
        *("search.indicator", "search.searcher", "search.max_flops"),
        *("tracking.uri", "tracking.experiment", "cluster.num_workers", "cluster.use_gpu"),
    }
    values = Config.model_validate(small()).model_dump()
    for name in names:
        section, _, field = name.partition(".")
        assert section in values
        assert not field or field in values[section], name
