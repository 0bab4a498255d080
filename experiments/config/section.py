"""What every part of a config is: frozen, described values under known names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_IF_SET = {"fingerprint": "if set"}


class ConfigError(ValueError):
    """The request is wrong; the message says which field, what was given and what is expected."""


class Section(BaseModel):
    """Frozen values; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The plain values that fingerprints are made of.

        A field that was :func:`added` later is not among them while it has its default, so that
        results from before it was there stay in the store.
        """
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.json_schema_extra == _IF_SET and value == field.get_default(
                call_default_factory=True
            ):
                del values[name]
            elif isinstance(value, Section):
                values[name] = value.identity()
        return values


def added(default: Any, *, description: str, **options: Any) -> Any:
    """A field that a section did not have at first; see :meth:`Section.identity`."""
    return Field(default, description=description, json_schema_extra=dict(_IF_SET), **options)


def one_of(what: str, known: Sequence[str]) -> AfterValidator:
    """Accepts the known names only."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {what}: the known ones are {', '.join(known)}")
        return name

    return AfterValidator(check)


def plain_name(name: str) -> str:
    """A name that can be part of a path."""
    if not re.fullmatch(r"[^./\\\s][^/\\]*", name):
        raise ValueError(
            "must have at least 1 character, no slashes, and no dot or space at the beginning"
        )
    return name
