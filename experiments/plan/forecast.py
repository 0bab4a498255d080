"""What the missing stages of an experiment would cost, before any of it is spent.

Costs are device hours: hours of a worker's GPU, or of a worker's cores without one. They come from
earlier runs in the same store where one is comparable, else from `experiments.stages.probe`, and
grow with the epochs, or where architectures are scored with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.plan.graph import PlannedStage, StageList
from nas.cost import flops_table
from nas.indicators import INDICATORS
from nas.space import parse_architecture, space_from_dict
from orchestration.store.fingerprint import fingerprint
from orchestration.store.json_text import JSON
from orchestration.store.stage import Stage
from orchestration.store.stage_store import StageRecord, StageStore

# The section of a stage's config that says what an epoch, or a candidate, costs; else its kind's.
_SECTIONS = {"score": "search"}
# The fields of that section that make one cheaper or dearer.
_DECISIVE = {
    "supernet": ("batch_size", "precision", "trainable", "sampler"),
    "search": ("indicator", "recalibration_images", "batch_size"),
    "retrain": ("batch_size", "precision"),
    "detect": ("batch_size", "precision", "image_size", "val_interval", "data", "options"),
}
UNKNOWN = "nothing comparable has run yet"
ROUND = 10  # architectures that are scored at once; an interruption costs no more
# Where architectures are scored, the metric that counts them.
_NUM_SCORED = {"search": "num_evaluated", "score": "num_scored"}


@dataclass(frozen=True)
class Rate:
    """What stages of one kind cost.

    Attributes:
        hours: device hours for an epoch, or for an architecture that is scored.
        once_hours: device hours that a stage takes besides, however long it is.
        flops: of the network that was retrained; None for other kinds.
        basis: how that is known.
    """

    hours: float
    once_hours: float
    flops: float | None
    basis: str


Measure = Callable[[PlannedStage], Rate | str]
"""Measures a stage's rate; or says why it cannot."""


@dataclass(frozen=True)
class Estimate:
    """Device hours that a stage still takes, None if unknown, and how that is known."""

    device_hours: float | None
    basis: str


@dataclass(frozen=True)
class Forecast:
    """The stages of an experiment and what each would cost, in the same order."""

    listed: StageList
    estimates: tuple[Estimate, ...]

    @property
    def num_cached(self) -> int:
        """How many stages are in the store."""
        return sum(one.record is not None for one in self.listed.stages)

    @property
    def num_missing(self) -> int:
        """How many are to be made, at most."""
        return len(self.listed.stages) - self.num_cached

    @property
    def known_hours(self) -> float:
        """The device hours of all stages for which they are known."""
        return sum(estimate.device_hours or 0.0 for estimate in self.estimates)

    @property
    def device_hours(self) -> float | None:
        """What is missing costs so much; None if that is unknown for a part of it."""
        is_whole = all(estimate.device_hours is not None for estimate in self.estimates)
        return self.known_hours if is_whole else None

    def to_json(self) -> dict[str, Any]:
        """What `bnnas plan --json` prints."""
        return {
            "name": self.listed.name,
            "stages": [
                {
                    "kind": one.stage.kind,
                    "name": one.name,
                    "fingerprint": one.fingerprint,
                    "cached": one.record is not None,
                    "device_hours_estimate": estimate.device_hours,
                    "basis": estimate.basis,
                    "cells": list(one.members),
                }
                for one, estimate in zip(self.listed.stages, self.estimates, strict=True)
            ],
            "device_hours_estimate": self.device_hours,
            "num_cached": self.num_cached,
            "num_missing": self.num_missing,
        }


def forecast(listed: StageList, store: StageStore, measure: Measure | None) -> Forecast:
    """Estimate every stage that is not in the store; without `measure`, from earlier runs only."""
    earlier: dict[str, list[StageRecord]] = {}
    if any(one.record is None for one in listed.stages):
        earlier = _by_likeness(store.list())
    return Forecast(listed, tuple(_estimate(one, earlier, measure) for one in listed.stages))


def likeness(kind: str, config: Mapping[str, Any]) -> str:
    """The same for stages whose epochs, or candidates, cost the same on the same machine.

    A retraining's architecture is no part of it: retrainings are compared by their FLOPs. Neither
    is a detector's backbone, of which there are few in one experiment. A search scores its
    candidates as a correlation study its architectures.
    """
    section = _SECTIONS.get(kind, kind)
    alike: dict[str, JSON] = {"space": config.get("space"), "data": config.get("data")}
    alike |= {field: config[section].get(field) for field in _DECISIVE[section]}
    return fingerprint(section, alike, code_version=1)


def num_epochs(stage: Stage) -> int | None:
    """The epochs, or rounds of scoring, of a stage at most; None of one that is computed."""
    if _is_computed(stage):
        return None
    match stage.kind:
        case "search":
            return int(stage.config["search"]["evolution"]["num_iterations"])
        case "score":
            return -(-num_units(stage) // ROUND)
        case _:
            return num_units(stage)


def num_units(stage: Stage) -> int:
    """Epochs of a training, or architectures to score, that a stage consists of at most."""
    match stage.kind:
        case "search":
            evolution = stage.config["search"]["evolution"]
            num_candidates = int(evolution["num_iterations"] * evolution["population"])
            return min(num_candidates, space_from_dict(stage.config["space"]).num_architectures)
        case "score":
            return len(stage.config["archs"])
        case kind:
            return int(stage.config[kind]["epochs"])


def _is_computed(stage: Stage) -> bool:
    """Whether a stage is a search over a table: no job, and a matter of milliseconds."""
    return stage.kind == "search" and INDICATORS[stage.config["search"]["indicator"]].additive


def _estimate(
    one: PlannedStage, earlier: Mapping[str, Sequence[StageRecord]], measure: Measure | None
) -> Estimate:
    kind, config = one.stage.kind, one.stage.config
    if one.record is not None:
        return Estimate(0.0, "in the store")
    if _is_computed(one.stage):
        return Estimate(0.0, "computed, no job")
    rate: Rate | str
    if comparable := earlier.get(likeness(kind, config)):
        rate = _rate_of(comparable)
    else:
        rate = UNKNOWN if measure is None else measure(one)
    if isinstance(rate, str):
        return Estimate(None, rate)
    hours = rate.hours * num_units(one.stage)
    if rate.flops is not None and one.is_known:
        arch = parse_architecture(config["arch"])
        hours *= flops_table(space_from_dict(config["space"])).of(arch) / rate.flops
    return Estimate(hours + rate.once_hours, rate.basis)


def _rate_of(records: Sequence[StageRecord]) -> Rate:
    """The mean over comparable stages, a long one counting for more."""
    units = [_units_done(record) for record in records]
    flops = None
    if records[0].kind == "retrain":
        done = zip(units, records, strict=True)
        flops = sum(number * record.metrics["flops"] for number, record in done) / sum(units)
    hours = [_unit_hours(record) for record in records]
    all_hours = sum(record.device_hours for record in records)
    return Rate(
        hours=sum(hours) / sum(units),
        once_hours=(all_hours - sum(hours)) / len(records),
        flops=flops,
        basis=f"{len(records)} earlier run{'s' if len(records) > 1 else ''}",
    )


def _unit_hours(record: StageRecord) -> float:
    """Device hours that grew with the epochs; the rest is starting workers, loading, and the like.

    Where architectures are scored all of them: the rounds do not say how long they took.
    """
    if record.kind in _NUM_SCORED:
        return record.device_hours
    epochs_s = sum(row["train/epoch_s"] + row.get("val/epoch_s", 0.0) for row in record.history)
    return record.device_hours * min(1.0, epochs_s / record.wall_s)


def _units_done(record: StageRecord) -> float:
    metric = _NUM_SCORED.get(record.kind)
    return float(len(record.history)) if metric is None else record.metrics[metric]


def _by_likeness(records: Iterable[StageRecord]) -> dict[str, list[StageRecord]]:
    """The stages that were jobs, those that compare together."""
    groups: dict[str, list[StageRecord]] = {}
    for record in records:
        if _SECTIONS.get(record.kind, record.kind) in _DECISIVE and record.history:
            groups.setdefault(likeness(record.kind, record.config), []).append(record)
    return groups
