"""The same work on the machines of a Ray cluster, or on this one with an instance of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from offline.workers import SINGLE_THREAD, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")

RETRIES = 3  # of a task whose process or machine dies


def ray_results(
    function: Callable[[Job, int], Result], job: Job, items: Iterable[int], workers: int
) -> Generator[Result, None, None]:
    """``function(job, item)`` of each item as a Ray task of one core, as they are done.

    A task whose process or machine dies is tried again, so running the function twice must do no harm. The cluster is
    the one that RAY_ADDRESS names; without it, a local instance with so many workers, which ends with the generator.
    `WorkerError` when the cluster cannot be reached, or a task has died `RETRIES` times too often.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise WorkerError("ray is not installed: pip install 'seldrt[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    size = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", runtime_env={"env_vars": SINGLE_THREAD}, **size)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkerError(f"Ray cannot be had: {' '.join(str(error).split())}") from None
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        shared = ray.put(job)
        waiting = [task.remote(shared, item) for item in items]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield ray.get(done[0])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise WorkerError(f"a Ray task died again and again: {type(error).__name__}; what is made stays") from None
    finally:
        ray.shutdown()
