"""Worker processes that use one thread each, so that as many as there are cores do not fight for them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

from seldrt.config import SeldrtError

ShowProgress = Callable[[int, int], None]  # how many are done, of how many

Job = TypeVar("Job")
Item = TypeVar("Item")
Result = TypeVar("Result")

SINGLE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def silent(done: int, total: int) -> None:
    """No progress is shown."""


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes, each begun with ``initializer(*arguments)``.

    When the block ends early, also by Ctrl-C, they end what they have begun, which may be two jobs each, and the rest
    is dropped; on another Ctrl-C they are ended. `WorkerError` when a process dies.

    Libraries read the number of threads when they are imported, so it is set here while processes start.
    """
    if sys.platform == "win32":
        workers = min(workers, 61)  # a pool can wait for no more
    before = {name: os.environ.get(name) for name in SINGLE_THREAD}
    os.environ.update(SINGLE_THREAD)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (initializer, arguments))
    try:
        with _without_interrupts():
            for _ in range(workers):
                pool.submit(int)  # starts one, as long as none is idle
        yield pool
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process was killed, perhaps for want of memory; run the command again, with fewer --workers"
        ) from None
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            for process in active_children():
                process.terminate()
            pool.shutdown()
            raise
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started here do not hear Ctrl-C, which a shell sends to all; here it comes afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also of one that is started later
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    """A parent that is killed can end nobody, and its workers would wait for it for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)


class WorkerError(SeldrtError):
    """A worker process that died, or machines that cannot be reached."""


def results(
    function: Callable[[Job, Item], Result], job: Job, items: Collection[Item], workers: int
) -> Generator[Result, None, None]:
    """``function(job, item)`` of each item, as they are done: in so many processes, or in this one where one will do.

    The function must be importable. `WorkerError` as `worker_pool`.
    """
    if (workers := min(workers, len(items))) <= 1:
        yield from (function(job, item) for item in items)
        return
    with worker_pool(workers, _begin, function, job) as pool:
        for future in as_completed([pool.submit(_call, item) for item in items]):
            yield future.result()


_task: tuple[Callable[[Any, Any], Any], Any]  # of this worker process


def _begin(function: Callable[[Any, Any], Any], job: Any) -> None:
    global _task
    _task = (function, job)


def _call(item: Any) -> Any:
    function, job = _task
    return function(job, item)
