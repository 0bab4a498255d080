"""A stage that somebody names by its fingerprint, or by the beginning of it."""

from __future__ import annotations

import re

from experiments.config.section import ConfigError
from orchestration.store.stage_store import StageRecord, StageStore

FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")


def find_stage(text: str, kind: str, storage: str) -> StageRecord:
    """The stage of a kind whose fingerprint is `text` or begins with it.

    Raises ConfigError where there is none, or where several begin so.
    """
    store = StageStore(storage)
    matches = [record for record in store.list(kind) if record.fingerprint.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    what = f"{len(matches)} {kind} stages" if matches else f"no {kind} stage"
    mend = "give more of it" if matches else f"'bnnas status CONFIG' names the stages of {storage}"
    raise ConfigError(
        f"The checkpoint {text!r} is no file, and {what} in {storage} has a fingerprint that "
        f"begins so: {mend}."
    )
