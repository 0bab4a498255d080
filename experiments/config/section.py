"""What every part of a config is: frozen values under known names."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """The request is wrong; the message says which field, what was given and what is expected."""


class Section(BaseModel):
    """Frozen values; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def plain_name(name: str) -> str:
    """A name that can be part of a path."""
    if not re.fullmatch(r"[^./\\\s][^/\\]*", name):
        raise ValueError(
            "must have at least 1 character, no slashes, and no dot or space at the beginning"
        )
    return name
