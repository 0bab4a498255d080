"""The identity of a stage: SHA-256 of everything that decides its result, and of nothing else.

Two stages with one fingerprint are the same stage, in another sweep and on another machine too;
the stage store, the tracking server and the names of Ray Train jobs all use it as their key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from orchestration.store.json_text import JSON


def fingerprint(
    kind: str,
    config: Mapping[str, JSON],
    inputs: Mapping[str, str] | None = None,
    *,
    code_version: int,
) -> str:
    """64 hexadecimal digits that identify the result of one stage.

    Equal values give equal fingerprints: the order of keys does not matter, a tuple is a list,
    and a whole float is the integer (``1.0`` is ``1``, ``-0.0`` is ``0``), as in YAML one is
    often written for the other. ``True`` is not ``1``, ``"1"`` is not ``1``, a missing key is
    not ``None``.

    Args:
        kind: the stage's kind, such as ``supernet``.
        config: what decides the result; JSON types only, of any depth.
        inputs: the stages it reads, as kind → fingerprint.
        code_version: raised by hand whenever the stage's code starts to give other results.

    Raises:
        ValueError: ``config`` holds something without one canonical form (NaN, infinity, a set,
            an array) or a key that is no string; the message names the field.
    """
    document = {
        "kind": kind,
        "code_version": code_version,
        "config": _canonical(config, "config"),
        "inputs": _canonical(dict(inputs or {}), "inputs"),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: JSON, place: str) -> JSON:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{place} is {value}, which cannot be fingerprinted: use null for 'no value'."
            )
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(
                    f"{place} has the key {key!r} of type {type(key).__name__}, which cannot be "
                    "fingerprinted: keys must be strings."
                )
        return {str(key): _canonical(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise ValueError(
        f"{place} is a {type(value).__name__}, which cannot be fingerprinted: use numbers, "
        "strings, lists and mappings."
    )
