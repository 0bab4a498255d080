"""A table as a file, by hand: for people in Markdown, with all digits in CSV."""

from __future__ import annotations

from experiments.report.evidence.units import percent
from experiments.report.evidence.values import NOTHING, Derived, MeanStd, Number, Table
from experiments.report.page import table_csv, table_markdown


def test_a_table_for_people_and_for_a_notebook() -> None:
    mean, std = (Number.of(value, percent, Derived("by hand")) for value in (1 / 3, 0.125))
    rows = (("a|b", MeanStd(mean, std)), ("<i>", MeanStd(mean, None)), ("c", NOTHING))
    table = Table("top1", "Top-1 (%)", ("cell", "mean"), rows, "A note.")
    assert table_csv(table).splitlines() == [
        'cell,mean,"mean, ±"',
        "a|b,33.3333333333333,12.5",
        "<i>,33.3333333333333,",
        "c,,",
    ]
    assert table_markdown(table).splitlines() == [
        "**Top-1 (%)**",
        "",
        "| cell | mean |",
        "|---|--:|",
        r"| a\|b | 33.33 ± 12.50 |",
        "| &lt;i&gt; | 33.33 |",
        "| c | – |",
        "",
        "A note.",
    ]
