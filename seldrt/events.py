"""The life cycle of events: from what sounds in each label frame to onset, updates and offset."""

from __future__ import annotations

import msgspec

from seldrt.findings import GAP_LABELS, ActiveSource, EventChange, LabelFrame, Phase

UPDATES_PER_S = 2


class _Life(msgspec.Struct):
    """An event that sounds now."""

    event_id: int
    source: ActiveSource
    heard_until: int  # end of the last label frame that heard it
    told: int | None  # sample of the last message about it


class EventTracker:
    """Label frames in, the life cycle of events out: onset, an update every half second, offset.

    Sources of label frames are one event while class, track and onset stay the same, with no more than `GAP_LABELS`
    silent label frames between them; so the offset is told that much later.
    """

    def __init__(self, sample_rate: int, samples_per_label: int) -> None:
        self._samples_per_label = samples_per_label
        self._update_samples = sample_rate // UPDATES_PER_S
        self._lives: dict[tuple[int, int, int], _Life] = {}
        self._next_id = 0

    def push(self, frame: LabelFrame) -> list[EventChange]:
        """The changes that one label frame brings, offsets first."""
        now = {(s.class_id, s.track, s.onset_sample): s for s in frame.sources}
        oldest = frame.sample - GAP_LABELS * self._samples_per_label
        ended = [key for key, life in self._lives.items() if key not in now and life.heard_until <= oldest]
        changes = [self._end(self._lives.pop(key)) for key in ended]
        for key, source in now.items():
            if key not in self._lives:
                self._lives[key] = _Life(self._next_id, source, 0, None)
                self._next_id += 1
            life = self._lives[key]
            life.source, life.heard_until = source, frame.sample + self._samples_per_label
            if life.told is None or frame.sample - life.told >= self._update_samples:
                changes.append(self._change(life, "onset" if life.told is None else "update", frame.sample))
                life.told = frame.sample
        return changes

    def close(self) -> list[EventChange]:
        """The stream ends or breaks: the offset of all that sounds."""
        lives, self._lives = self._lives, {}
        return [self._end(life) for life in lives.values()]

    def _end(self, life: _Life) -> EventChange:
        return self._change(life, "offset", life.heard_until)

    def _change(self, life: _Life, phase: Phase, sample: int) -> EventChange:
        return EventChange(
            event_id=life.event_id,
            phase=phase,
            sample=sample,
            duration_samples=life.heard_until - life.source.onset_sample,
            source=life.source,
        )
