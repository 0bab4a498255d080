"""What MLflow shows of a stage beyond its config: its data sets, and the params that cells have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from orchestration.store.json_text import JSON
from orchestration.tracking.tracker import About, DatasetUse

# Kind of stage → the splits that it reads.
_SPLITS = {
    "supernet": ("train",),
    "search": ("train", "search_val"),
    "score": ("train", "search_val"),
    "retrain": ("train", "search_val", "test"),
    "detect": ("train", "test"),
}
# A cell's param → where a stage's config has it.
CELL_PARAMS = {
    "trainable": ("supernet", "trainable"),
    "epochs": ("supernet", "epochs"),
    "indicator": ("search", "indicator"),
    "max_flops": ("search", "max_flops"),
    "retrain_epochs": ("retrain", "epochs"),
}


def about(kind: str, config: Mapping[str, JSON]) -> About:
    """Of a stage of this kind and content."""
    params: dict[str, JSON] = {}
    for name, (section, key) in CELL_PARAMS.items():
        values = config.get(section)
        if isinstance(values, Mapping) and key in values:
            params[name] = values[key]
    data = config.get("data")
    if not data:
        return About(params)
    text = json.dumps(data, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    name = str(data["name"]) if isinstance(data, Mapping) and "name" in data else "boxes"
    uses = [DatasetUse(f"{name}-{split}", digest, split, text) for split in _SPLITS[kind]]
    return About(params, uses)
