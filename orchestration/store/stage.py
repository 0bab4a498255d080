"""A stage: one cacheable step, known by the fingerprint of what decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestration.store.fingerprint import fingerprint

JOBS = "jobs"  # the folder, below a storage path, of what unfinished jobs go on from


@dataclass(frozen=True)
class Stage:
    """What is to be made, not how.

    Attributes:
        kind: ``supernet``, ``search``, ``retrain``, …
        config: nested plain values; everything in it can change the result, and nothing else is.
        code_version: raised when the code changes what the same config gives.
        inputs: the stages that this one reads, kind → fingerprint.
        name: what people call it, in the terminal and in MLflow; no part of the fingerprint.
    """

    kind: str
    config: Mapping[str, Any]
    code_version: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of kind, code version, config and inputs."""
        return fingerprint(self.kind, self.config, self.inputs, code_version=self.code_version)

    @property
    def job_name(self) -> str:
        """Of the job that makes it; its folder below `JOBS` is there until the stage is."""
        return f"{self.kind}-{self.fingerprint}"
