"""The bank of sounds: what is in a folder, and what cannot be used."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import PurePath

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from offline.arrays import SAMPLE_RATE
from offline.bank import bank_digest, class_order, read_bank, read_clip, split_groups
from seldrt.config import DCASE2020_CLASSES, ConfigError
from tests.offline.sounds import write_bank


def test_the_bank_knows_groups_distractors_and_steady_sounds(bank):
    assert sorted(bank.clips) == ["hum", "knock", "noise"]
    assert {clip.group for clip in bank.clips["hum"]} == {"fridge"}
    assert {clip.group for clip in bank.clips["knock"]} == {"knock_0", "knock_1"}
    assert [clip.path for clip in bank.steady] == ["distractor/distractor_1.wav"]


@pytest.mark.parametrize("sounding_s", [0.02, 0.15])
def test_a_short_sound_in_a_long_file_is_no_background(tmp_path, sounding_s):
    bank_folder = write_bank(tmp_path)
    n = round(sounding_s * SAMPLE_RATE)
    sound = np.concatenate([np.full(n, 0.5), np.zeros(6 * SAMPLE_RATE - n)])
    soundfile.write(bank_folder / "distractor" / "click.wav", sound, SAMPLE_RATE)
    found = read_bank(bank_folder)
    assert "distractor/click.wav" in [clip.path for clip in found.distractors]
    assert [clip.path for clip in found.steady] == ["distractor/distractor_1.wav"]


def test_a_folder_without_sounds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_bank(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no class folder with sounds"):
        read_bank(tmp_path)
    (tmp_path / "hum").mkdir()
    (tmp_path / "hum" / "a.wav").write_bytes(b"not audio")
    with pytest.raises(ConfigError, match=r"a\.wav: not a readable sound file"):
        read_bank(tmp_path)
    for length, said in ((0, "0 ms"), (100, "4.17 ms")):
        soundfile.write(tmp_path / "hum" / "a.wav", np.full(length, 0.1), SAMPLE_RATE)
        with pytest.raises(ConfigError, match=rf"a\.wav: lasts {said}, no sound is that short; remove it"):
            read_bank(tmp_path)
    soundfile.write(tmp_path / "hum" / "a.wav", np.full(100, 0.1), 1)
    with pytest.raises(ConfigError, match=r"a\.wav: has a sample rate of 1 Hz, that is no sound; remove it"):
        read_bank(tmp_path)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.where(np.arange(4800) == 99, np.nan, 0.1), r"a\.wav: holds samples that are no numbers"),
        (np.where(np.arange(4800) == 99, np.inf, 0.1), r"a\.wav: holds samples that are no numbers"),
        (np.full(4800, 3e38), r"a\.wav: holds samples that are no numbers"),
        (np.zeros(4800), r"a\.wav: holds nothing but silence; remove it"),
    ],
)
def test_a_clip_in_which_nothing_can_be_heard_is_refused(tmp_path, samples, said):
    for rate in (SAMPLE_RATE, 48000):
        soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
        with pytest.raises(ConfigError, match=said):
            read_clip(tmp_path / "a.wav")


def test_a_table_of_groups_is_read_as_spreadsheets_write_it_in_utf8_alone(sounds, tmp_path):
    shutil.copytree(sounds, tmp_path / "events")
    index, text = tmp_path / "index.csv", "id,group\nhum_0,Kühlschrank\nhum_1,Kühlschrank\n"
    index.write_text(text, encoding="utf-8-sig")
    assert {clip.group for clip in read_bank(tmp_path / "events").clips["hum"]} == {"Kühlschrank"}
    index.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"index\.csv: is not UTF-8; save it as CSV UTF-8"):
        read_bank(tmp_path / "events")
    index.write_text('id,group\n"' + "9" * 140_000)
    with pytest.raises(ConfigError, match=r"index\.csv: is no table \(.*; save it as CSV UTF-8"):
        read_bank(tmp_path / "events")


def test_accents_stay_on_their_side_and_in_their_group_however_a_system_writes_them(tmp_path):
    composed = {f"Tür {number}" for number in range(50)}
    apart = {unicodedata.normalize("NFD", name) for name in composed}
    assert not composed & apart
    assert {unicodedata.normalize("NFC", name) for name in split_groups(apart)[0]} == split_groups(composed)[0]
    for name in apart:
        write_tone(tmp_path / "knock" / f"{name}.wav")
        write_tone(tmp_path / "distractor" / name / "1.wav")
    assert {clip.group for clip in read_bank(tmp_path).clips["knock"]} == composed
    assert {clip.group for clip in read_bank(tmp_path).distractors} == composed
    (tmp_path / "index.csv").write_text("group,id\nHäuser,Tür 1\nHäuser,Tür 2\nnothing\n", encoding="utf-8")
    assert {clip.group for clip in read_bank(tmp_path).clips["knock"]} == composed - {"Tür 1", "Tür 2"} | {"Häuser"}


@pytest.mark.skipif(os.name == "nt", reason="names of Windows are no bytes")
def test_names_that_are_not_utf8_are_refused_in_one_line(tmp_path):
    strange = os.fsdecode(b"d\xfc")
    folder = write_bank(tmp_path)
    (folder / "hum" / "hum_0.wav").rename(folder / "hum" / f"{strange}.wav")
    with pytest.raises(ConfigError, match=r"'\S+/hum/d\\udcfc\.wav': the name is not UTF-8; rename it$"):
        read_bank(folder)
    with pytest.raises(ConfigError, match=r"'\S+/d\\udcfc': the name is not UTF-8; rename it$"):
        read_bank(folder.rename(tmp_path / strange))


def test_a_class_that_cannot_stand_in_a_topic_is_refused(sounds, tmp_path):
    (tmp_path / "dog bark").mkdir()
    shutil.copy(sounds / "hum" / "hum_0.wav", tmp_path / "dog bark")
    with pytest.raises(ConfigError, match=r"class folder 'dog bark' cannot be used: .*; rename it to dog_bark$"):
        read_bank(tmp_path)


def test_silence_around_a_clip_is_cut_and_its_rate_converted(tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(48000) / 48000)
    soundfile.write(tmp_path / "tone.wav", np.concatenate([np.zeros(24000), tone, np.zeros(9600)]), 48000)
    clip = read_clip(tmp_path / "tone.wav")
    assert len(clip) == pytest.approx(SAMPLE_RATE, abs=480)
    spectrum = np.abs(np.fft.rfft(clip))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(clip) == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("gain", [1.0, 0.01, 0.001])
def test_a_clip_has_peak_1_and_keeps_its_tail_however_quiet_it_was_recorded(tmp_path, gain):
    sounding = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    sounding[SAMPLE_RATE // 2 :] *= 10 ** (-50 / 20)
    silence = np.zeros(SAMPLE_RATE // 2)
    soundfile.write(tmp_path / "a.wav", gain * np.concatenate([silence, sounding, silence]), SAMPLE_RATE, "FLOAT")
    clip = read_clip(tmp_path / "a.wav")
    np.testing.assert_allclose(clip, sounding, atol=1e-6)
    assert np.abs(clip).max() == 1


def test_backgrounds_are_those_of_their_folder_and_levels_that_vary_are_none(tmp_path):
    folder = write_bank(tmp_path)
    noise = 0.3 * np.random.default_rng(1).standard_normal(6 * SAMPLE_RATE).clip(-3, 3)
    swelling = noise * 10 ** (np.linspace(-10, 0, len(noise)) / 20)
    (folder / "background").mkdir()
    for name, sound in (("rain", noise), ("train", swelling)):
        soundfile.write(folder / "background" / f"{name}.wav", sound, SAMPLE_RATE, "FLOAT")
    found = read_bank(folder)
    assert [clip.path for clip in found.steady] == ["background/rain.wav", "distractor/distractor_1.wav"]
    assert [clip.path for clip in found.unlabelled] == ["background/rain.wav", "background/train.wav"]


def test_hidden_files_are_no_sounds_wherever_they_lie(tmp_path):
    folder = write_bank(tmp_path)
    (folder / "knock" / "kitchen").mkdir()
    (folder / "knock" / "kitchen" / "._1.wav").write_bytes(b"what a Mac leaves beside a file")
    assert len(read_bank(folder).clips["knock"]) == 2


def test_class_order_is_that_of_dcase_for_its_classes_under_any_alias():
    folders = sorted({*DCASE2020_CLASSES, "phone"} - {"ringing_phone"})
    indices, names = class_order(folders)
    assert names == list(DCASE2020_CLASSES)
    assert indices["phone"] == names.index("ringing_phone")
    short = {
        "baby": "crying_baby",
        "dog": "barking_dog",
        "engine": "running_engine",
        "fire": "burning_fire",
        "knock": "knocking_on_door",
        "phone": "ringing_phone",
    }
    indices, names = class_order(sorted({*DCASE2020_CLASSES, *short} - set(short.values())))
    assert {name: names[indices[name]] for name in short} == short
    assert class_order(["b", "a"]) == ({"b": 1, "a": 0}, ["a", "b"])


FORMATS = {
    "a.wav": (44100, 2, "PCM_24"),
    "b.flac": (16000, 1, "PCM_16"),
    "c.ogg": (48000, 2, "VORBIS"),
    "d.opus": (48000, 1, "OPUS"),
    "e.mp3": (22050, 1, "MPEG_LAYER_III"),
    "f.aif": (96000, 4, "PCM_16"),
    "g.au": (8000, 1, "ULAW"),
    "h.CAF": (32000, 1, "FLOAT"),
    "i.w64": (11025, 1, "PCM_U8"),
}


def write_tone(path, rate=SAMPLE_RATE, channels=1, subtype=None):
    """One second of 1 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    form = {".opus": "OGG", ".aif": "AIFF"}.get(path.suffix.lower())
    soundfile.write(path, np.tile(tone[:, None], channels), rate, subtype=subtype, format=form)


def test_any_format_rate_and_number_of_channels_will_do(tmp_path):
    for name, properties in FORMATS.items():
        write_tone(tmp_path / "tone" / name, *properties)
    write_tone(tmp_path / "distractor" / "other.wav")
    (tmp_path / "tone" / "notes.txt").write_text("cut on Sunday")
    (tmp_path / "tone" / "._a.wav").write_bytes(b"AppleDouble")
    clips = read_bank(tmp_path).clips["tone"]
    assert [clip.path for clip in clips] == [f"tone/{name}" for name in FORMATS]
    for clip in clips:
        sound = read_clip(tmp_path / clip.path)
        assert len(sound) == pytest.approx(SAMPLE_RATE, rel=0.15), clip.path  # lossy codecs pad
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
        assert np.argmax(spectrum) * SAMPLE_RATE / len(sound) == pytest.approx(1000, abs=2), clip.path


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["bell/a.wav"], "has only the class bell.* a folder `distractor` of other sounds"),
        (["bell/a.wav", "knock/"], r"knock: is empty; put sounds"),
        (["bell/a.wav", "knock/b.m4a"], r"b\.m4a: \.m4a cannot be read; convert it"),
        (["train/bell/a.wav", "val/bell/b.wav"], r"holds train, val, no classes: give .*train as --events"),
    ],
)
def test_what_cannot_be_learnt_from_is_told_in_one_line(tmp_path, files, said):
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        elif name.endswith(".wav"):
            write_tone(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"ftypM4A ")
    with pytest.raises(ConfigError, match=said) as error:
        read_bank(tmp_path)
    assert "\n" not in str(error.value)


def test_all_that_cannot_be_used_is_told_at_once(tmp_path):
    for name in ("bell/a.wav", "dog bark/a.wav", "drum/a.wav"):
        write_tone(tmp_path / name)
    soundfile.write(tmp_path / "bell" / "silent.wav", np.zeros(4800), SAMPLE_RATE)
    whole = (tmp_path / "bell" / "a.wav").read_bytes()
    for name, content in (("broken.wav", b"RIFF"), ("empty.wav", whole[:44]), ("memo.m4a", b"ftypM4A ")):
        (tmp_path / "bell" / name).write_bytes(content)
    (tmp_path / "knock").mkdir()
    with pytest.raises(ConfigError) as error:
        read_bank(tmp_path, "train")
    first, *lines = str(error.value).splitlines()
    assert first == f"{tmp_path}: 8 things to mend:"
    expected = ("broken.wav: not a readable", "empty.wav: lasts 0 ms", "memo.m4a: .m4a cannot be read; convert it")
    expected += ("silent.wav: holds nothing but silence", "rename it to dog_bark", "dog bark: has one source recording")
    expected += ("drum: has one source recording; a second is needed", "knock: is empty")
    for line, said in zip(lines, expected, strict=True):
        assert said in line
    for number in range(16):
        (tmp_path / "bell" / f"z{number}.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match=": 22 things to mend:\n") as error:
        read_bank(tmp_path)
    *_, last = lines = str(error.value).splitlines()
    assert (len(lines), last) == (22, "  and 2 more")


def test_one_class_among_others_that_are_none_is_enough(tmp_path):
    write_tone(tmp_path / "bell" / "a.wav")
    write_tone(tmp_path / "distractor" / "b.wav")
    assert list(read_bank(tmp_path).clips) == ["bell"]


def test_a_folder_within_a_class_is_one_source_recording(tmp_path):
    for name in ("kitchen/1.wav", "kitchen/2.wav", "hall/1.wav", "3.wav"):
        write_tone(tmp_path / "bell" / name)
    write_tone(tmp_path / "distractor" / "b.wav")
    groups = {clip.path: clip.group for clip in read_bank(tmp_path).clips["bell"]}
    assert groups == {
        "bell/3.wav": "3",
        "bell/hall/1.wav": "hall",
        "bell/kitchen/1.wav": "kitchen",
        "bell/kitchen/2.wav": "kitchen",
    }


def test_clips_are_in_one_order_on_any_system(tmp_path, monkeypatch):
    for name in ("b.wav", "B.wav", "a b/1.wav", "a/2.wav", "a/B.wav", "a.wav", "Z/1.wav"):
        write_tone(tmp_path / "bell" / name)
        write_tone(tmp_path / "Knock" / name)
    monkeypatch.setattr(PurePath, "__lt__", lambda one, other: str(one).lower() < str(other).lower())  # as of Windows
    bank = read_bank(tmp_path)
    assert list(bank.clips) == ["Knock", "bell"]
    order = ["B.wav", "Z/1.wav", "a/2.wav", "a/B.wav", "a b/1.wav", "a.wav", "b.wav"]
    assert [clip.path.removeprefix("bell/") for clip in bank.clips["bell"]] == order


@given(st.sets(st.text("abcdef0123456789_", min_size=1, max_size=8), min_size=2, max_size=60))
def test_both_parts_have_recordings_and_none_is_in_both(groups):
    train, validation = split_groups(groups)
    assert train | validation == groups
    assert not train & validation
    assert 1 <= len(validation) <= len(train)
    assert split_groups(set(groups)) == (train, validation)


def test_one_recording_in_five_is_for_validation_and_stays_there_when_others_come():
    names = [f"recording {number}" for number in range(2000)]
    few = split_groups(set(names[:50]))
    many = split_groups(set(names))
    assert few[0] < many[0]
    assert few[1] < many[1]
    assert abs(len(many[1]) - 400) < 4 * np.sqrt(2000 * 0.2 * 0.8)


def test_the_parts_of_a_bank_share_no_source_recording(tmp_path):
    for take in range(6):
        for cut in range(2):
            write_tone(tmp_path / "bell" / f"take{take}" / f"{cut}.wav")
        write_tone(tmp_path / "knock" / f"{take}.wav")
        write_tone(tmp_path / "distractor" / f"{take}.wav")
    train, validation = read_bank(tmp_path, "train"), read_bank(tmp_path, "validation")
    for name, cuts in (("bell", 2), ("knock", 1)):
        ours, theirs = ({clip.group for clip in bank.clips[name]} for bank in (train, validation))
        assert not ours & theirs
        assert len(ours | theirs) == 6
        assert len(validation.clips[name]) == cuts * len(theirs)
    assert len(train.distractors) + len(validation.distractors) == 6
    assert validation.distractors


def test_a_class_of_one_recording_cannot_be_split(tmp_path):
    for name in ("bell/1.wav", "bell/2.wav", "knock/1.wav", "distractor/1.wav"):
        write_tone(tmp_path / name)
    with pytest.raises(ConfigError, match=r"knock: has one source recording; a second is needed to validate with"):
        read_bank(tmp_path, "validation")
    write_tone(tmp_path / "knock" / "2.wav")
    assert [len(read_bank(tmp_path, part).distractors) for part in ("train", "validation")] == [1, 0]


def test_the_digest_of_a_bank_is_that_of_its_bytes_and_names(tmp_path):
    for base in ("a", "b"):
        write_tone(tmp_path / base / "bell" / "1.wav")
        write_tone(tmp_path / base / "knock" / "1.wav")
    first = bank_digest(read_bank(tmp_path / "a"))
    assert bank_digest(read_bank(tmp_path / "b")) == first
    (tmp_path / "b" / "bell").rename(tmp_path / "b" / "ding")
    assert bank_digest(read_bank(tmp_path / "b")) != first
    write_tone(tmp_path / "a" / "bell" / "1.wav", 44100)
    assert bank_digest(read_bank(tmp_path / "a")) != first
