"""Numbers that others have published, and what was measured here in the rows below them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.report.formats import decimals, millions
from experiments.report.run_table import texts
from experiments.report.tables import NOTHING, Entry, Number, Table

_NUMBER = re.compile(r"\d+(?:\.(\d+))?")
_IMAGENET_CLASSES = "1000"


def on_imagenet(retrained: pd.DataFrame) -> pd.Series:
    """Which retrainings are on ImageNet's images: what the published networks are compared on."""
    is_folder = texts(retrained, "params.data.name") == "imagefolder"
    return is_folder & (texts(retrained, "params.space.input.num_classes") == _IMAGENET_CLASSES)


def all_on_imagenet(retrained: pd.DataFrame) -> bool:
    """Whether that holds of all of them, and there are any."""
    return len(retrained) > 0 and bool(on_imagenet(retrained).all())


def published_table(
    key: str,
    name: str,
    headings: Mapping[str, str],
    measured: Sequence[Mapping[str, Entry]],
    note: str = "",
) -> Table:
    """A published table with what was measured here below it.

    Args:
        key: of the table in `published.yaml`.
        name: of the table's files.
        headings: field → heading; fields that nobody has are left out.
        measured: rows by field.
        note: what must be known to read it.
    """
    content = published(key)
    of_others = [{field: quoted(what) for field, what in row.items()} for row in content["rows"]]
    fields = [field for field in headings if any(field in row for row in of_others)]
    rows = [
        {headings[field]: row.get(field, NOTHING) for field in fields}
        for row in [*of_others, *measured]
    ]
    title = f"{content['source']}, and {len(measured)} measured here (the last rows)"
    return Table.of(name, title, rows, note)


@functools.cache
def published(key: str) -> dict[str, Any]:
    """`source`, and `rows` of field → text, of a table in `published.yaml`; KeyError without it."""
    path = Path(__file__).with_name("published.yaml")
    table: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))[key]
    return table


def quoted(what: str | int) -> Entry:
    """What is printed: a number where it is nothing else; with a unit it stays text.

    A count is none of the publication, but counted here.
    """
    if isinstance(what, int):
        return Number(float(what), millions)
    match = _NUMBER.fullmatch(what)
    return Number(float(what), decimals(len(match[1] or ""))) if match else what
