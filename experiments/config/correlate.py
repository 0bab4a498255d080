"""What a correlation study asks: the `correlate` section of a config (section 4.5.2, Fig. 6)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from experiments.config.section import Section
from nas.indicators import INDICATORS


def _known_once(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in INDICATORS]
    if unknown:
        raise ValueError(f"unknown indicator: the known ones are {', '.join(INDICATORS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError("must name at least one indicator, and each once")
    return names


class CorrelateConfig(Section):
    """Which architectures are retrained, and whose ranking is compared with the result.

    Attributes:
        num_architectures: drawn at random, as many from every stratum of FLOPs, under the budgets
            of the search section.
        num_strata: of equal width, between the least and the most FLOPs.
        num_bins: of equal numbers, within which indicators are judged apart from size.
        indicators: to compare.
    """

    num_architectures: Annotated[int, Field(ge=3)] = 40
    num_strata: PositiveInt = 4
    num_bins: PositiveInt = 4
    indicators: Annotated[tuple[str, ...], AfterValidator(_known_once)] = (
        "bn",
        "accuracy",
        "flops",
        "params",
        "naswot",
        "synflow",
    )
