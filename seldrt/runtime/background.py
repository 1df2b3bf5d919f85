"""What threads of their own do, so that the sound never waits: lines for people, files for later."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from seldrt.runtime.health import RECENT_S

Item = TypeVar("Item")


class LineWriter:
    """Says lines from a thread of its own: a terminal that is held, or a pipe that nobody reads, holds nobody up.

    What finds no room is left out, and counted.
    """

    def __init__(self, say: Callable[[str], None], room: int = 1000) -> None:
        self._say = say
        self._lines: queue.Queue[str | None] = queue.Queue(room)
        self._left_out = 0
        self._thread = threading.Thread(target=self._speak, name="lines for people", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        try:
            if self._left_out:
                self._lines.put_nowait(f"... {self._left_out} lines left out: nobody read them")
                self._left_out = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def _speak(self) -> None:
        while (line := self._lines.get()) is not None:
            self._say(line)

    def close(self) -> None:
        """What was said has half a second to be read."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(0.5)


class BackgroundWorker(Generic[Item]):
    """Hands items to ``work`` in a thread of its own, so that no disk holds the giver up; see `complaint`."""

    def __init__(self, work: Callable[[Item], None], name: str, room: int = 50) -> None:
        self._work = work
        self._waiting: queue.Queue[Item | None] = queue.Queue(room)
        self._trouble, self._trouble_s, self._failed = "", -RECENT_S, False
        self._thread = threading.Thread(target=self._do, name=name, daemon=True)
        self._thread.start()

    def give(self, item: Item) -> None:
        """Never waits; what finds no room is left out."""
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._complain("the disk is too slow, some are left out")

    def complaint(self) -> str:
        """What came to nothing lately or at the last try, and why; empty when all is well."""
        return self._trouble if self._failed or time.monotonic() - self._trouble_s < RECENT_S else ""

    def close(self) -> None:
        """What waits is done."""
        self._waiting.put(None)
        self._thread.join()

    def _do(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._work(item)
                self._failed = False
            except Exception as error:  # the next one may do
                self._complain(str(error) or type(error).__name__)
                self._failed = True

    def _complain(self, trouble: str) -> None:
        self._trouble, self._trouble_s = trouble, time.monotonic()
