"""Lines for people, beside the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress


class Aside:
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
