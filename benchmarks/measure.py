"""Interleaved rounds of process CPU time, and what becomes of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: the median, least and greatest of its rounds, and how many times the first row's of its table."""

    name: str
    median: float
    least: float
    greatest: float
    times: float
    target: str = ""


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int, per: Mapping[str, float], targets: Mapping[str, str]
) -> list[Row]:
    """CPU seconds of one call of each way, divided by ``per``; the first call of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    for _ in range(rounds):
        for name, call in ways.items():
            began = time.process_time()
            call()
            seconds[name].append((time.process_time() - began) / per[name])
    return rows(seconds, targets)


def rows(values: Mapping[str, list[float]], targets: Mapping[str, str]) -> list[Row]:
    """A row for each name, in order."""
    first = statistics.median(next(iter(values.values())))
    return [
        Row(
            name,
            statistics.median(found),
            min(found),
            max(found),
            statistics.median(found) / first,
            targets.get(name, ""),
        )
        for name, found in values.items()
    ]
