"""Strict typed configuration: sections named like the modules that take them.

Each section is a frozen struct; unknown keys and wrong types are refused with a `ConfigError` that names the file,
the key and what to do. Sections travel with a checkpoint as JSON.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from seldrt.config.reading import (
    ConfigError,
    Section,
    SeldrtError,
    decode,
    load_toml,
    named,
    override,
    printable,
    require,
    require_range,
)

__all__ = [
    "ConfigError",
    "Section",
    "SeldrtError",
    "decode",
    "load_toml",
    "named",
    "override",
    "printable",
    "require",
    "require_range",
]  # known by this name

# Class order of DCASE 2020 Task 3 (TAU-NIGENS Spatial Sound Events 2020).
DCASE2020_CLASSES = (
    "alarm",
    "crying_baby",
    "crash",
    "barking_dog",
    "running_engine",
    "female_scream",
    "female_speech",
    "burning_fire",
    "footsteps",
    "knocking_on_door",
    "male_scream",
    "male_speech",
    "ringing_phone",
    "piano",
)

EVERY_CLASS = "all"  # stands for the classes that are not named, in a sensitivity
LABEL_RATE_HZ = 10  # label frames, everywhere
RATES_HZ = (8000, 768_000)  # lowest and highest of devices and recordings


class FeatureConfig(Section, frozen=True):
    """Time-frequency features; the defaults are those of the ETRI report (section 2)."""

    sample_rate: int = 24000  # Hz
    n_fft: int = 2048
    win_length: int = 480  # samples, Hann
    hop_length: int = 240  # samples
    n_mels: int = 256
    f_min_hz: float = 0.0
    f_max_hz: float = 12000.0
    hpss_kernel: int = 31  # frames and bins; odd
    hpss_time: Literal["centred", "trailing"] = "centred"  # centred looks (kernel - 1) / 2 frames ahead
    frames_per_label: int = 10
    max_gain_db: float = 0.0  # a quiet background is raised, see `seldrt.gain`, by at most so much; 0 = never
    max_rumble_cut_db: float = 0.0  # loud low frequencies are turned down, see `seldrt.rumble`; 0 = never

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def samples_per_label(self) -> int:
        return self.hop_length * self.frames_per_label

    def __post_init__(self) -> None:
        if self.hop_length * self.frames_per_label * LABEL_RATE_HZ != self.sample_rate or self.frames_per_label < 1:
            raise ValueError("hop_length * frames_per_label must be 100 ms at sample_rate: a label frame")
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError("needs 0 < hop_length <= win_length <= n_fft")
        if self.hpss_kernel % 2 == 0 or self.hpss_kernel < 1:
            raise ValueError("hpss_kernel must be odd")
        require(self, ("n_fft",), lambda n: n <= 65_536, "must be at most 65536")
        require(self, ("hpss_kernel",), lambda n: n <= 1023, "must be at most 1023")
        require(self, ("frames_per_label",), lambda n: n <= 100, "must be at most 100")
        if not 0 <= self.f_min_hz < self.f_max_hz <= self.sample_rate / 2:
            raise ValueError("needs 0 <= f_min_hz < f_max_hz <= sample_rate / 2")
        require_range(self, ("max_gain_db", "max_rumble_cut_db"), 0, 100)
        if self.max_rumble_cut_db and (self.sample_rate < 8000 or self.n_fft * 100 < self.sample_rate):
            raise ValueError("max_rumble_cut_db needs a sample_rate of 8000 and an n_fft of sample_rate / 100 at least")
        bins = min(self.n_fft // 2, 1024)
        require(self, ("n_mels",), lambda n: 1 <= n <= bins, f"must be 1 to {bins}, half of n_fft at most")


LONGEST_LABELS = 601  # label frames that a filter may span: a minute


class PostprocessConfig(Section, frozen=True):
    """Gate, medians and smoothing of the network outputs (report, sections 3.3 and 5)."""

    sad_threshold: float = 0.5
    sed_thresholds: tuple[float, ...] = (0.5,)  # one for all classes, or one a class
    sed_hold: float = 1.0  # an active class stays active above this share of its threshold
    sed_lookback_labels: int = 0  # an event begins up to so much earlier if the share was reached; adds latency
    sed_median: bool = True  # per-class median filters over SAD and SED
    sad_median_labels: int = 3  # label frames, odd
    sed_median_labels: tuple[int, ...] = (3,)  # one for all classes, or one a class; odd
    doa_smoothing: bool = True
    doa_window_labels: int = 5  # label frames, odd; half of them are waited for
    doa_history_labels: int = 18  # label frames before these that count, too
    speeds_deg_per_s: tuple[float, ...] = ()  # the only possible angular speeds; () = any up to the limit
    max_speed_deg_per_s: float = 60.0
    confidence_slopes: tuple[float, ...] = (1.0,)  # of the log-odds that are told; one for all classes, or one a class
    confidence_offsets: tuple[float, ...] = (0.0,)  # the same

    def __post_init__(self) -> None:
        lengths = ("sad_median_labels", "sed_median_labels", "doa_window_labels")
        require(self, lengths, lambda n: n % 2 == 1 and 1 <= n <= LONGEST_LABELS, f"must be odd, 1 to {LONGEST_LABELS}")
        require_range(self, ("sed_lookback_labels", "doa_history_labels"), 0, LONGEST_LABELS)
        require_range(self, ("sad_threshold", "sed_thresholds", "sed_hold"), 0, 1)
        speeds = ("speeds_deg_per_s", "max_speed_deg_per_s")
        require(self, speeds, lambda v: 0 <= v < math.inf, "must be finite and not negative")
        require(self, ("confidence_slopes",), lambda slope: 0 < slope < math.inf, "must be finite and above 0")
        require(self, ("confidence_offsets",), math.isfinite, "must be finite")


MOST_VIEWS = 8  # of the turns and mirrors of `seldrt.networks.turns`


class NetworkConfig(Section, frozen=True):
    """Shape of one network; the defaults are the reconstruction of the ETRI report's (see `seldrt.networks`).

    Strides are (time, frequency). In causal form the time strides must multiply up to a divisor of the frames in a
    label frame.
    """

    causal: bool = False
    chunk_frames: int = 200  # of training; all that a non-causal network sees, the longest mean of a causal pyramid
    lookahead_labels: int = 0  # label frames after the one that is spoken of: accuracy against latency
    backbone: Literal["resnet", "efficientnet_lite0"] = "resnet"  # the second has its own widths and strides
    stem_width: int = 64
    stem_stride: tuple[int, int] = (1, 2)
    pool_stride: tuple[int, int] = (2, 2)
    widths: tuple[int, int, int, int] = (32, 64, 128, 128)
    strides: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (2, 2), (1, 1))
    blocks: int = 2  # residual blocks a stage
    converted: tuple[int, int, int, int] = (32, 64, 64, 64)
    guidance: Literal["pyramid", "trellis"] = "pyramid"
    guidance_width: int = 64
    pyramid_bins: tuple[int, ...] = (1, 3, 5)
    trellis_hidden: int = 16
    trellis_dilations: tuple[int, ...] = (1, 2, 4, 8)
    bands: int = 4  # frequency bands that the head and the trellis see
    head_norm: bool = False
    dropout: float = 0.0
    representation: Literal["azel", "xyz"] = "azel"  # of the directions (DOAE only)
    direct_labels: int = 0  # label frames whose masked intensity tells the direction (DOAE with xyz only); 0 = none
    focus_labels: int = 0  # label frames whose intensity draws a model's directions to it (of its first DOAE); 0 = none
    weight: float = 1.0  # of the answers of this network among those of its task, in an ensemble
    views: int = 1  # turns and mirrors of the sound over which a listening DOAE averages; costs as many times

    def __post_init__(self) -> None:
        require_range(self, ("lookahead_labels", "direct_labels", "focus_labels"), 0, LONGEST_LABELS)
        widths = ("stem_width", "widths", "converted", "guidance_width", "trellis_hidden", "pyramid_bins", "bands")
        steps = ("chunk_frames", "stem_stride", "pool_stride", "strides", "blocks", "trellis_dilations")
        require_range(self, (*widths, *steps), 1, 4096)
        require(self, ("blocks",), lambda n: n <= 100, "must be at most 100")
        require(self, ("dropout",), lambda p: 0 <= p < 1, "must be 0 or more, and below 1")
        require_range(self, ("views",), 1, MOST_VIEWS)
        require(self, ("weight",), lambda weight: 0 < weight < math.inf, "must be finite and above 0")
        if len(self.strides) != len(self.widths):
            raise ValueError(f"strides has {len(self.strides)} pairs: give {len(self.widths)}, one for each stage")
        if (self.direct_labels or self.focus_labels) and self.representation != "xyz":
            raise ValueError('direct_labels and focus_labels need representation = "xyz": an intensity is a vector')


class CaptureConfig(Section, frozen=True):
    """Where the sound comes from."""

    device: str = ""  # name (or a part of it) or number of the input device; "" = must be given to `run`
    device_rate: int = 0  # Hz; 0 = what the device prefers
    wait: bool = False  # true = wait for a device that is not there yet
    channels: tuple[int, ...] = ()  # the four of the device that are heard, from 1, in order; () = the first four
    mic: str = ""  # what they are: a profile or a .toml file; "" = as the name of the device implies
    mount: str = "upright"  # how the microphone stands: upright, upside-down, endfire, or "yaw=0,pitch=0,roll=0"
    yaw_deg: float = 0.0  # where its front points in the room, counter-clockwise
    block_ms: int = 20  # ms of sound handed on at a time
    ring_s: float = 10.0  # s of sound kept while the computer is busy; what is older is lost, and counted

    def __post_init__(self) -> None:
        if self.channels and (len(set(self.channels)) != 4 or len(self.channels) != 4 or min(self.channels) < 1):
            raise ValueError(
                f"channels is {list(self.channels)}: give four different numbers from 1, like [5, 6, 7, 8]"
            )
        require_range(self, ("yaw_deg",), -360, 360)
        require_range(self, ("block_ms",), 1, 1000)  # a device silent for 3 s counts as frozen
        require_range(self, ("ring_s",), 1, 600)
        lowest, highest = RATES_HZ
        if self.device_rate and not lowest <= self.device_rate <= highest:
            raise ValueError(f"device_rate is {self.device_rate}: use 0, or {lowest} to {highest}")


class PipelineConfig(Section, frozen=True):
    """Which model listens, what of its findings is reported, and where it computes."""

    model: str = ""  # a .safetensors file, or the name of one that ships; "" = the default
    only: tuple[str, ...] = ()  # the classes that are reported; () = all
    ignore: tuple[tuple[float, float], ...] = ()  # azimuths from, counter-clockwise to, of which nothing is reported
    sensitivity: dict[str, float] = msgspec.field(default_factory=dict)  # of classes, or all: 2 = at half the odds
    quick: bool = False  # true = post-processing that waits for nothing
    compute: Literal["cpu", "cuda", "mps"] = "cpu"  # where the networks run
    threads: int = 1

    def __post_init__(self) -> None:
        require_range(self, ("threads",), 1, 1024)
        for first, last in self.ignore:
            if not (-360 <= first <= 360 and -360 <= last <= 360) or (last - first) % 360 == 0:
                raise ValueError(f"ignore has {first:g}..{last:g}: use two different azimuths of -360 to 360 degrees")
        for name, value in self.sensitivity.items():
            if not 0.001 <= value <= 1000:
                raise ValueError(f"sensitivity {value} of {name}: use 0.001 to 1000")


class PublisherConfig(Section, frozen=True):
    """Where the messages go."""

    bind: str = "tcp://127.0.0.1:5577"  # tcp://HOST:PORT or ipc://PATH
    control: str = ""  # where requests are answered, tcp://HOST:PORT or ipc://PATH; "" = nowhere
    insecure_bind: bool = False  # true = also an address that others on the network can reach
    curve_keys: str = ""  # folder of keys, see `seldrt keys`; only the clients in it get anything; "" = everybody does
    levels: bool = False  # true = also how loud the channels are, ten times a second
    source: str = ""  # name of this microphone in topics; "" = that of the device or the recording


LEAST_FOLDER_MB, MOST_FOLDER_MB = 10, 100_000_000


class RecordConfig(Section, frozen=True):
    """What is kept of the sound itself."""

    dir: str = ""  # folder for what the device gives, as it gives it; "" = nothing is kept
    max_mb: int = 2000  # MB of the folder; the oldest files make room for new ones
    file_s: float = 600.0  # s of sound in a file

    def __post_init__(self) -> None:
        require_range(self, ("max_mb",), LEAST_FOLDER_MB, MOST_FOLDER_MB)
        require_range(self, ("file_s",), 1, 86_400)


class ClipsConfig(Section, frozen=True):
    """What is kept of each event, as a sound file."""

    dir: str = ""  # folder for them; "" = none are kept
    max_mb: int = 1000  # MB of the folder; the oldest clips make room for new ones
    before_s: float = 0.5  # s of sound before an event
    after_s: float = 0.5  # and after it
    longest_s: float = 30.0  # of a longer event, so much is kept
    only: tuple[str, ...] = ()  # the classes of which clips are kept; () = all

    def __post_init__(self) -> None:
        require_range(self, ("max_mb",), LEAST_FOLDER_MB, MOST_FOLDER_MB)
        require_range(self, ("before_s", "after_s"), 0, 30)
        require_range(self, ("longest_s",), 0.1, 120)


class DaemonConfig(Section, frozen=True):
    """The file of the daemon: one section for each module; see `configs/seldrt.toml`."""

    capture: CaptureConfig = CaptureConfig()
    pipeline: PipelineConfig = PipelineConfig()
    publisher: PublisherConfig = PublisherConfig()
    record: RecordConfig = RecordConfig()
    clips: ClipsConfig = ClipsConfig()
    postprocess: dict[str, Any] = msgspec.field(default_factory=dict)  # of `PostprocessConfig`, what is to differ

    def __post_init__(self) -> None:
        try:
            decode(self.postprocess, PostprocessConfig, "[postprocess]")
        except ConfigError as error:
            raise ValueError(str(error)) from None
