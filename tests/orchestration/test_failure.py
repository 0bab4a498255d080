from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.jobs import train_job
from orchestration.jobs.failure import (
    Decision,
    JobStoppedError,
    causes_of,
    decide,
    describe,
    final_error,
)
from orchestration.jobs.job_result import Observer

CRASH = None  # stands for Ray's error about a process that died
BUG = TypeError("unsupported operand")
REQUEST = ValueError("data.root is missing")
HICCUP = RuntimeError("connection closed by peer")
LACKING = NotImplementedError("\"linalg_eig_out_cpu\" not implemented for 'Half'")


@pytest.mark.parametrize(
    ("causes", "num_failures", "max_failures", "expected"),
    [
        ([CRASH], 1, 3, Decision.RETRY),
        ([CRASH], 3, 3, Decision.RETRY),
        ([CRASH], 4, 3, Decision.GIVE_UP),
        ([CRASH], 1, 0, Decision.GIVE_UP),
        ([HICCUP], 1, 1, Decision.RETRY),
        ([OSError("stale file handle")], 1, 1, Decision.RETRY),
        ([REQUEST], 1, 3, Decision.GIVE_UP),
        ([BUG], 1, 3, Decision.GIVE_UP),
        ([KeyError("missing")], 1, 3, Decision.GIVE_UP),
        # What torch.linalg.eigvals raises for half precision on a CPU. A RuntimeError by its class,
        # but no hiccup: that operation will be missing the next time, too.
        ([LACKING], 1, 3, Decision.GIVE_UP),
        # The other ranks fail too when one has: the one that says why decides.
        ([HICCUP, REQUEST], 1, 3, Decision.GIVE_UP),
        ([CRASH, HICCUP], 1, 3, Decision.RETRY),
    ],
)
def test_decisions(
    causes: list[Exception | None], num_failures: int, max_failures: int, expected: Decision
) -> None:
    from ray.exceptions import RayActorError

    errors = [RayActorError() if cause is None else cause for cause in causes]
    assert decide(errors, num_failures, max_failures) is expected


def test_a_wrong_request_comes_back_as_it_was_raised() -> None:
    from ray.train import WorkerGroupError

    error = WorkerGroupError("a wall of traceback", {1: HICCUP, 0: REQUEST})
    causes = causes_of(error)
    assert list(causes) == [0, 1]
    assert final_error("job", causes, 1, str(error)) is REQUEST


def test_a_failed_job_says_who_why_and_how_often() -> None:
    from ray.exceptions import RayActorError
    from ray.train import WorkerGroupError

    error = WorkerGroupError("a wall of traceback", {1: HICCUP})
    final = final_error("retrain-ab12", causes_of(error), 4, str(error))
    assert str(final) == (
        "Job retrain-ab12 failed 4 times; last, worker 1 failed with RuntimeError: "
        "connection closed by peer."
    )
    assert "died" in describe({-1: RayActorError()})


def test_a_cluster_that_goes_away_stops_a_job_and_nothing_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray

    observed: list[str] = []

    def attempt(*_: object) -> None:
        raise ray.exceptions.RaySystemError("the raylet is gone")

    monkeypatch.setattr(train_job._Job, "attempt", attempt)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(Observer, "fail", lambda *_: observed.append("failed"))
    with pytest.raises(JobStoppedError, match="what it has reached stays"):
        train_job.run_train_job(
            lambda config, context: None, {}, name="n", storage_path=str(tmp_path), max_failures=1
        )
    assert observed == []
