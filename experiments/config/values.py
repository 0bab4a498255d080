"""Types of config values that several sections share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PositiveFloat

from nas.indicators import INDICATORS

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def _with_suffix(value: Any) -> Any:
    """Read `475M` as 475 000 000; leave everything else to the type."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kKmMgGbB])\s*", value)
        if match:
            return float(match[1]) * _SUFFIXES[match[2].lower()]
    return value


def one_of(what: str, known: Sequence[str]) -> AfterValidator:
    """Accepts the known names only."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {what}: the known ones are {', '.join(known)}")
        return name

    return AfterValidator(check)


Count = Annotated[PositiveFloat, BeforeValidator(_with_suffix)]
IndicatorName = Annotated[str, one_of("indicator", tuple(INDICATORS))]
