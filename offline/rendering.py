"""From the plan of a scene to its recording and labels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.fft
import soxr
from numpy.typing import NDArray

from offline.arrays import SAMPLE_RATE, SPEED_OF_SOUND_M_PER_S, Array, array_named, cardioid_tetrahedron
from offline.bank import Bank, read_clip
from offline.convolution import convolve, convolve_moving, convolve_sum
from offline.encoding import CapsuleArray, to_foa
from offline.plans import NO_CLASS, Colour, Event, Scene, Wind
from offline.rooms import diffuse_tail, early_response, plane_waves
from seldrt.config import LABEL_RATE_HZ
from seldrt.spatial import azimuth_elevation, unit_vector

Samples = NDArray[np.float32]

SAMPLES_PER_LABEL = SAMPLE_RATE // LABEL_RATE_HZ
PATH_STEP = SAMPLE_RATE // 20  # samples between two positions of a moving source
LOOP_FADE = SAMPLE_RATE // 4
NOISE_LOOP = 10 * SAMPLE_RATE
FADE_IN, FADE_OUT = SAMPLE_RATE // 500, SAMPLE_RATE // 100


def render(scene: Scene, bank: Bank, array: Array) -> tuple[Samples, NDArray[np.int64]]:
    """A scene as an array hears it: samples (n, 4) within +-1 and label rows (m, 5) as in the metadata.

    FOA comes from the capsules of the scene where it has some.
    """
    capsules = scene.capsules if array.name == "foa" else None
    if capsules:
        array = _capsule_array(capsules)
    rng = np.random.default_rng([*scene.seed, 1])
    n = round(scene.seconds * SAMPLE_RATE)
    recording = np.zeros((n, 4), dtype=np.float32)
    rows: list[tuple[int, ...]] = []
    targets = [event for event in scene.events if event.label != NO_CLASS]
    for event in scene.events:
        wet, active = _render_event(event, scene, bank, array, rng)
        begin = round(event.onset_s * SAMPLE_RATE)
        end = min(n, begin + len(wet))
        recording[begin:end] += wet[: end - begin]
        if event.label != NO_CLASS:
            rows += label_rows(event, begin + active.start, min(begin + active.stop, n))
    powers = [10 ** (event.level_db / 10) for event in targets or scene.events]
    event_power = float(np.mean(powers or [1.0]))
    recording += _render_background(scene, bank, array, event_power, n, rng)
    if scene.wind:
        recording += _render_wind(scene.wind, event_power, n, rng)
    recording *= 10 ** (np.array(scene.channel_gains_db, dtype=np.float32) / 20)
    if capsules:
        recording = to_foa(recording, capsules)
    recording *= 10 ** (scene.peak_dbfs / 20) / max(float(np.abs(recording).max()), 1e-9)
    return recording, np.array(sorted(rows), dtype=np.int64).reshape(-1, 5)


@lru_cache(maxsize=4)
def _capsule_array(capsules: CapsuleArray) -> Array:
    if capsules.kind == "sphere":
        return array_named("mic")
    return cardioid_tetrahedron(capsules.radius_m, capsules.patterns)


def label_rows(event: Event, begin: int, end: int) -> list[tuple[int, ...]]:
    """Rows (frame, class, track, azimuth, elevation) of the frames that samples begin..end fill by half.

    An event that fills no frame by half has the frame of its middle.
    """
    first = -(-(begin - SAMPLES_PER_LABEL // 2) // SAMPLES_PER_LABEL)
    last = (end + SAMPLES_PER_LABEL // 2) // SAMPLES_PER_LABEL
    frames = np.arange(max(first, 0), last) if last > first else np.array([(begin + end) // 2 // SAMPLES_PER_LABEL])
    middle = (frames + 0.5) * SAMPLES_PER_LABEL
    azimuth, elevation = azimuth_elevation(event.path.doa((np.clip(middle, begin, end) - begin) / SAMPLE_RATE))
    azimuth = (np.rint(azimuth).astype(int) + 180) % 360 - 180
    return [
        (int(frame), event.label, event.layer, int(a), int(e))
        for frame, a, e in zip(frames, azimuth, np.rint(elevation).astype(int), strict=True)
    ]


def dry_signal(event: Event, bank: Bank) -> Samples:
    """The event as it leaves its source (n,): the clip cut, coloured, repeated and faded at its ends."""
    clip = read_clip(Path(bank.folder) / event.clip)
    seconds = event.seconds - (event.repeats_s[-1] if event.repeats_s else 0)
    length = max(round(seconds * event.colour.speed * SAMPLE_RATE), 1)
    begin = min(round(event.clip_start_s * SAMPLE_RATE), max(len(clip) - length, 0))
    sound = _faded(_coloured(clip[begin : begin + length], event.colour))
    starts = [round(time * SAMPLE_RATE) for time in (0.0, *event.repeats_s)]
    dry = np.zeros(starts[-1] + len(sound), dtype=np.float32)
    for start in starts:
        dry[start : start + len(sound)] += sound
    if event.mixed_in:
        under = read_clip(Path(bank.folder) / event.mixed_in.clip)
        under = _tiled(_seamless(under), round(event.mixed_in.offset_s * SAMPLE_RATE), len(dry))
        dry += _faded(under) * np.float32(10 ** (event.mixed_in.level_db / 20) * _rms(dry) / _rms(under))
    return dry


def _faded(sound: Samples) -> Samples:
    fade_in, fade_out = min(FADE_IN, len(sound)), min(FADE_OUT, len(sound))
    sound[:fade_in] *= np.linspace(0, 1, fade_in, dtype=np.float32)
    sound[len(sound) - fade_out :] *= np.linspace(1, 0, fade_out, dtype=np.float32)
    return sound


def _coloured(sound: Samples, colour: Colour) -> Samples:
    if colour == Colour():
        return sound.copy()
    if colour.speed != 1:
        sound = soxr.resample(sound, colour.speed * SAMPLE_RATE, SAMPLE_RATE)
    n_fft = scipy.fft.next_fast_len(len(sound) + FADE_OUT, real=True)
    frequency = np.maximum(np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE), 20)
    gain_db = np.clip(colour.tilt_db_per_octave * np.log2(frequency / 1000), -6, 6)
    gain_db += colour.bump_db * np.exp(-0.5 * (np.log2(frequency / colour.bump_hz) / 0.7) ** 2)
    gain = 10 ** (gain_db / 20)
    if colour.lowpass_hz:
        gain /= np.sqrt(1 + (frequency / colour.lowpass_hz) ** 12)
    if colour.highpass_hz:
        gain /= np.sqrt(1 + (colour.highpass_hz / frequency) ** 12)
    spectrum = scipy.fft.rfft(sound, n_fft) * gain.astype(np.float32)
    return scipy.fft.irfft(spectrum, n_fft)[: len(sound)]


def _render_event(
    event: Event, scene: Scene, bank: Bank, array: Array, rng: np.random.Generator
) -> tuple[Samples, slice]:
    """The event at the array (samples, 4) at its level, and the samples in which its direct sound arrives."""
    dry = dry_signal(event, bank)
    moving = event.path.turn_deg_per_s != 0
    times = np.arange(len(dry) // PATH_STEP + 2 if moving else 1) * (PATH_STEP / SAMPLE_RATE)
    positions = np.array(scene.room.array_m) + event.distance_m * event.path.doa(times)
    early = early_response(scene.room, positions, array)
    tail = diffuse_tail(scene.room, array, rng)
    length = max(early.shape[1], len(tail))
    if moving:
        wet = np.pad(convolve_moving(dry, early, PATH_STEP), ((0, length - early.shape[1]), (0, 0)))
        if len(tail):
            wet[: len(dry) + len(tail) - 1] += convolve(dry, tail)
    else:
        response = np.pad(early[0], ((0, length - early.shape[1]), (0, 0)))
        response[: len(tail)] += tail
        wet = convolve(dry, response)
    delay = round(event.distance_m / SPEED_OF_SOUND_M_PER_S * SAMPLE_RATE)
    active = slice(delay, delay + len(dry))
    return wet * np.float32(10 ** (event.level_db / 20) / _rms(wet[active])), active


def _render_background(
    scene: Scene, bank: Bank, array: Array, event_power: float, n: int, rng: np.random.Generator
) -> Samples:
    """The bed of the scene (n, 4), its level below event_power by the scene's SNR."""
    plan = scene.background
    streams = np.zeros((len(plan.streams), n), dtype=np.float32)
    for samples, stream in zip(streams, plan.streams, strict=True):
        noise = _coloured_noise(plan.noise_slope_db_per_octave, rng)
        gain = 10 ** (stream.level_db / 20)
        samples += _tiled(noise, int(rng.integers(NOISE_LOOP)), n) * np.float32(
            gain * (10 ** (plan.noise_db / 20) if stream.clips else 1)
        )
        if stream.clips:
            loops = [_seamless(read_clip(Path(bank.folder) / clip)) for clip in stream.clips]
            loop = np.concatenate([loop / np.sqrt(np.mean(np.square(loop), dtype=float) + 1e-12) for loop in loops])
            samples += _tiled(loop, round(stream.offset_s * SAMPLE_RATE), n) * np.float32(gain)
    direct = plane_waves(unit_vector(*np.array([stream.direction_deg for stream in plan.streams]).T), array)
    tails = [diffuse_tail(scene.room, array, rng) for _ in plan.streams]
    responses = np.zeros((len(direct), max(direct.shape[1], len(tails[0])), 4), dtype=np.float32)
    responses[:, : direct.shape[1]] += direct
    for response, tail in zip(responses, tails, strict=True):
        response[: len(tail)] += tail
    bed = convolve_sum(streams, responses)
    bed /= np.sqrt(np.mean(np.square(bed), dtype=float) + 1e-12)
    bed += rng.standard_normal(bed.shape, dtype=np.float32) * np.float32(10 ** (plan.sensor_db / 20))
    level = np.sqrt(np.mean(np.square(bed), dtype=float))
    return bed * np.float32(np.sqrt(event_power) * 10 ** (-plan.snr_db / 20) / level)


def _render_wind(wind: Wind, event_power: float, n: int, rng: np.random.Generator) -> Samples:
    """Wind in each of the four channels (n, 4)."""
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gain = (1 + (frequency / wind.corner_hz) ** 2) ** (-wind.slope_db_per_octave / (40 * np.log10(2)))
    gain *= frequency / (frequency + 10)
    noise = _noise(gain, n, rng, 4).T
    knots = np.arange(0, n / SAMPLE_RATE + wind.gust_s, wind.gust_s)
    gusts_db = np.interp(np.arange(n) / SAMPLE_RATE, knots, rng.normal(0, wind.gust_db, len(knots)))
    noise *= (10 ** (gusts_db / 20)).astype(np.float32)[:, None]
    return noise * np.float32(np.sqrt(event_power) * 10 ** (wind.level_db / 20) / _rms(noise))


def _seamless(clip: Samples) -> Samples:
    """A clip whose end fades into its own beginning, so that it can be repeated."""
    fade = min(LOOP_FADE, len(clip) // 3)
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    loop = clip[: len(clip) - fade].copy()
    loop[:fade] = loop[:fade] * ramp + clip[len(clip) - fade :] * ramp[::-1]
    return loop


def _rms(samples: Samples) -> float:
    return max(float(np.sqrt(np.mean(np.square(samples), dtype=float))), 1e-9)


def _tiled(loop: Samples, offset: int, n: int) -> Samples:
    return np.resize(np.roll(loop, -(offset % len(loop))), n)


def _coloured_noise(slope_db_per_octave: float, rng: np.random.Generator) -> Samples:
    """A loop of noise with unit power whose spectrum falls by so much an octave above 50 Hz."""
    frequency = np.maximum(np.fft.rfftfreq(NOISE_LOOP, 1 / SAMPLE_RATE), 50)
    gain = (frequency / 50) ** (slope_db_per_octave / (20 * np.log10(2)))
    noise = _noise(gain, NOISE_LOOP, rng)
    return noise / noise.std()


def _noise(gain: NDArray[np.float64], n: int, rng: np.random.Generator, *channels: int) -> Samples:
    """Gaussian noise (*channels, n) whose spectrum has this amplitude at each frequency."""
    white = rng.standard_normal((2, *channels, len(gain)), dtype=np.float32)
    noise: Samples = scipy.fft.irfft((white[0] + 1j * white[1]) * gain.astype(np.float32), n)
    return noise
