"""What opens a cluster's door, and how it is kept out of texts that people pass on."""

from __future__ import annotations

import os
import re
from pathlib import Path

_IN_URI = re.compile(r"(?<=://)[^/?#\s'\"]+@")


def without_credentials(text: str) -> str:
    """The text with `user:password@` cut out of every URI in it."""
    return _IN_URI.sub("", text)


def ray_token() -> str | None:
    """The token for Ray clusters, from where Ray's documentation says that Ray looks for it.

    That is ``RAY_AUTH_TOKEN``, the file that ``RAY_AUTH_TOKEN_PATH`` names, ``~/.ray/auth_token``.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
