"""Programs that measure; each says in its docstring what and how to run it."""

from __future__ import annotations
