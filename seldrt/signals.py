"""An orderly end, when the system or somebody at the keyboard asks for one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# From the keyboard, by the system, when the terminal closes (unless `nohup` made that ignored) and, on Windows, by
# Ctrl-Break.
STOPPING = tuple(
    number
    for number in signal.Signals
    if number.name in ("SIGINT", "SIGTERM", "SIGBREAK")
    or (number.name == "SIGHUP" and signal.getsignal(number) is not signal.SIG_IGN)
)
SAME_WISH_S = 0.5  # signals so close together ask for one orderly end


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The signals `STOPPING` call ``stop``; another one after `SAME_WISH_S` ends the process at once.

    Before that it is the same wish told twice: `timeout` and shells signal a process and then its group. So it is while
    files are ended after the block, too.
    """
    first_s: float | None = None

    def wished(number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        if first_s is None:
            first_s = time.monotonic()
            stop()
        elif time.monotonic() - first_s > SAME_WISH_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.signal(number, wished) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items() if first_s is None else ():
            signal.signal(number, handler)
