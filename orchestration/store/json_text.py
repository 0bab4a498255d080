"""JSON text that carries NaN and infinity, so that a diverged run can be recorded and read back.

RFC 8259 has no token for them, and Python's ``NaN`` literals are refused by other readers. Here a
non-finite number is written as an object with one reserved key: ``{"$float": "nan"}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_FLOAT_KEY = "$float"
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def dumps(value: JSON) -> str:
    """Write ``value`` as strictly valid JSON; the order of keys and non-finite floats survive.

    Raises:
        ValueError: a mapping key is no string or is the reserved ``$float``, or a value is none
            of JSON's types. The message gives the place, such as ``metrics.top1``.
    """
    return json.dumps(_encode(value, ""), indent=1, ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Read what :func:`dumps` wrote. Tuples come back as lists.

    Raises:
        ValueError: the text is not JSON, or holds an unknown non-finite number.
    """
    return json.loads(text, object_hook=_decode)


def plain(value: JSON) -> Any:
    """``value`` with every mapping a dict and every sequence a list, as YAML's writer wants it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _encode(value: JSON, place: str) -> JSON:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT_KEY: str(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        encoded: dict[str, JSON] = {}
        for key, item in value.items():
            if not isinstance(key, str) or key == _FLOAT_KEY:
                raise ValueError(
                    f"Key {key!r} at {place or 'the top'} cannot be stored: use strings other "
                    f"than {_FLOAT_KEY!r} as keys."
                )
            encoded[key] = _encode(item, f"{place}.{key}".lstrip("."))
        return encoded
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise ValueError(
        f"A {type(value).__name__} at {place or 'the top'} cannot be stored: convert it to a "
        "number, a string, a list or a mapping first."
    )


def _decode(mapping: dict[str, Any]) -> Any:
    if set(mapping) != {_FLOAT_KEY}:
        return mapping
    text = mapping[_FLOAT_KEY]
    if text not in _NON_FINITE:
        raise ValueError(f"{text!r} is no non-finite number; expected one of {list(_NON_FINITE)}.")
    return _NON_FINITE[text]
