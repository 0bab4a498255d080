"""Numbers that others have published, and what was measured here in the rows below them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.report.formats import Format, decimals
from experiments.report.run_table import Runs
from experiments.report.tables import NOTHING, Entry, Number, Table
from orchestration.tracking.reader import TrackedRun

_NUMBER = re.compile(r"\d+(?:\.(\d+))?")
_IMAGENET_CLASSES = "1000"


def on_imagenet(run: TrackedRun) -> bool:
    """Whether a retraining's images are ImageNet's: what the published networks are compared on."""
    named, classes = (run.params.get(p) for p in ("data.name", "space.input.num_classes"))
    return named == "imagefolder" and classes == _IMAGENET_CLASSES


def all_on_imagenet(runs: Runs, retrained: Iterable[str]) -> bool:
    """Whether that holds of some retrainings, and there are any."""
    run_ids = list(retrained)
    return bool(run_ids) and all(on_imagenet(runs.by_id[run_id]) for run_id in run_ids)


def published_table(
    key: str,
    name: str,
    headings: Mapping[str, str],
    measured: Sequence[Mapping[str, Entry]],
    note: str = "",
    counted_here: Sequence[Mapping[str, Entry]] = (),
) -> Table:
    """A published table with what was measured here below it.

    Args:
        key: of the table in `published.yaml`.
        name: of the table's files.
        headings: field → heading; fields that nobody has are left out.
        measured: rows by field.
        note: what must be known to read it.
        counted_here: more fields of each published row, if any.
    """
    content = published(key)
    of_others: list[dict[str, Entry]] = [
        {**{field: quoted(text) for field, text in row.items()}, **more}
        for row, more in zip(content["rows"], counted_here or itertools.repeat({}), strict=False)
    ]
    fields = [field for field in headings if any(field in row for row in of_others)]
    rows = [
        {headings[field]: row.get(field, NOTHING) for field in fields}
        for row in (*of_others, *measured)
    ]
    title = f"{content['source']}, and {len(measured)} measured here (the last rows)"
    return Table.of(name, title, rows, note)


def published(key: str) -> dict[str, Any]:
    """`source`, and `rows` of field → text, of a table in `published.yaml`; KeyError without it."""
    table: dict[str, Any] = _read("published.yaml")[key]
    return table


def quoted(text: str) -> Entry:
    """What is printed: a number where it is nothing else; with a unit it stays text."""
    match = _NUMBER.fullmatch(text)
    return Number(float(text), decimals(len(match[1] or ""))) if match else text


def counted(network: str, cost: str, form: Format) -> Entry:
    """`flops` or `params` of a network by the name that Table 2 has, if it was counted.

    They were counted by `experiments.benchmarks.count_networks`.
    """
    for row in _read("counted.yaml")["networks"]:
        if row["network"] == network:
            return Number(float(row[cost]), form)
    return NOTHING


@functools.cache
def _read(name: str) -> dict[str, Any]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content
