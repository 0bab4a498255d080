from __future__ import annotations

import pytest

from orchestration.cluster.credentials import without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:secret@host:5000/x.", "at http://host:5000/x."),
        ("http://me:pa@ss@host", "http://host"),
        ("--uri 'postgresql://me@host/db' b://c:d@e", "--uri 'postgresql://host/db' b://e"),
        ("https://host/me@home?to=you@there", "https://host/me@home?to=you@there"),
        ("https://host?to=you@there#@", "https://host?to=you@there#@"),
        ("me@host and sqlite:////a@b/c.db", "me@host and sqlite:////a@b/c.db"),
    ],
)
def test_passwords_are_cut_out_of_every_uri(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
