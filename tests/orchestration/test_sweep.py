"""Tasks as Tune trials: each ends by itself, a process that dies is started again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestration.jobs import trials as sweep
from orchestration.jobs.trials import Ended, max_concurrent, run_tasks
from tests.orchestration import jobs

pytestmark = [pytest.mark.ray]


@pytest.mark.parametrize(
    ("jobs_at_once", "sharing", "driver_room", "num_tasks", "expected"),
    [
        (2, 2, 40, 17, 4),  # two may wait for two supernets, two jobs run
        (1, 1, 40, 17, 1),
        (8, 2, 5, 17, 5),  # memory is short
        (8, 3, 40, 17, 17),  # no more than there are
        (1, 1, 0, 17, 1),  # too little memory is no reason to do nothing
    ],
)
def test_as_many_drivers_as_find_work(
    jobs_at_once: int, sharing: int, driver_room: int, num_tasks: int, expected: int
) -> None:
    assert max_concurrent(jobs_at_once, sharing, driver_room, num_tasks) == expected


class Heard:
    """Everything that the drivers told."""

    def __init__(self) -> None:
        self.events: dict[int, list[Any]] = {}
        self.ends: dict[int, Ended] = {}

    def event(self, index: int, event: Mapping[str, Any]) -> None:
        self.events.setdefault(index, []).append(event)

    def end(self, index: int, ended: Ended) -> None:
        self.ends[index] = ended


def run(arguments: list[dict[str, Any]], num_at_once: int = 2) -> tuple[list[Ended], Heard]:
    heard = Heard()
    ended = run_tasks(
        jobs.count_down,
        arguments,
        num_at_once=num_at_once,
        max_failures=1,
        on_event=heard.event,
        on_end=heard.end,
    )
    return ended, heard


def test_each_task_ends_by_itself_and_reports_in_order(ray_cluster: None, tmp_path: Path) -> None:
    marks = str(tmp_path)
    ended, heard = run(
        [
            {"from": 3, "marks": marks},
            {"from": 2, "marks": marks, "raise": "the fan is loud"},
            {"from": 2, "marks": marks, "die": "once"},
            {"from": 1, "marks": marks, "die": "always"},
            {"from": 1, "marks": marks},
        ]
    )
    assert ended[0] == Ended({"counted": 3}, None)
    assert ended[1] == Ended(None, "the fan is loud")
    assert ended[2] == Ended({"counted": 2}, None)
    assert ended[3].value is None
    assert "died" in str(ended[3].error)
    assert ended[4] == Ended({"counted": 1}, None)
    assert heard.events[0] == [{"left": 2}, {"left": 1}, {"left": 0}]
    assert heard.events[2] == [{"left": 1}, {"left": 0}]  # it died before it said anything
    assert {index: heard.ends[index] for index in (0, 1, 2, 4)} == {
        index: ended[index] for index in (0, 1, 2, 4)
    }


def test_no_more_at_once_than_asked_for(ray_cluster: None, tmp_path: Path) -> None:
    arguments = [{"from": 2, "marks": str(tmp_path), "alone": True, "n": n} for n in range(3)]
    ended, _ = run(arguments, num_at_once=1)
    assert [end.error for end in ended] == [None, None, None]


def test_a_process_that_died_before_tune_heard_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tune then knows nothing of the trial but its name: the result has no config."""
    from ray.exceptions import ActorDiedError
    from ray.tune import Result

    def fit(*_: Any) -> list[Result]:
        lost = Result({"trial_id": "1"}, None, ActorDiedError(), str(tmp_path))
        done = Result({"trial_id": "2", "value": {"counted": 1}}, None, None, str(tmp_path))
        return [lost, done]

    monkeypatch.setattr(sweep, "_fit", fit)
    (lost, done), _ = run([{"from": 1}, {"from": 1}])
    assert lost.value is None
    assert "its driver" in str(lost.error)
    assert done == Ended({"counted": 1}, None)
