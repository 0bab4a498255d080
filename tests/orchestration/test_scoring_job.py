"""Parallel scoring: the same scores on any number of actors and after any interruption."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestration.cluster.scaling import Scaling
from orchestration.jobs.failure import JobError
from orchestration.jobs.job_result import JobResult, forget_job
from orchestration.jobs.scoring_job import run_scoring_job
from orchestration.store.storage import StorageError
from tests.orchestration import scorers
from tests.orchestration.records import all_runs, steps
from tests.orchestration.scorers import Climb, Listed, logged
from tests.orchestration.test_train_job import follow, python
from tests.waiting import wait_for

NUM_ROUNDS = 4

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def climb(
    folder: Path, num_actors: int = 1, cpus: float = 1.0, **config: Any
) -> tuple[Climb, JobResult]:
    rounds = Climb(NUM_ROUNDS)
    result = run_scoring_job(
        scorers.make_hill,
        {"log": str(folder / "log"), **config},
        rounds,
        name="climb",
        storage_path=str(folder),
        scaling=Scaling(num_actors, cpus_per_worker=cpus),
    )
    return rounds, result


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Climb, list[dict[str, float]]]:
    """The rounds in this process, without Ray; and the history that they should leave."""
    rounds = Climb(NUM_ROUNDS)
    history: list[dict[str, float]] = []
    config = {"log": str(tmp_path_factory.mktemp("alone") / "log")}
    score = scorers.make_hill(config, "cpu")
    while items := rounds.suggest():
        metrics = rounds.update(items, [score(item) for item in items])
        history.append({"epoch": float(len(history) + 1), **metrics})
    assert len({row["best"] for row in history}) > 1  # each round depends on the ones before
    return rounds, history


Alone = tuple[Climb, list[dict[str, float]]]


@pytest.mark.parametrize("num_actors", [1, 3])
def test_any_number_of_actors_gives_the_same(
    ray_cluster: None, alone: Alone, num_actors: int, tmp_path: Path
) -> None:
    rounds, result = climb(tmp_path, num_actors, 0.5, together=num_actors, item_s=0.02)
    assert (rounds.state_dict(), result.history) == (alone[0].state_dict(), alone[1])
    # Actors have room one after another, and each counts from then on.
    assert 0 < result.wall_s <= 3600 * result.device_hours + 1e-9
    assert 3600 * result.device_hours <= num_actors * result.wall_s + 1e-9
    assert Counter(item for _, item in logged(tmp_path / "log")) == Counter(
        item for item, _ in rounds.scores
    )
    assert len({process for process, _ in logged(tmp_path / "log")}) == num_actors


def test_a_slow_item_holds_up_no_other_and_keeps_its_place(
    ray_cluster: None, tmp_path: Path
) -> None:
    (tmp_path / "done").mkdir()
    rounds = Listed(range(8))
    config = {"folder": str(tmp_path / "done"), "others": 7}
    run_scoring_job(
        scorers.make_slow_first,
        config,
        rounds,
        name="slow",
        storage_path=str(tmp_path),
        scaling=Scaling(2),
    )
    assert rounds.scores == [[item / 3 for item in range(8)]]
    assert len({path.name.partition("-")[2] for path in (tmp_path / "done").iterdir()}) == 1


def test_actors_that_die_within_a_round_change_nothing(
    ray_cluster: None, alone: Alone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    die = [1, 8, 9, 14]
    with caplog.at_level(logging.WARNING):
        rounds, result = climb(tmp_path, 2, die=die)
    assert (rounds.state_dict(), result.history) == (alone[0].state_dict(), alone[1])
    begun = Counter(item for _, item in logged(tmp_path / "log"))
    again = begun - Counter(item for item, _ in rounds.scores)
    assert again.total() == len(die)  # what was in progress, and nothing else
    assert "died (killed, out of memory, or its node was lost); trying again" in caplog.text


def test_a_killed_driver_and_the_same_command_again(
    ray_cluster: None, alone: Alone, tmp_path: Path
) -> None:
    import ray

    log, begun = tmp_path / "log", 15
    program = f"""
        from pathlib import Path
        from orchestration.cluster.connect import cluster
        from tests.orchestration.test_scoring_job import climb
        with cluster({ray.get_runtime_context().gcs_address!r}):
            climb(Path({str(tmp_path)!r}), 2, hold={begun})
    """
    driver = python(program)
    wait_for(lambda: len(logged(log)) >= begun or driver.poll() is not None)
    driver.kill()  # a round has six items
    driver.wait()
    saved = json.loads((tmp_path / "jobs" / "climb" / "rounds.json").read_text())
    assert len(saved["ledger"]["history"]) == 2
    before_s = saved["ledger"]["wall_s"]
    assert before_s > 0

    rounds, result = climb(tmp_path, 2)
    assert (rounds.state_dict(), result.history) == (alone[0].state_dict(), alone[1])
    assert before_s < result.wall_s <= 3600 * result.device_hours + 1e-9
    assert 3600 * result.device_hours <= 2 * result.wall_s + 1e-9
    # What the third round had begun, and nothing else, is begun again.
    assert 24 + begun - 12 <= len(logged(log)) <= 24 + begun - 12 + 1


def test_a_finished_job_starts_nothing_and_is_forgotten(ray_cluster: None, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    seen: list[dict[str, float]] = []

    def run(rounds: Listed) -> JobResult:
        return run_scoring_job(
            scorers.make_echo,
            {},
            rounds,
            name="two",
            storage_path=store,
            on_progress=seen.append,
        )

    rounds = [[-math.inf, math.nan, math.inf], [2.5, 3.5]]  # any score comes as it is
    first = run(Listed(*rounds))
    again = Listed(*rounds)
    second = run(again)
    assert first == second
    assert repr(again.scores) == repr(rounds)
    assert seen == [*first.history, *first.history]
    more = Listed(*rounds, [4.5])
    assert run(more).history == [*first.history, {"epoch": 3, "first": 4.5}]

    # Half a file, as a power cut leaves it: the job starts over instead of failing for ever.
    file = tmp_path / "store" / "jobs" / "two" / "rounds.json"
    file.write_bytes(file.read_bytes()[:40])
    assert run(Listed([7])).history == [{"epoch": 1, "first": 7.0}]
    assert [path.name for path in file.parent.iterdir()] == ["rounds.json"]
    forget_job("two", store)
    assert not file.parent.exists()


def echo(folder: Path, name: str, rounds: Listed, **options: Any) -> None:
    """On two actors, where they have room."""
    arguments = {"name": name, "storage_path": str(folder), "scaling": Scaling(2), **options}
    run_scoring_job(scorers.make_echo, {}, rounds, **arguments)


def failing(tmp_path: Path, **changes: Any) -> None:
    config = {"log": str(tmp_path / "log"), **changes.pop("config")}
    arguments = {"name": "failing", "storage_path": str(tmp_path), "scaling": Scaling(2)}
    run_scoring_job(
        scorers.make_failing, config, Listed([1, 2], [3, 4]), **{**arguments, **changes}
    )


@pytest.mark.parametrize("loading", [False, True])
def test_a_wrong_request_is_not_tried_again(
    ray_cluster: None, sqlite_uri: str, loading: bool, tmp_path: Path
) -> None:
    config = {"error": "value", "loading": loading}
    with pytest.raises(ValueError, match="item 3 has no score") as raised:
        failing(tmp_path, config=config, follow=follow(sqlite_uri))
    assert str(raised.value) == "item 3 has no score"
    assert "in score" in "".join(raised.value.__notes__)  # the actor's traceback
    begun = [item for _, item in logged(tmp_path / "log")]
    assert begun.count(3) <= 1 + loading  # two actors may load at once
    (run,) = all_runs(sqlite_uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["bnnas.error"] == "item 3 has no score"
    if not loading:
        assert steps(sqlite_uri, run.info.run_id, "first") == [1]
    # Whatever was reserved is free.
    echo(tmp_path, "after", Listed([1]))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("runtime", r"failed 3 times; last, worker \d failed with RuntimeError: the fan is loud"),
        ("death", r"failed 3 times; last, the process of worker \d died"),
    ],
)
def test_what_does_not_go_away_fails_the_job(
    ray_cluster: None, error: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=message) as caught:
        failing(tmp_path, config={"error": error}, max_failures=2)
    assert [item for _, item in logged(tmp_path / "log")].count(3) == 3
    if error == "runtime":
        assert "in score" in caught.value.details


def test_two_jobs_that_want_the_whole_cluster_share_it(ray_cluster: None, tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def run(number: int) -> list[list[float]]:
        rounds = Listed([number, 2.0], [3.0])
        together.wait()
        echo(tmp_path, f"job{number}", rounds)
        return rounds.scores

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [0, 1])) == [[[0.0, 2.0], [3.0]], [[1.0, 2.0], [3.0]]]


def head_memory() -> int:
    """Bytes of this process's cluster's GCS."""
    command = ["pgrep", "-P", str(os.getpid()), "gcs_server"]
    pid = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def test_one_actor_is_enough_to_go_on_and_waiting_for_room_asks_for_nothing(
    ray_cluster: None, tmp_path: Path
) -> None:
    import ray

    blocker = scorers.take_core()
    _, result = climb(tmp_path, 2)
    assert len({process for process, _ in logged(tmp_path / "log")}) == 1
    assert 3600 * result.device_hours == pytest.approx(result.wall_s, abs=1e-6)

    other = scorers.take_core()
    seen: list[int] = []
    end_s = time.monotonic() + 5

    def look() -> bool:
        seen.append(head_memory())
        return time.monotonic() < end_s

    with pytest.raises(JobError, match="was stopped"):
        echo(tmp_path, "waiting", Listed([1]), keep_going=look)
    # Asked as fast as the head answers, it would be thousands, and the head remembers them all.
    assert len(seen) <= 12
    assert seen[-1] - seen[0] < 10 * 1024**2
    for each in (blocker, other):
        ray.kill(each)


def test_a_job_that_may_not_go_on_stops_and_can_be_continued(
    ray_cluster: None, alone: Alone, sqlite_uri: str, tmp_path: Path
) -> None:
    seen: list[dict[str, float]] = []

    def run(may_take: int) -> None:
        run_scoring_job(
            scorers.make_hill,
            {"log": str(tmp_path / "log")},
            Climb(NUM_ROUNDS),
            name="climb",
            storage_path=str(tmp_path),
            follow=follow(sqlite_uri),
            on_progress=seen.append,
            keep_going=lambda: len(seen) < may_take,
        )

    with pytest.raises(JobError, match="was stopped"):
        run(may_take=2)
    (shown,) = all_runs(sqlite_uri)
    assert shown.info.status == "RUNNING"
    assert climb(tmp_path)[1].history == alone[1]
    begun = Counter(item for _, item in logged(tmp_path / "log"))
    assert begun.total() <= 6 * NUM_ROUNDS + 1


def test_an_unusable_storage_path_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="storage.path"):
        run_scoring_job(
            scorers.make_echo,
            {},
            Listed([1]),
            name="n",
            storage_path=str(tmp_path / "file" / "below"),
        )
