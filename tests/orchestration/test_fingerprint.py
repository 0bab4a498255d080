from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.store.fingerprint import fingerprint
from orchestration.store.stage import Stage

CONFIG: dict[str, Any] = {"space": "spos", "supernet": {"epochs": 30, "lr": [0.2, 0.8]}}


def test_it_is_the_sha256_of_the_canonical_document() -> None:
    text = (
        '{"code_version":2,"config":{"a":1,"b":[true,null,"\\u03b3"]},'
        '"inputs":{"supernet":"ff"},"kind":"search"}'
    )
    found = fingerprint(
        "search", {"b": (True, None, "γ"), "a": 1.0}, {"supernet": "ff"}, code_version=2
    )
    assert found == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"a": 1.0}, {"a": 1}),
        ({"a": -0.0}, {"a": 0}),
        ({"a": {"c": 3, "b": {}}}, {"a": {"b": {}, "c": 3}}),
    ],
)
def test_equal_values_are_one_stage(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint("k", one, code_version=1) == fingerprint("k", other, code_version=1)


def test_every_difference_that_can_matter_is_another_stage() -> None:
    configs: list[dict[str, Any]] = [
        {},
        {"a": None},
        {"a": 1},
        {"a": True},
        {"a": "1"},
        {"a": 1.5},
        {"a": [1]},
        {"a": [[1]]},
        {"a": {"1": 1}},
        {"b": 1},
    ]
    found = [fingerprint("k", config, code_version=1) for config in configs]
    found.append(fingerprint("other", {"a": 1}, code_version=1))
    found.append(fingerprint("k", {"a": 1}, code_version=2))
    found.append(fingerprint("k", {"a": 1}, {"x": "00"}, code_version=1))
    found.append(fingerprint("k", {"a": 1}, {"x": "01"}, code_version=1))
    assert len(set(found)) == len(found)


def test_a_stage_is_its_kind_config_inputs_and_code_version_and_not_its_name() -> None:
    expected = fingerprint("search", CONFIG, {"supernet": "a"}, code_version=3)
    stages = (Stage("search", CONFIG, 3, {"supernet": "a"}, name=name) for name in ("one", "other"))
    assert [stage.fingerprint for stage in stages] == [expected, expected]


def test_another_process_agrees() -> None:
    program = (
        "from orchestration.store.fingerprint import fingerprint\n"
        f"print(fingerprint('supernet', {CONFIG!r}, code_version=3))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == fingerprint("supernet", CONFIG, code_version=3)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"a": {"lr": math.nan}}, "config.a.lr"),
        ({"a": [0, math.inf]}, "config.a[1]"),
        ({"a": {1, 2}}, "config.a"),
        ({"a": {1: 2}}, "config.a"),
        ({"a": b"x"}, "config.a"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(config: Any, place: str) -> None:
    with pytest.raises(ValueError, match="fingerprinted") as caught:
        fingerprint("k", config, code_version=1)
    assert str(caught.value).startswith(f"{place} ")
