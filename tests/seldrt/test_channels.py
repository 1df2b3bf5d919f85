"""Faults of channels, made one by one, and a healthy microphone that is never blamed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from seldrt.runtime.channels import PATIENCE_S, ChannelCheck

RATE = 48000
BLOCK = 960


def noise(seconds: float, level: float = 0.01, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((round(seconds * RATE), 4)) * level
    return (np.round(x * 2**15) / 2**15).astype(np.float32)  # as a converter of 16 bits


def push(check: ChannelCheck, x: np.ndarray) -> None:
    for start in range(0, len(x), BLOCK):
        check.push(x[start : start + BLOCK])


def dead(x: np.ndarray) -> None:
    x[:, 1] = 0


def stuck(x: np.ndarray) -> None:
    x[:, 1] = 0.25


def clipped(x: np.ndarray) -> None:
    x[:, 1] = np.clip(400 * x[:, 1], -1, 32767 / 32768)


def clipped_evenly(x: np.ndarray) -> None:
    x[:, 1] = np.clip(400 * x[:, 1], -32767 / 32768, 32767 / 32768)


def clipped_below(x: np.ndarray) -> None:
    x[:, 1] = np.clip(400 * x[:, 1], -1, 0.5)


def copied(x: np.ndarray) -> None:
    x[:, 3] = x[:, 1]


def inverted(x: np.ndarray) -> None:
    x[:, 3] = -x[:, 1]


def silent(x: np.ndarray) -> None:
    x[:] = 0


def no_number(x: np.ndarray) -> None:
    x[::5000, 1] = np.nan


def no_sound(x: np.ndarray) -> None:
    x[::5000, 1] = 3e38


def no_sound_below(x: np.ndarray) -> None:
    x[::5000, 1] = -3e38


@pytest.mark.parametrize(
    ("fault", "what", "text"),
    [
        (dead, "channel 2", "dead: nothing but zeros"),
        (stuck, "channel 2", "stuck at 0.2500"),
        (clipped, "channel 2", "clipped"),
        (clipped_evenly, "channel 2", "clipped"),
        (clipped_below, "channel 2", "clipped"),
        (copied, "channels 2 and 4", "the same:"),
        (inverted, "channels 2 and 4", "the same with opposite signs"),
        (silent, "all channels", "muted"),
        (no_number, "channel 2", "no numbers"),
        (no_sound, "channel 2", "beyond 1000 times full scale"),
        (no_sound_below, "channel 2", "beyond 1000 times full scale"),
    ],
)
def test_a_fault_is_told_after_a_while_and_forgotten_when_it_is_over(fault, what: str, text: str) -> None:  # type: ignore[no-untyped-def]
    check = ChannelCheck(4, RATE)
    push(check, noise(2 * PATIENCE_S))
    assert check.complaints() == {}
    bad = noise(PATIENCE_S + 0.1, seed=1)
    fault(bad)
    if fault.__name__.split("_")[0] not in ("no", "clipped"):  # these need no proof
        push(check, bad[: round(0.9 * PATIENCE_S * RATE)])
        assert check.complaints() == {}
    push(check, bad)
    (found,) = check.complaints().items()
    assert found[0] == what
    assert text in found[1]
    push(check, noise(3 * PATIENCE_S, seed=2))
    assert check.complaints() == {}


def test_two_dead_channels_are_not_called_alike_too() -> None:
    check, x = ChannelCheck(4, RATE), noise(2 * PATIENCE_S)
    x[:, 1:3] = 0
    push(check, x)
    assert set(check.complaints()) == {"channel 2", "channel 3"}


def test_one_block_in_five_that_touches_full_scale_is_clipped_and_one_in_fifty_is_not() -> None:
    for every, complains in ((5, True), (50, False)):
        check, x = ChannelCheck(4, RATE), noise(3 * PATIENCE_S)
        x[:: every * BLOCK, 2] = 1.0
        push(check, x)
        assert bool(check.complaints()) == complains


@pytest.mark.parametrize("level", [1.0 / 2**15, 0.001, 0.2])
def test_a_quiet_room_and_a_loud_one_are_no_fault(level: float) -> None:
    check = ChannelCheck(4, RATE)
    x = noise(10, level)
    x[5 * RATE : 5 * RATE + 100] = 1.0  # a bang beyond full scale
    push(check, x)
    assert check.complaints() == {}


def test_a_plane_wave_in_the_median_plane_is_no_fault() -> None:
    """From the front Y and Z are silence with the noise of their converters; W and X are alike but for theirs."""
    source, check = noise(10, 0.1)[:, :1], ChannelCheck(4, RATE)
    push(check, source * np.float32([1, 0, 0, 1]) + noise(10, 1.0 / 2**15, seed=3))
    assert check.complaints() == {}


def test_infinities_of_both_signs_are_told_and_warn_of_nothing() -> None:
    check, x = ChannelCheck(4, RATE), noise(1)
    x[5:7, 1] = np.inf, -np.inf
    with warnings.catch_warnings(action="error"):
        push(check, x)
    assert "no numbers" in check.complaints()["channel 2"]


def test_an_empty_block_changes_nothing() -> None:
    check = ChannelCheck(4, RATE)
    check.push(np.zeros((0, 4), np.float32))
    assert check.complaints() == {}
