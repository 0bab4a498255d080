"""Libraries that chatter are silent, but not about what went wrong."""

from __future__ import annotations

import contextlib
import warnings

import pytest

from detection.quiet import quiet


class StopError(Exception):
    """Stands for whatever goes wrong."""


def test_neither_prints_nor_warnings_reach_people(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            print("chatter")  # noqa: T201
            warnings.warn("deprecated", stacklevel=1)
        assert caught == []
        warnings.warn("heard again", stacklevel=1)
        print("ours")  # noqa: T201
    assert [str(each.message) for each in caught] == ["heard again"]
    assert capsys.readouterr() == ("ours\n", "")


def test_what_was_printed_before_an_error_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(StopError), quiet():
        print("the cause")  # noqa: T201
        raise StopError
    assert capsys.readouterr() == ("", "the cause\n")
    with pytest.raises(StopError), quiet():
        raise StopError
