"""Alarms and telephones, made by the rules that their makers follow: these sounds are electronic or struck by nature.

A bank of recordings holds few of them, and a network then learns these few. Drawn at random here: the temporal-three
pattern of smoke alarms (ISO 8201; at 3 kHz, or at 520 Hz as NFPA 72 asks for where people sleep) and temporal-four of
carbon monoxide alarms (with a shorter pause), clocks, buzzers, alerts of a second, the wail, yelp and hi-lo of sirens,
sirens that are turned by a motor, the warble of burglar alarms, what alarms of cars go through, klaxons, the slow whoop
of evacuations, reversing vehicles, struck bells; telephones with bells, warblers and melodies. Inside the module sounds
are (n,) float64 at `SAMPLE_RATE`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from offline.arrays import SAMPLE_RATE
from offline.files import write_audio

Sound = NDArray[np.float64]
Generator = np.random.Generator


def time_s(seconds: float) -> Sound:
    """The times (n,) of so many seconds of samples, in s from 0; one at least."""
    return np.arange(max(round(seconds * SAMPLE_RATE), 1)) / SAMPLE_RATE


def oscillator(frequency_hz: Sound, shape: float) -> Sound:
    """A tone of varying frequency (n,); ``shape`` 0 is nearly a sine, 1 nearly a square."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE
    return np.tanh(np.sin(phase) * (0.2 + 6 * shape)) / np.tanh(0.2 + 6 * shape)


def tone(rng: Generator, frequency_hz: float, seconds: float, shape: float) -> Sound:
    """A beep with edges of a few milliseconds."""
    edge = min(round(rng.uniform(0.001, 0.008) * SAMPLE_RATE), round(seconds * SAMPLE_RATE) // 3)
    y = oscillator(np.full(len(time_s(seconds)), frequency_hz), shape)
    ramp = np.linspace(0, 1, max(edge, 2))
    y[: len(ramp)] *= ramp
    y[-len(ramp) :] *= ramp[::-1]
    return y


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * SAMPLE_RATE))


def repeated(part: Sound, seconds: float) -> Sound:
    """The part again and again, for about so long and at least once."""
    return np.concatenate([part] * max(round(seconds * SAMPLE_RATE / len(part)), 1))


def beeps(
    rng: Generator, frequency_hz: float, shape: float, count: int, on_s: float, off_s: float, rest_s: float
) -> Sound:
    """``count`` times a `tone` of ``on_s`` and silence of ``off_s``, then ``rest_s`` of silence: (n,)."""
    one = np.concatenate([tone(rng, frequency_hz, on_s, shape), silence(off_s)])
    return np.concatenate([one] * count + [silence(rest_s)])


def struck(rng: Generator, blows_hz: float, seconds: float, bells: int, ring_s: float) -> Sound:
    """Bells under a hammer: inharmonic partials, excited at each blow."""
    times = np.arange(0, seconds, 1 / blows_hz)
    times = times + rng.normal(0, 0.02 / blows_hz, len(times))
    y = np.zeros(len(time_s(seconds + ring_s)))
    base_hz = rng.uniform(600, 2200)
    decay = time_s(ring_s)
    for bell in range(bells):
        partials_hz = base_hz * (1 + 0.22 * bell * rng.uniform(0.5, 1.5)) * np.array([1, 1.5, 2.0, 2.74, 3.76, 5.1])
        partials_hz = partials_hz[partials_hz < 0.45 * SAMPLE_RATE] * rng.uniform(0.97, 1.03)
        gains = rng.uniform(0.2, 1, len(partials_hz)) / (1 + np.arange(len(partials_hz)))
        damping = rng.uniform(3, 12) / ring_s * (1 + 0.3 * np.arange(len(partials_hz)))
        waves = gains[:, None] * np.sin(2 * np.pi * partials_hz[:, None] * decay) * np.exp(-damping[:, None] * decay)
        for at_s in times[bell::bells]:
            start = max(round(at_s * SAMPLE_RATE), 0)
            ring = waves.sum(0)[: len(y) - start] * rng.uniform(0.7, 1)
            y[start : start + len(ring)] += ring
    return y


# --- alarms ----------------------------------------------------------------------------------------------------------


def smoke_alarm(rng: Generator) -> Sound:
    if rng.random() < 0.7:
        part = beeps(rng, rng.uniform(2700, 3600), rng.uniform(0, 0.6), 3, 0.5, 0.5, 1.0)
    else:
        part = beeps(rng, rng.uniform(2700, 3600), rng.uniform(0, 0.6), 4, 0.1, 0.1, rng.uniform(0.8, 3))
    return repeated(part, rng.uniform(2, 8))


def low_smoke_alarm(rng: Generator) -> Sound:
    return repeated(beeps(rng, 520 * rng.uniform(0.95, 1.05), rng.uniform(0.6, 1), 3, 0.5, 0.5, 1.0), rng.uniform(2, 8))


def clock_alarm(rng: Generator) -> Sound:
    on_s = rng.uniform(0.04, 0.15)
    count = int(rng.integers(1, 6))
    part = beeps(
        rng, rng.uniform(900, 4300), rng.random(), count, on_s, on_s * rng.uniform(0.6, 1.5), rng.uniform(0.2, 0.8)
    )
    return repeated(part, rng.uniform(2, 6))


def buzzer(rng: Generator) -> Sound:
    """A rough tone of 90 to 600 Hz, again and again for 1 to 5 s: (n,)."""
    part = beeps(rng, rng.uniform(90, 600), rng.uniform(0.5, 1), 1, rng.uniform(0.2, 1.5), rng.uniform(0.05, 0.6), 0)
    return repeated(part, rng.uniform(1, 5))


def alert(rng: Generator) -> Sound:
    """One burst of beeps, or of short sweeps."""
    count, on_s, off_s = int(rng.integers(2, 6)), rng.uniform(0.05, 0.22), rng.uniform(0.02, 0.15)
    if rng.random() < 0.5:
        return beeps(rng, rng.uniform(400, 3500), rng.random(), count, on_s, off_s, 0)
    first_hz, last_hz = rng.uniform(300, 2500, 2)
    glide = oscillator(np.geomspace(first_hz, last_hz, len(time_s(on_s))), rng.random())
    return np.concatenate([glide, silence(off_s)] * count)


def klaxon(rng: Generator) -> Sound:
    """A diaphragm that a wheel strikes: rough, rising and falling with the wheel."""
    t = time_s(rng.uniform(0.5, 2.0))
    speed = np.interp(
        t / t[-1], [0, rng.uniform(0.2, 0.5), rng.uniform(0.6, 0.9), 1], [0.6, 1, rng.uniform(0.8, 1.2), 0.5]
    )
    tone_hz = rng.uniform(140, 480) * speed
    rough = 1 + rng.uniform(0.2, 0.8) * np.sin(2 * np.pi * np.cumsum(tone_hz) / SAMPLE_RATE / 2)
    cry = oscillator(tone_hz, rng.uniform(0.5, 1)) * rough * np.minimum(1, np.minimum(t, t[::-1]) / 0.02)
    return repeated(np.concatenate([cry, silence(rng.uniform(0.05, 0.6))]), rng.uniform(0.5, 6))


def reversing(rng: Generator) -> Sound:
    on_s = rng.uniform(0.2, 0.6)
    return repeated(beeps(rng, rng.uniform(900, 2900), rng.uniform(0, 0.8), 1, on_s, on_s, 0), rng.uniform(2, 7))


def siren(rng: Generator) -> Sound:
    """Wail (seconds), yelp (a third of a second) or phaser (a tenth), up and down or only up."""
    period_s = float(rng.choice([rng.uniform(2, 7), rng.uniform(0.2, 0.6), rng.uniform(0.06, 0.15)]))
    t = time_s(max(rng.uniform(2, 8), period_s))
    width = float(rng.choice([0.5, 1.0, rng.uniform(0.3, 0.9)]))
    sweep = 0.5 + 0.5 * scipy.signal.sawtooth(2 * np.pi * t / period_s, width)
    low_hz = rng.uniform(350, 1000)
    return oscillator(low_hz * rng.uniform(1.4, 3.5) ** sweep, rng.random())


def warble(rng: Generator) -> Sound:
    """The fast, high sweeps of a piezo siren, as burglar alarms have it; with or without pauses."""
    period_s, seconds = rng.uniform(0.03, 0.25), rng.uniform(1, 6)
    t = time_s(seconds if rng.random() < 0.7 else rng.uniform(0.4, 1.5))
    sweep = 0.5 + 0.5 * scipy.signal.sawtooth(2 * np.pi * t / period_s, float(rng.choice([0.5, 1.0])))
    part = oscillator(rng.uniform(1500, 3000) * rng.uniform(1.1, 1.6) ** sweep, rng.uniform(0, 0.7))
    return repeated(np.concatenate([part, silence(rng.uniform(0, 0.8))]), seconds)


def motor_siren(rng: Generator) -> Sound:
    """A rotor chops air: it speeds up in seconds, stays, and slows down, once or more often."""
    up_s, stay_s, down_s = rng.uniform(1.5, 5), rng.uniform(0, 4), rng.uniform(2, 6)
    t = time_s(up_s + stay_s + down_s)
    up = 1 - np.exp(-3 * np.minimum(t, up_s + stay_s) / up_s)
    speed = up * np.exp(-1.5 * np.maximum(t - up_s - stay_s, 0) / down_s)
    tone_hz = rng.uniform(350, 900) * np.maximum(speed, 0.05)
    air = oscillator(tone_hz, rng.uniform(0.3, 1)) + rng.uniform(0, 0.5) * oscillator(1.2 * tone_hz, 0.5)
    return repeated(air * speed, rng.uniform(4, 12))


def car_alarm(rng: Generator) -> Sound:
    """One kind of siren after the other, a second or two of each; or the horn, again and again."""
    if rng.random() < 0.3:
        on_s, off_s, hz = rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.6), rng.uniform(300, 480)
        horn = tone(rng, hz, on_s, 0.9) + tone(rng, hz * rng.uniform(1.18, 1.28), on_s, 0.9)
        return repeated(np.concatenate([horn, silence(off_s)]), rng.uniform(2, 8))
    kinds = rng.permutation(np.array([siren, siren, warble, two_tones, buzzer, slow_whoop], dtype=object))
    part_s = rng.uniform(0.8, 2.2)
    return np.concatenate([kind(rng)[: round(part_s * SAMPLE_RATE)] for kind in kinds[: int(rng.integers(3, 7))]])


def two_tones(rng: Generator) -> Sound:
    """The hi-lo of a siren: two tones of 400 to 2560 Hz in turn, 0.15 to 0.9 s each, for 2 to 7 s: (n,)."""
    first_hz, on_s, shape = rng.uniform(400, 1600), rng.uniform(0.15, 0.9), rng.random()
    second_hz = first_hz * rng.uniform(1.12, 1.6)
    return repeated(np.concatenate([tone(rng, hz, on_s, shape) for hz in (first_hz, second_hz)]), rng.uniform(2, 7))


def slow_whoop(rng: Generator) -> Sound:
    t = time_s(rng.uniform(1, 3.5))
    sweep = oscillator(rng.uniform(400, 700) * rng.uniform(1.8, 2.6) ** (t / t[-1]), rng.random())
    return repeated(np.concatenate([sweep, silence(rng.uniform(0.05, 0.5))]), rng.uniform(2, 8))


def fire_bell(rng: Generator) -> Sound:
    return struck(rng, rng.uniform(8, 25), rng.uniform(1.5, 6), 1, rng.uniform(0.3, 1.5))


ALARMS = (
    *(smoke_alarm, low_smoke_alarm, clock_alarm, alert, buzzer, klaxon, reversing),
    *(siren, motor_siren, warble, car_alarm, two_tones, slow_whoop, fire_bell),
)


# --- telephones ------------------------------------------------------------------------------------------------------


def in_rings(rng: Generator, ring: Callable[[float], Sound]) -> Sound:
    """One ring and a pause, or two short ones; one to three times."""
    on_s, off_s = rng.uniform(0.8, 2), rng.uniform(0.6, 2.5)
    if rng.random() < 0.4:
        short_s = rng.uniform(0.3, 0.5)
        part = [ring(short_s), silence(0.2), ring(short_s), silence(off_s)]
    else:
        part = [ring(on_s), silence(off_s)]
    return np.concatenate(part * int(rng.integers(1, 4)))


def bell_telephone(rng: Generator) -> Sound:
    state, blows_hz, ring_s = int(rng.integers(2**31)), rng.uniform(18, 30), rng.uniform(0.2, 0.7)
    return in_rings(rng, lambda seconds: struck(np.random.default_rng(state), blows_hz, seconds, 2, ring_s))


def warbler(rng: Generator) -> Sound:
    first_hz, rate_hz, shape = rng.uniform(600, 2200), rng.uniform(8, 26), rng.random()
    ratio = rng.uniform(1.1, 1.45)

    def ring(seconds: float) -> Sound:
        high = scipy.signal.square(2 * np.pi * rate_hz * time_s(seconds)) > 0
        return oscillator(first_hz * np.where(high, ratio, 1.0), shape) * np.minimum(1, time_s(seconds)[::-1] / 0.01)

    return in_rings(rng, ring)


SCALE = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 19])


def melody(rng: Generator) -> Sound:
    """A short tune of plucked or square notes, said again after a pause."""
    base_hz, beat_s, square = rng.uniform(400, 1100), rng.uniform(0.07, 0.22), rng.random()
    chosen = rng.choice(SCALE, int(rng.integers(4, 10)))
    notes = []
    for step in chosen:
        seconds = beat_s * float(rng.choice([1, 1, 2]))
        hz = base_hz * 2 ** (step / 12)
        t = time_s(seconds)
        if square < 0.5:
            notes.append(tone(rng, hz, seconds, rng.uniform(0.2, 0.9)))
        else:  # two-operator FM: bells and marimbas of early mobile phones
            index = 4 * np.exp(-t * 18)
            notes.append(np.sin(2 * np.pi * hz * t + index * np.sin(2 * np.pi * 3.5 * hz * t)) * np.exp(-t * 9))
    return np.concatenate([*notes, silence(rng.uniform(0.1, 1))] * int(rng.integers(1, 4)))


TELEPHONES = (bell_telephone, warbler, melody)

KINDS = {"alarm": ALARMS, "ringing_phone": TELEPHONES}


def loudspeaker(y: Sound, rng: Generator) -> Sound:
    """As a small transducer in a case would give it: a band, a resonance, some distortion."""
    low_hz, high_hz = 10 ** rng.uniform(np.log10(80), np.log10(900)), rng.uniform(3500, 11500)
    y = scipy.signal.sosfilt(scipy.signal.butter(1, low_hz, "high", fs=SAMPLE_RATE, output="sos"), y)
    y = scipy.signal.sosfilt(scipy.signal.butter(2, high_hz, fs=SAMPLE_RATE, output="sos"), y)
    b, a = scipy.signal.iirpeak(rng.uniform(700, 5000), rng.uniform(1, 6), fs=SAMPLE_RATE)
    y = y + rng.uniform(0, 2) * scipy.signal.lfilter(b, a, y)
    y = y / np.abs(y).max()
    drive = rng.uniform(0.2, 3)
    return np.tanh(drive * y) / np.tanh(drive)


def make(kind: Callable[[Generator], Sound], rng: Generator, longest_s: float = 12.0) -> NDArray[np.float32]:
    """A sound (n,) of one of the `KINDS`: float32 at `SAMPLE_RATE`, peak -3 dBFS."""
    y = loudspeaker(kind(rng), rng)[: round(longest_s * SAMPLE_RATE)]
    sounding = np.flatnonzero(np.abs(y) > 1e-3)
    y = y[sounding[0] : sounding[-1] + 1]
    return (y / np.abs(y).max() * 10 ** (-3 / 20)).astype(np.float32)


def write(out: Path, count: int, seed: int) -> None:
    """``count`` sounds of each class of `KINDS`, of each kind in turn, as FLAC files; the same seed, the same sounds.

    They lie in as many folders as there are kinds, all kinds in each. A folder is one source recording to
    `offline.bank`: so many sounds do not drown the recordings beside them, and every kind is there to learn from and to
    validate with.
    """
    for number, (label, kinds) in enumerate(KINDS.items()):
        for index in range(count):
            turn, which = divmod(index, len(kinds))
            folder = out / label / f"made_{seed}_{turn % len(kinds):02d}"
            sound = make(kinds[which], np.random.default_rng((seed, number, index)))
            write_audio(folder / f"{label}_made_{seed}_{index:03d}.flac", sound, SAMPLE_RATE)
