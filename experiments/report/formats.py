"""How numbers are printed: in which unit, and with how many digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from experiments.figures.numbers import count


@dataclass(frozen=True)
class Format:
    """How a number is printed.

    Attributes:
        text: of a number that is in the heading's unit already.
        scale: what a value is multiplied with to be in that unit, such as 100 for percent.
    """

    text: Callable[[float], str]
    scale: float = 1.0

    def __call__(self, value: float) -> str:
        """The text of a value; of one that is no number, that it is none."""
        return self.text(self.scale * value) if math.isfinite(value) else "not finite"


def decimals(num: int, scale: float = 1.0) -> Format:
    """With so many digits after the point."""
    return Format(f"{{:.{num}f}}".format, scale)


percent = decimals(2, 100)  # a share of 1, without the sign
plain = Format("{:,.0f}".format)  # a count, without an exponent
size = Format(count)  # FLOPs or parameters, with a suffix
millions = decimals(1, 1e-6)
milliseconds = decimals(1, 1e3)
yes_or_no = Format(lambda value: "yes" if value else "no")
