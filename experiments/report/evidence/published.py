"""Numbers that others have published, and what their networks cost by this program's count."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report.evidence.units import Show
from experiments.report.evidence.values import NOTHING, Cell, Derived, Number, Published

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class PublishedRows:
    """A published table.

    Attributes:
        source: paper and table.
        rows: field → what is printed; a field that a row has not is not published.
    """

    source: str
    rows: tuple[Mapping[str, str], ...]

    def cells(self, fields: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
        """The rows as a table has them."""
        return tuple(
            tuple(quoted(row.get(f, NOTHING), self.source) for f in fields) for row in self.rows
        )


def published(name: str) -> PublishedRows:
    """A table of `published.yaml`; raises KeyError for one that it has not."""
    table = _read("published.yaml")[name]
    return PublishedRows(table["source"], tuple(table["rows"]))


def quoted(text: str, source: str) -> Cell:
    """What is printed: a number where it is nothing else; with a unit it stays text."""
    is_number = _NUMBER.fullmatch(text) is not None
    return Number(float(text), text, Published(source)) if is_number else text


def counted(network: str, cost: str, show: Show) -> Number | None:
    """`flops` or `params` of a network by the name that Table 2 has; None if it is not counted.

    They were counted by `experiments.benchmarks.count_networks`.
    """
    content = _read("counted.yaml")
    for row in content["networks"]:
        if row["network"] == network:
            size = content["resolution"]
            rule = (
                f"computed from torchvision {content['torchvision']}'s {row['model']} at "
                f"{size}×{size}"
            )
            return Number.of(float(row[cost]), show, Derived(rule))
    return None


@functools.cache
def _read(name: str) -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))
    return content
