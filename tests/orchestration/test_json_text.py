from __future__ import annotations

import json
import math
from typing import Any

import pytest

from orchestration.store import json_text
from orchestration.store.json_text import JSON


def test_non_finite_numbers_survive_as_valid_json() -> None:
    value: dict[str, JSON] = {
        "a": [math.nan, math.inf, -math.inf, 1.5],
        "b": {"c": None, "d": True},
    }
    text = json_text.dumps(value)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)
    back = json_text.loads(text)
    assert math.isnan(back["a"][0])
    assert back["a"][1:] == [math.inf, -math.inf, 1.5]
    assert back["b"] == value["b"]


@pytest.mark.parametrize("value", [{"$float": 1}, {1: 2}, {"a": {2}}, {"a": b""}])
def test_what_would_not_come_back_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        json_text.dumps(value)


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no non-finite number"):
        json_text.loads('{"$float": "many"}')
