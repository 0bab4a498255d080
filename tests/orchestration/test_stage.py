"""The identity of a stage: what decides its result, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orchestration.store.fingerprint import fingerprint
from orchestration.store.stage import Stage

STAGE = Stage("search", {"seed": 0}, code_version=1, inputs={"supernet": "a"}, name="search bn")


def test_the_fingerprint_is_that_of_kind_config_inputs_and_code_version() -> None:
    expected = fingerprint("search", {"seed": 0}, {"supernet": "a"}, code_version=1)
    assert STAGE.fingerprint == expected


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "retrain"},
        {"config": {"seed": 1}},
        {"code_version": 2},
        {"inputs": {"supernet": "b"}},
        {"inputs": {"retrain": "a"}},
        {"inputs": {}},
    ],
    ids=str,
)
def test_whatever_decides_the_result_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert dataclasses.replace(STAGE, **change).fingerprint != STAGE.fingerprint


def test_the_name_is_for_people() -> None:
    assert dataclasses.replace(STAGE, name="another").fingerprint == STAGE.fingerprint
