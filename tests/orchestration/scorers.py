"""Rounds and scorers for the tests: Ray's actors import the scorers from here."""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.jobs.scorer_pool import Score
from tests.waiting import wait_for


class Climb:
    """Draws items around the best one so far: what a round is depends on every score before it."""

    def __init__(self, num_rounds: int, num_items: int = 6, seed: int = 3) -> None:
        self.num_rounds = num_rounds
        self.num_items = num_items
        self.scores: list[tuple[int, float]] = []
        self._done = 0
        self._rng = random.Random(seed)

    def suggest(self) -> list[int]:
        if self._done == self.num_rounds:
            return []
        best = max((score, item) for item, score in [(500, -math.inf), *self.scores])[1]
        draw = random.Random()
        draw.setstate(self._rng.getstate())
        return [best + draw.randint(-100, 100) for _ in range(self.num_items)]

    def update(self, items: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
        assert list(items) == self.suggest()
        self.scores += zip(items, scores, strict=True)
        self._done += 1
        self._rng.random()
        return {"best": max(score for _, score in self.scores), "last": scores[-1]}

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = self._rng.getstate()
        return {"scores": self.scores, "done": self._done, "rng": [version, numbers, gauss]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scores = [(item, score) for item, score in state["scores"]]
        self._done = state["done"]
        version, numbers, gauss = state["rng"]
        self._rng.setstate((version, tuple(numbers), gauss))


class Listed:
    """Rounds that are known beforehand; it remembers the scores as they came."""

    def __init__(self, *rounds: Sequence[Any]) -> None:
        self.rounds = list(rounds)
        self.scores: list[list[float]] = []

    def suggest(self) -> Sequence[Any]:
        return self.rounds[len(self.scores)] if len(self.scores) < len(self.rounds) else []

    def update(self, items: Sequence[Any], scores: Sequence[float]) -> dict[str, float]:
        self.scores.append(list(scores))
        return {"first": scores[0]}

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scores = state["scores"]


def make_hill(config: dict[str, Any], device: str) -> Score:
    """A bumpy hill. `log` is a file that gets a line for every item: the process and the item.

    For each number in `die`, one process dies when so many lines are there; `item_s` is a pause.
    Where `together` is set, no actor begins before so many are loaded; where `hold` is set, nothing
    is finished once so many lines are there.
    """
    assert device == "cpu"
    log = Path(config["log"])
    log.with_name(f"loaded-{os.getpid()}").touch()
    wait_for(lambda: len(list(log.parent.glob("loaded-*"))) >= config.get("together", 1))

    def score(item: int) -> float:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {item}\n")
        time.sleep(config.get("item_s", 0.0))
        num_begun = len(logged(log))
        while num_begun >= config.get("hold", math.inf):
            time.sleep(1)
        for number in config.get("die", []):
            mark = log.with_name(f"died-{number}")
            with contextlib.suppress(FileExistsError):  # of two at once, one dies
                if num_begun >= number:
                    mark.touch(exist_ok=False)
                    os._exit(1)
        return math.sin(item) - ((item - 800) / 100) ** 2

    return score


class _Blocker:
    def ready(self) -> bool:
        return True


def take_core() -> Any:
    """An actor that has one core and does nothing."""
    import ray

    actor: Any = ray.remote(_Blocker).options(num_cpus=1).remote()
    ray.get(actor.ready.remote())
    return actor


def logged(path: Path) -> list[tuple[int, int]]:
    """The (process, item) of every scoring that was begun."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(int(process), int(item)) for process, item in (line.split() for line in lines)]


def make_slow_first(config: dict[str, Any], device: str) -> Score:
    """Item 0 is not done before all the others are."""
    folder = Path(config["folder"])

    def score(item: int) -> float:
        if item == 0:
            wait_for(lambda: len(list(folder.iterdir())) == config["others"])
        if item > 0:
            (folder / f"{item}-{os.getpid()}").touch()
        return item / 3

    return score


def make_echo(config: dict[str, Any], device: str) -> Score:
    """The item is its score."""
    return float


def make_failing(config: dict[str, Any], device: str) -> Score:
    """`error` happens at item 3, or while loading where `loading` is set."""
    errors = {
        "value": ValueError("item 3 has no score"),
        "runtime": RuntimeError("the fan is loud"),
    }
    log = Path(config["log"])

    def score(item: int) -> float:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {item}\n")
        if item == 3 and config["error"] == "death":
            os._exit(1)
        if item == 3:
            raise errors[config["error"]]
        return float(item)

    if config.get("loading"):
        score(3)
    return score
