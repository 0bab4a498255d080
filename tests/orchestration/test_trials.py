"""Tasks as Tune trials: each ends by itself, a process that dies is started again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestration.jobs.trials import Trial, TrialResult, max_concurrent, run_tasks
from tests.orchestration import jobs


@pytest.mark.parametrize(
    ("jobs_at_once", "sharing", "driver_room", "num_tasks", "expected"),
    [
        (2, 2, 40, 17, 4),  # two may wait for two supernets, two jobs run
        (8, 2, 5, 17, 5),  # memory is short
        (8, 3, 40, 17, 17),  # no more than there are
        (1, 1, 0, 17, 1),  # too little memory is no reason to do nothing
    ],
)
def test_as_many_drivers_as_find_work(
    jobs_at_once: int, sharing: int, driver_room: int, num_tasks: int, expected: int
) -> None:
    assert max_concurrent(jobs_at_once, sharing, driver_room, num_tasks) == expected


def run(
    folder: Path, *arguments: dict[str, Any], num_at_once: int = 2, **options: Any
) -> tuple[list[TrialResult[Any]], dict[int, list[Any]]]:
    """The results, and every task's events."""
    events: dict[int, list[Any]] = {}
    ends: dict[int, TrialResult[Any]] = {}

    def on_event(index: int, event: Mapping[str, Any]) -> None:
        events.setdefault(index, []).append(event)

    results = run_tasks(
        jobs.count_down,
        [
            Trial(f"task {index}", {**argument, "marks": str(folder)}, argument)
            for index, argument in enumerate(arguments)
        ],
        num_at_once=num_at_once,
        max_failures=1,
        on_event=on_event,
        on_end=ends.__setitem__,
        **options,
    )
    assert ends == dict(enumerate(results))
    return results, events


@pytest.mark.ray
def test_each_task_ends_by_itself_and_reports_in_order(ray_cluster: None, tmp_path: Path) -> None:
    results, events = run(
        tmp_path,
        {"from": 3},
        {"from": 2, "raise": "the fan is loud"},
        {"from": 2, "die": "once"},
        {"from": 1, "die": "always"},
        {"from": 1},
    )
    assert results[0] == TrialResult({"counted": 3}, None)
    assert results[1] == TrialResult(None, "the fan is loud")
    assert results[2] == TrialResult({"counted": 2}, None)
    assert results[3].value is None
    assert "the process of its driver died" in str(results[3].error)
    assert results[4] == TrialResult({"counted": 1}, None)
    assert events[0] == [{"left": 2}, {"left": 1}, {"left": 0}]
    assert events[2] == [{"left": 1}, {"left": 0}]  # it died before it reported anything


@pytest.mark.ray
def test_tune_and_a_callback_of_its_user_see_points_of_a_grid_with_numbers(
    ray_cluster: None, tmp_path: Path
) -> None:
    from ray import tune

    seen: list[tuple[str, dict[str, Any], Any]] = []

    class Reader(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            seen.append((str(trial), trial.config, trial.last_result.get("top1")))

        def __getstate__(self) -> dict[str, Any]:
            return {}

    points = [{"from": 2, "epochs": 30}, {"from": 1, "seed": 7}]
    run(
        tmp_path,
        *points,
        num_at_once=1,
        metrics_of=lambda value: {"top1": value["counted"] / 10},
        callbacks=[Reader()],
    )
    assert sorted(seen, key=lambda each: each[0]) == [
        ("task-0", {"name": "task 0", "from": 2, "epochs": 30, "seed": None}, 0.2),
        ("task-1", {"name": "task 1", "from": 1, "epochs": None, "seed": 7}, 0.1),
    ]


@pytest.mark.ray
def test_a_task_that_is_started_again_keeps_its_place(ray_cluster: None, tmp_path: Path) -> None:
    """Tune puts such a trial at the end of its list."""
    results, _ = run(tmp_path, {"from": 2, "die": "once"}, {"from": 1})
    assert [result.value for result in results] == [{"counted": 2}, {"counted": 1}]


@pytest.mark.ray
def test_no_more_at_once_than_asked_for(ray_cluster: None, tmp_path: Path) -> None:
    arguments = [{"from": 2, "alone": True} for _ in range(3)]
    results, _ = run(tmp_path, *arguments, num_at_once=1)
    assert [result.error for result in results] == [None, None, None]
