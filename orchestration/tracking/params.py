"""A nested config as the flat, short strings that MLflow takes as params.

MLflow wants keys of at most 250 characters out of a small alphabet and values of at most 6,000
characters, and never lets a param be changed. The whole config is logged as an artifact too;
params are for finding and comparing runs. Of metrics, those are logged that are worth a chart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestration.store.json_text import JSON

MAX_KEY_CHARS = 250
MAX_VALUE_CHARS = 6000
# One number for each candidate of a supernet in every epoch: a record has them, and no chart.
_UNCHARTED = re.compile(r"score/\d+\.\d+")
_ILLEGAL = re.compile(r"[^\w\-. :/]")
_CUT = " … cut, see config.yaml"


def charted(row: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an epoch that MLflow has a chart of."""
    return {name: value for name, value in row.items() if not _UNCHARTED.fullmatch(name)}


def flatten_params(config: Mapping[str, JSON]) -> dict[str, str]:
    """One entry per leaf of ``config``, keys joined with dots, values as text.

    Strings stand as they are, everything else as JSON (``true``, ``null``, ``[1, 2]``); lists
    and empty mappings are leaves. A key with characters that MLflow refuses, or too long a key,
    is mended and gets eight digits of its hash, so that two keys never become one.
    """
    return {_key(path): _value(leaf) for path, leaf in _leaves(config, "")}


def nested_params(params: Mapping[str, str], section: str) -> dict[str, JSON]:
    """A section of what `flatten_params` was given, as far as its keys and values were kept whole.

    A string that reads as JSON, such as "3", comes back as what it reads as.
    """
    tree: dict[str, Any] = {}
    for key, text in params.items():
        first, *path = key.split(".")
        if first != section or not path:
            continue
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        try:
            branch[path[-1]] = json.loads(text)
        except ValueError:  # strings stand there as they are
            branch[path[-1]] = text
    return tree


def _leaves(config: Mapping[str, JSON], prefix: str) -> Iterator[tuple[str, JSON]]:
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _key(path: str) -> str:
    # MLflow also refuses what is no tidy path: "a//b", "/a", "..".
    mended = re.sub(r"/+", "/", _ILLEGAL.sub("_", path)).strip("/")
    if set(mended) <= {"."}:
        mended = f"_{mended}"
    if mended == path and len(path) <= MAX_KEY_CHARS:
        return path
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    return f"{mended[: MAX_KEY_CHARS - len(digest) - 1]}-{digest}"


def _value(value: JSON) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= MAX_VALUE_CHARS:
        return text
    return text[: MAX_VALUE_CHARS - len(_CUT)] + _CUT
