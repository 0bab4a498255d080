"""Texts that people pass on must not carry passwords along."""

from __future__ import annotations

import re

_IN_URI = re.compile(r"(?<=://)[^/?#\s'\"]+@")


def without_credentials(text: str) -> str:
    """The text with `user:password@` cut out of every URI in it."""
    return _IN_URI.sub("", text)
