"""Spatial room impulse responses of shoebox rooms, for any microphone array.

The early part is the image source model (pyroomacoustics), the late part an isotropic, exponentially decaying
noise that begins at the mixing time with the energy which the images would have there. Positions are in
metres; the direct sound has the gain 1 / distance and the delay distance / c. Sample rate: 24 kHz.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyroomacoustics as pra
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from offline.arrays import FREQUENCIES_HZ, SAMPLE_RATE, SPEED_OF_SOUND_M_PER_S, TAPS, Array

Floats = NDArray[np.floating]

BAND_CENTRES_HZ = 125.0 * 2.0 ** np.arange(7)
# Energy lost in air per metre and octave band (pyroomacoustics, 20 degrees C, 50 % humidity).
AIR_ABSORPTION_PER_M = np.array(pra.parameters.Physics(temperature=20, humidity=50).get_air_absorption()["coeffs"])

EARLY_IMAGES = 60  # mean number of images before the mixing time
MAX_ORDER = 6
MIN_DISTANCE_M = 0.5
MARGIN_M = 0.2
OPEN_SIZE_M = np.array([40.0, 40.0, 40.0])

SURFACES = ("west", "east", "south", "north", "floor", "ceiling")


class Room(msgspec.Struct, frozen=True):
    """A shoebox with one corner at the origin, and where the array stands in it.

    size_m, array_m: x, y, z. absorption: of energy, by SURFACES and octave band (6, 7), in 0..1.
    diffuse: whether a reverberant tail follows the early reflections.
    """

    size_m: tuple[float, float, float]
    array_m: tuple[float, float, float]
    absorption: tuple[tuple[float, ...], ...]
    diffuse: bool

    @property
    def rt60_s(self) -> Floats:
        """Reverberation time by octave band (7,), seconds, by Eyring's formula with air; 0 outdoors."""
        if not self.diffuse:
            return np.zeros(len(BAND_CENTRES_HZ))
        areas, volume = _surface_areas(self.size_m), np.prod(self.size_m)
        mean_absorption = areas @ np.array(self.absorption) / areas.sum()
        lost = -areas.sum() * np.log1p(-mean_absorption) + 4 * AIR_ABSORPTION_PER_M * volume
        return 24 * np.log(10) / SPEED_OF_SOUND_M_PER_S * volume / lost

    @property
    def mixing_time_s(self) -> float:
        """Time after emission when EARLY_IMAGES images have arrived in the mean, and the tail takes over."""
        return float(np.cbrt(EARLY_IMAGES * 3 / (4 * np.pi) * np.prod(self.size_m)) / SPEED_OF_SOUND_M_PER_S)

    def reach_m(self, doas: Floats) -> Floats:
        """Distance from the array to `MARGIN_M` before the walls, metres (...,), along unit vectors (..., 3)."""
        array, size = np.array(self.array_m), np.array(self.size_m)
        room_for = np.where(doas > 0, size - MARGIN_M - array, array - MARGIN_M)
        return np.min(room_for / np.maximum(np.abs(doas), 1e-9), axis=-1)


def draw_room(rng: np.random.Generator, rt60_s: tuple[float, float]) -> Room:
    """A random room whose reverberation time at 1 kHz lies about in rt60_s, seconds, more often low."""
    size = np.array([rng.uniform(3.5, 11), rng.uniform(3.5, 9), rng.uniform(2.5, 4.2)])
    place = np.array([rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.55)])
    rt60 = rt60_s[0] + (rt60_s[1] - rt60_s[0]) * rng.uniform() ** 1.5
    areas, volume = _surface_areas(size), np.prod(size)
    mean = -np.expm1(-24 * np.log(10) / SPEED_OF_SOUND_M_PER_S * volume / (areas.sum() * rt60))
    walls = rng.uniform(0.6, 1.4, 6)
    walls *= areas.sum() / (areas @ walls)
    tilt = 2.0 ** (rng.uniform(-0.4, 0.7) * np.linspace(-1, 1, 7) + rng.uniform(-0.15, 0.15, 7))
    absorption = np.clip(mean * walls[:, None] * tilt / tilt[3], 0.02, 0.95)
    return _room(size, place * size, absorption, diffuse=True)


def draw_open_space(rng: np.random.Generator) -> Room:
    """A place without walls: the direct sound and one reflection from a random ground."""
    absorption = np.ones((6, 7))
    absorption[SURFACES.index("floor")] = np.clip(rng.uniform(0.05, 0.7) * 2.0 ** rng.uniform(-0.5, 0.5, 7), 0.02, 0.95)
    return _room(OPEN_SIZE_M, np.array([20, 20, rng.uniform(1.0, 2.0)]), absorption, diffuse=False)


def free_field() -> Room:
    """No reflection at all."""
    return _room(OPEN_SIZE_M, OPEN_SIZE_M / 2, np.ones((6, 7)), diffuse=False)


def _surface_areas(size: ArrayLike) -> Floats:
    x, y, z = np.asarray(size)
    return np.array([y * z, y * z, x * z, x * z, x * y, x * y])


def _room(size: Floats, array: Floats, absorption: Floats, diffuse: bool) -> Room:
    rounded = [tuple(round(float(v), 4) for v in values) for values in (size, array, *absorption)]
    return Room(rounded[0], rounded[1], tuple(rounded[2:]), diffuse)  # type: ignore[arg-type]


def band_weights(frequencies_hz: Floats) -> Floats:
    """Weights (7, f) of the octave bands at frequencies (f,); they cross over smoothly and sum to 1."""
    octave = np.clip(np.log2(np.maximum(frequencies_hz, 1.0) / BAND_CENTRES_HZ[0]), 0, len(BAND_CENTRES_HZ) - 1)
    away = np.clip(np.abs(octave - np.arange(len(BAND_CENTRES_HZ))[:, None]), 0, 1)
    return np.cos(np.pi / 2 * away) ** 2


def early_response(room: Room, sources_m: Floats, array: Array) -> NDArray[np.float32]:
    """Direct sound and reflections up to the mixing time, from positions (k, 3) to an array: (k, samples, 4).

    Positions are re the room's corner. `ValueError` when one is nearer to the array than MIN_DISTANCE_M.
    """
    position, image, gains = _images(room, sources_m)
    distance = np.linalg.norm(image, axis=1)
    if distance.min() < MIN_DISTANCE_M - 1e-6:  # rounding is forgiven
        raise ValueError(f"a source is {distance.min():.2f} m from the array, less than {MIN_DISTANCE_M} m")
    delay = distance * (SAMPLE_RATE / SPEED_OF_SOUND_M_PER_S)
    start = np.floor(delay).astype(int)
    turn = -2j * np.pi * FREQUENCIES_HZ / SAMPLE_RATE
    spectra = gains @ (band_weights(FREQUENCIES_HZ) * _roll_off()) / distance[:, None]
    spectra = spectra * np.exp(turn * (delay - start + TAPS // 2)[:, None])
    spectra = spectra[:, :, None] * array.response(image / distance[:, None])
    pulses = scipy.fft.irfft(spectra.astype(np.complex64), TAPS, axis=1)
    first = start - TAPS // 2
    early = np.zeros((len(sources_m), first.max() + TAPS, 4), dtype=np.float32)
    for k, begin, pulse in zip(position.tolist(), first.tolist(), pulses, strict=True):
        early[k, begin : begin + TAPS] += pulse
    return early


def plane_waves(doas: Floats, array: Array) -> NDArray[np.float32]:
    """Impulse responses (m, TAPS, 4) of far sources at unit vectors (m, 3), delayed by TAPS / 2 samples."""
    centred = _roll_off() * np.exp(-1j * np.pi * np.arange(len(FREQUENCIES_HZ)))
    spectra = centred[None, :, None] * array.response(doas)
    return scipy.fft.irfft(spectra, TAPS, axis=1).astype(np.float32)


def diffuse_tail(room: Room, array: Array, rng: np.random.Generator) -> NDArray[np.float32]:
    """The late reverberation (samples, 4) since the emission; silent up to mixing, empty outdoors."""
    rt60 = room.rt60_s
    begin = round(room.mixing_time_s * SAMPLE_RATE)
    length = round(rt60.max() * SAMPLE_RATE) - begin
    if not room.diffuse or length < TAPS:
        return np.zeros((0, 4), dtype=np.float32)
    n_fft = scipy.fft.next_fast_len(length + TAPS, real=True)
    frequency = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    time = room.mixing_time_s + np.arange(n_fft) / SAMPLE_RATE
    spectra = scipy.fft.rfft(rng.standard_normal((4, n_fft), dtype=np.float32))
    # Images arrive at 4 pi r^2 c / V a second, each with the energy 1 / r^2.
    density = 4 * np.pi * SPEED_OF_SOUND_M_PER_S / (np.prod(room.size_m) * SAMPLE_RATE)
    noise = np.zeros((4, n_fft), dtype=np.float32)
    for weight, seconds in zip(band_weights(frequency).astype(np.float32), rt60, strict=True):
        noise += scipy.fft.irfft(spectra * weight, n_fft) * (10.0 ** (-3 * time / seconds)).astype(np.float32)
    tail = np.zeros((begin + length, 4), dtype=np.float32)
    mixed = _mix_diffuse(scipy.fft.rfft(noise), array.diffuse_mixing, frequency)
    tail[begin:] = np.sqrt(density) * scipy.fft.irfft(mixed, n_fft)[:, :length].T
    tail[begin : begin + TAPS] *= np.linspace(0, 1, TAPS, dtype=np.float32)[:, None]
    return tail


def _images(room: Room, sources_m: Floats) -> tuple[NDArray[np.int_], Floats, Floats]:
    """Source (i,), place re the array (i, 3) and band gains (i, 7) of the images before the mixing time."""
    materials = {
        surface: pra.Material({"coeffs": list(values), "center_freqs": BAND_CENTRES_HZ.tolist()})
        for surface, values in zip(SURFACES, room.absorption, strict=True)
    }
    order = MAX_ORDER if room.diffuse else 1
    shoebox = pra.ShoeBox(room.size_m, fs=SAMPLE_RATE, materials=materials, max_order=order)
    shoebox.add_microphone(room.array_m)
    for source in sources_m:
        shoebox.add_source(source)
    shoebox.image_source_model()
    limit_m = room.mixing_time_s * SPEED_OF_SOUND_M_PER_S if room.diffuse else np.inf
    owners, places, gains = [], [], []
    for k, source in enumerate(shoebox.sources):
        place = source.images.T.astype(float) - room.array_m
        place[source.orders == 0] = np.asarray(sources_m[k]) - room.array_m
        distance = np.linalg.norm(place, axis=1)
        audible = (source.damping.max(axis=0) > 0) & ((distance < limit_m) | (source.orders == 0))
        owners.append(np.full(audible.sum(), k))
        places.append(place[audible])
        gains.append(source.damping.T[audible] * np.exp(-0.5 * distance[audible, None] * AIR_ABSORPTION_PER_M))
    return np.concatenate(owners), np.concatenate(places), np.concatenate(gains)


def _roll_off() -> Floats:
    """A low-pass (f,) from 11 kHz to Nyquist, which keeps the fractional delays short."""
    return np.cos(np.pi / 2 * np.clip((FREQUENCIES_HZ - 11000) / 1000, 0, 1)) ** 2


def _mix_diffuse(
    spectra: NDArray[np.complexfloating], mixing: Floats, frequency: Floats
) -> NDArray[np.complexfloating]:
    """Independent noises (4, f) turned into a diffuse field (4, f)."""
    if len(mixing) == 1:
        return mixing[0].astype(np.float32) @ spectra
    place = np.clip(frequency / FREQUENCIES_HZ[1], 0, len(mixing) - 1.001)
    low = place.astype(int)
    share = (place - low)[:, None, None]
    interpolated = (mixing[low] * (1 - share) + mixing[low + 1] * share).astype(np.float32)
    return np.einsum("fab,bf->af", interpolated, spectra)
