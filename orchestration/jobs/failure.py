"""What to do when an attempt at a job fails: a decision, apart from what carries it out.

Ray Train's own retry counts failures and does not look at them, so that a typing error in a
config would be tried four times. Ray is therefore configured to fail at once, and :func:`decide`
says whether to start it again from the last checkpoint. Preempted nodes and elastic resizing stay
with Ray, which treats them as no failure at all.
"""

from __future__ import annotations

import enum
import functools
import traceback
from collections.abc import Iterable, Mapping

# Errors of the request or of the program: they come again however often the job is started.
FINAL_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    AssertionError,
    ImportError,
    NotImplementedError,  # PyTorch's for an operation that the device or the precision lacks
    ZeroDivisionError,
)


class Decision(enum.Enum):
    """What follows a failed attempt."""

    RETRY = "retry"
    GIVE_UP = "give up"


class JobError(RuntimeError):
    """A job failed for good; the message says why, on which rank, and after how many attempts.

    Attributes:
        details: the workers' tracebacks.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class JobStoppedError(JobError):
    """A job was interrupted, and can be continued: nothing is known to be wrong with it."""


def decide(causes: Iterable[BaseException], num_failures: int, max_failures: int) -> Decision:
    """Whether to start again from the last checkpoint.

    Args:
        causes: what the failed attempt's workers raised; a worker that died counts with the
            error that Ray reports for it.
        num_failures: how many attempts have failed by now, this one included.
        max_failures: how many may fail before the job does.
    """
    if any(isinstance(cause, FINAL_ERRORS) for cause in causes):
        return Decision.GIVE_UP
    return Decision.RETRY if num_failures <= max_failures else Decision.GIVE_UP


@functools.cache
def attempt_errors() -> tuple[type[Exception], ...]:
    """What Ray Train's ``fit`` raises when an attempt fails, its controller's death included."""
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    return (TrainingFailedError, RayError)


def causes_of(error: Exception) -> dict[int, BaseException]:
    """Why an attempt failed: rank → what that worker raised; −1 stands for the job itself."""
    from ray.exceptions import RayTaskError
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, WorkerGroupError) and error.worker_failures:
        # For a worker that does not answer, Ray Train wraps the reason why.
        return {
            rank: getattr(cause, "health_check_failure", cause)
            for rank, cause in sorted(error.worker_failures.items())
        }
    cause: BaseException = error
    if isinstance(cause, ControllerError):
        cause = cause.controller_failure
    if isinstance(cause, RayTaskError) and cause.cause is not None:
        cause = cause.cause
    return {-1: cause}


def describe(causes: Mapping[int, BaseException]) -> str:
    """One short sentence about the first cause."""
    from ray.exceptions import RayActorError

    rank, cause = next(iter(causes.items()))
    who = "the job" if rank < 0 else f"worker {rank}"
    if isinstance(cause, RayActorError):
        return f"the process of {who} died (killed, out of memory, or its node was lost)"
    text = (str(cause).strip() or "no message").splitlines()[0]
    return f"{who} failed with {type(cause).__name__}: {text}"


def traceback_of(error: BaseException) -> str:
    """Where it came from: of a job, its workers' tracebacks."""
    if isinstance(error, JobError) and error.details:
        return error.details
    return "".join(traceback.format_exception(error))


def final_error(
    name: str, causes: Mapping[int, BaseException], num_failures: int, details: str
) -> Exception:
    """What the caller of a job gets to see: a worker's ValueError itself, else a JobError."""
    for cause in causes.values():
        if isinstance(cause, ValueError):
            cause.add_note(details)
            return cause
    times = "once" if num_failures == 1 else f"{num_failures} times"
    return JobError(f"Job {name} failed {times}; last, {describe(causes)}.", details)
