from __future__ import annotations

import re

from orchestration.store.json_text import JSON
from orchestration.tracking.params import (
    MAX_KEY_CHARS,
    MAX_VALUE_CHARS,
    flatten_params,
    nested_params,
)


def test_leaves_become_dotted_keys() -> None:
    config: dict[str, JSON] = {
        "space": "spos",
        "supernet": {"lr": [0.2, 0.8], "fair": True, "nested": {"deep": None}},
        "empty": {},
        "text": "1",
        "number": 1,
    }
    assert flatten_params(config) == {
        "space": "spos",
        "supernet.lr": "[0.2, 0.8]",
        "supernet.fair": "true",
        "supernet.nested.deep": "null",
        "empty": "{}",
        "text": "1",
        "number": "1",
    }


def test_what_mlflow_would_refuse_is_mended_and_stays_distinct() -> None:
    names = ["a" * 300 + "1", "a" * 300 + "2", "k(1)", "k[1]", "/k", "k//k", "..", "é", "k 1-b:c"]
    params = flatten_params(dict.fromkeys(names, "v"))
    assert len(params) == len(names)
    for key in params:
        assert len(key) <= MAX_KEY_CHARS
        assert re.fullmatch(r"[\w\-. :/]+", key)
    assert "k 1-b:c" in params


def test_long_values_are_cut_and_say_where_the_rest_is() -> None:
    (value,) = flatten_params({"long": "x" * 10_000}).values()
    assert len(value) == MAX_VALUE_CHARS
    assert value.endswith("see config.yaml")
    assert flatten_params({"just": "x" * MAX_VALUE_CHARS})["just"] == "x" * MAX_VALUE_CHARS


def test_a_section_is_nested_again() -> None:
    section: dict[str, JSON] = {"name": "bn", "limits": {"max": 3, "min": None}, "axes": [1, 2]}
    params = flatten_params({"search": section, "seed": 0, "searcher": "exact"})
    assert nested_params(params, "search") == section
