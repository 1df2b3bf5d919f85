"""How the daemon is: the figures of the status."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

RECENT_S = 10.0  # how long trouble and latencies count as present
DEAF_S = 3.0  # without any samples
TELLING_S = 1.0  # of sound, lately: less does not tell how fast the computation is, unless that took all the time


class Health:
    """The figures of the status: what was lost, how fast the computation is, how old what it says."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._start_s = self._heard_s = time.monotonic()
        self._latencies_ms: deque[tuple[float, float]] = deque()  # (when, latency)
        self._computations: deque[tuple[float, float, int]] = deque()  # (when, seconds, samples)
        self._lost_s = self._overrun_s = -RECENT_S  # when samples were lost last
        self._overruns = 0
        self.lost_samples = 0
        self.computed_s = 0.0

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._start_s

    def computed(self, seconds: float, samples: int) -> None:
        """So many samples took so many seconds of computation."""
        now_s = time.monotonic()
        if samples:
            self._heard_s = now_s
        self.computed_s += seconds
        self._computations.append((now_s, seconds, samples))
        _forget(self._computations)

    def published(self, latency_ns: int) -> None:
        """A label frame went out so long after the newest sample that it needed."""
        self._latencies_ms.append((time.monotonic(), latency_ns / 1e6))
        _forget(self._latencies_ms)

    def lost(self, samples: int) -> None:
        """So many samples were never heard."""
        self._lost_s = time.monotonic()
        self.lost_samples += samples

    def real_time_factor(self) -> float | None:
        """Seconds of computation for a second of sound, lately; None before any sound."""
        computed_s, heard_s = self._lately()
        return round(computed_s / heard_s, 4) if heard_s else None

    def _lately(self) -> tuple[float, float]:
        """Seconds of computation, and of the sound that it was for."""
        _forget(self._computations)
        samples = sum(entry[2] for entry in self._computations)
        return sum(entry[1] for entry in self._computations), samples / self._sample_rate

    def latencies_ms(self) -> tuple[float | None, float | None, float | None]:
        """p50, p95 and p99 of the last seconds; None before the first label frame."""
        _forget(self._latencies_ms)
        if not self._latencies_ms:
            return None, None, None
        p50, p95, p99 = np.percentile([entry[1] for entry in self._latencies_ms], [50, 95, 99])
        return round(float(p50), 3), round(float(p95), 3), round(float(p99), 3)

    @property
    def unheard_s(self) -> float:
        """Seconds since samples were computed last."""
        return time.monotonic() - self._heard_s

    def complaints(self, overruns: int, device_away: bool = False, waits: bool = False) -> dict[str, str]:
        """What is wrong, lately, by what it is wrong with; without a device silence is no news.

        ``waits``: the sound does, for who computes.
        """
        now_s, factor = time.monotonic(), self.real_time_factor()
        computed_s, heard_s = self._lately()
        slow = heard_s < computed_s and (heard_s >= TELLING_S or computed_s > RECENT_S / 2) and not waits
        if overruns > self._overruns:
            self._overruns, self._overrun_s = overruns, now_s
        recent = f"in the last {RECENT_S:.0f} s"
        return {
            what: text
            for what, text, wrong in (
                ("loss", f"samples were lost {recent}", now_s - self._lost_s < RECENT_S),
                ("overrun", f"the device or the ring ran over {recent}", now_s - self._overrun_s < RECENT_S),
                ("speed", f"too slow: real-time factor {factor}", factor is not None and slow),
                ("sound", f"no samples for {self.unheard_s:.0f} s", self.unheard_s > DEAF_S and not device_away),
            )
            if wrong
        }


def _forget(entries: deque[Any]) -> None:
    before_s = time.monotonic() - RECENT_S
    while entries and entries[0][0] < before_s:
        entries.popleft()
