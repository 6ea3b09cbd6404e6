"""One MIDI file -> Piece: every event that a synthesiser needs, at its true time in seconds.

`midi_file` reads the bytes and `channels` follows banks and programs. Here all tracks are merged before time is
computed, so that tempo changes count on whatever track they are, and the end of each note is found.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np
from absl import logging

from data_gen import InputError, channels, midi_file
from data_gen.channels import ALL_NOTES_OFF, ALL_SOUND_OFF, RESET_CONTROLLERS, SUSTAIN
from data_gen.instruments import DRUM_BANK, Instrument

SUFFIXES = (".mid", ".midi", ".kar", ".rmi")  # of file names, in lower case

NOTE_ON, NOTE_OFF, CONTROL, BEND, CHANNEL_PRESSURE, KEY_PRESSURE = range(6)
_NO_EVENT = 255
# By the first half of the status byte; what happens at 0xC0 and 0xF0 is in force in other events.
_KINDS = np.full(16, _NO_EVENT, np.uint8)
_KINDS[0x8:0xC] = NOTE_OFF, NOTE_ON, KEY_PRESSURE, CONTROL
_KINDS[0xD:0xF] = CHANNEL_PRESSURE, BEND

EVENT = np.dtype(
    [
        ("time_s", "f8"),  # seconds from the start of the piece
        ("end_s", "f8"),  # NOTE_ON: when it stops sounding (release of the key or, later, of the pedal); others: time_s
        ("kind", "u1"),  # NOTE_ON ... KEY_PRESSURE
        ("channel", "u1"),  # port * 16 + MIDI channel, each counted from 0
        ("bank", "u1"),  # NOTE_ON: SoundFont bank in force, DRUM_BANK for percussion; others: 0
        ("program", "u1"),  # NOTE_ON: program in force; others: 0
        ("number", "u1"),  # pitch of a note, number of a controller; others: 0
        ("value", "i2"),  # velocity, controller value, bend from -8192 to 8191, pressure
    ]
)
"""One row of `Piece.events`."""

MAX_DURATION_S = 4 * 3600.0  # of a piece; a longer one is damaged or made to hurt


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music, as events for a synthesiser.

    Attributes:
        name: where it came from, for messages and file names.
        events: array [event] of dtype EVENT, in the order in which they are to be played.
        duration_s: time of the last event, in seconds.
    """

    name: str
    events: np.ndarray
    duration_s: float

    @property
    def notes(self) -> np.ndarray:
        """Returns the NOTE_ON rows of `events`."""
        return self.events[self.events["kind"] == NOTE_ON]

    def notes_of(self, instrument: Instrument) -> np.ndarray:
        """Returns the NOTE_ON rows that belong to the instrument."""
        notes = self.notes
        return notes[instrument.owns(notes)]


def is_percussion(events: np.ndarray) -> np.ndarray:
    """Returns which events concern notes of percussion, bool [event]: notes, their releases and key pressures.

    A channel can play percussion at one time and melody at another. So a release or key pressure belongs with the note
    struck last by the same key; before any note of its key, with percussion if its channel has any.
    """
    is_note = events["kind"] == NOTE_ON
    is_drum = is_note & (events["bank"] == DRUM_BANK)
    of_channel = np.zeros(256, bool)
    of_channel[events["channel"][is_drum]] = True
    result = of_channel[events["channel"]] & np.isin(events["kind"], (NOTE_ON, NOTE_OFF, KEY_PRESSURE))
    keys = events["channel"].astype(np.int32) * 128 + events["number"]
    order = np.argsort(np.where(result, keys, -1), kind="stable")
    order = order[len(events) - np.count_nonzero(result) :]  # without the events of other kinds and channels
    last_note = np.maximum.accumulate(np.where(is_note[order], np.arange(len(order)), -1))
    has_note = (last_note >= 0) & (keys[order[last_note]] == keys[order])
    result[order[has_note]] = is_drum[order[last_note[has_note]]]
    return result


def read_midi(path: str | pathlib.Path) -> Piece:
    """Reads a Standard MIDI File of format 0, 1 or 2; logs one warning if it is damaged and played all the same.

    Raises InputError, naming the file and the reason, if it cannot be read or holds no note.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse_midi(data, str(path))


def parse_midi(data: bytes, name: str) -> Piece:
    """Does what `read_midi` does for the bytes of a file; `name` names it in messages."""
    file = midi_file.parse(data, name)
    messages, message_channels, contents = merge(file)
    times_s = _seconds(file.ticks_per_beat, messages, contents)
    events = make_events(times_s, messages, message_channels, contents)
    sounds_s = events["time_s"][events["kind"] <= NOTE_OFF]
    if len(sounds_s) and sounds_s[-1] > MAX_DURATION_S:
        raise InputError(f"{name}: lasts {sounds_s[-1]:.0f} s, more than a song needs (limit {MAX_DURATION_S:.0f} s)")
    if file.repairs and not len(sounds_s):
        raise InputError(f"{name}: damaged MIDI file, without a note that can be read ({_first_of(file.repairs)})")
    # Anything else that comes hours later is a slip of the program that wrote the file: the piece ends before it.
    piece = finish(name, events[events["time_s"] <= MAX_DURATION_S])
    if file.repairs:
        _warn_once(f"{name}: damaged MIDI file, played as far as it can be read ({_first_of(file.repairs)})")
    return piece


def _first_of(repairs: list[str]) -> str:
    """Returns the first phrase and how many more there are: a message has one line."""
    return repairs[0] + (f", and {len(repairs) - 1} more" if len(repairs) > 1 else "")


@functools.lru_cache(maxsize=10_000)
def _warn_once(line: str) -> None:
    """Logs a warning the first time; a file is read more than once in a run."""
    logging.warning("%s", line)


def merge(file: midi_file.MidiFile) -> tuple[np.ndarray, np.ndarray, dict[int, bytes]]:
    """Brings the messages of all tracks into the order in which they are played: by tick, then by track.

    Returns:
        messages: [message] of dtype `midi_file.MESSAGE`.
        channels: uint8 [message], port * 16 + MIDI channel; port * 16 of messages that have no channel.
        contents: number of a message -> its bytes, as in the file.
    """
    status = file.messages["status"]
    message_channels = channels.ports(file.messages, file.contents) * 16 + np.where(status < 0xF0, status & 0xF, 0)
    order = np.argsort(file.messages["tick"], kind="stable")
    messages = file.messages[order]
    rows = np.flatnonzero(messages["status"] >= 0xF0)
    contents = {row: file.contents[number] for row, number in zip(rows.tolist(), order[rows].tolist())}
    return messages, message_channels[order].astype(np.uint8), contents


def _seconds(ticks_per_beat: int, messages: np.ndarray, contents: Mapping[int, bytes]) -> np.ndarray:
    """Returns the time of each message in seconds, by the tempo changes among all of them."""
    ticks = messages["tick"].astype(np.float64)
    if ticks_per_beat < 0:  # SMPTE: frames per second and ticks per frame; 29 stands for 29.97
        frames_hz = -(ticks_per_beat >> 8)
        return ticks / ((30000 / 1001 if frames_hz == 29 else frames_hz) * (ticks_per_beat & 0xFF or 1))
    changes, us_per_beat = [], [500_000]
    is_tempo = (messages["status"] == midi_file.META) & (messages["number"] == midi_file.SET_TEMPO)
    for row in np.flatnonzero(is_tempo).tolist():
        tempo = int.from_bytes(contents[row][:3], "big") if len(contents[row]) >= 3 else 0
        if tempo > 0:
            changes.append(row)
            us_per_beat.append(tempo)
    change_ticks = np.concatenate([[0.0], ticks[changes]])
    s_per_tick = np.array(us_per_beat) * 1e-6 / ticks_per_beat
    change_s = np.concatenate([[0.0], np.cumsum(np.diff(change_ticks) * s_per_tick[:-1])])
    segment = np.searchsorted(change_ticks, ticks, side="right") - 1
    return change_s[segment] + (ticks - change_ticks[segment]) * s_per_tick[segment]


def make_events(
    times_s: np.ndarray, messages: np.ndarray, message_channels: np.ndarray, contents: Mapping[int, bytes]
) -> np.ndarray:
    """Returns the events of a file, of dtype EVENT, with bank and program of each note, but not yet their ends.

    Args:
        times_s: time of each message, in seconds.
        messages, message_channels, contents: as `merge` returns them.
    """
    number, value = messages["number"], messages["value"]
    kind = _KINDS[messages["status"] >> 4]
    kind[(kind == NOTE_ON) & (value == 0)] = NOTE_OFF
    kind[(kind == CONTROL) & np.isin(number, (channels.BANK_SELECT, channels.BANK_SELECT_LSB))] = _NO_EVENT
    voices, controls = channels.follow(messages, message_channels, contents)
    is_note = kind == NOTE_ON
    events = np.zeros(len(messages), EVENT)
    events["time_s"], events["kind"], events["channel"] = times_s, kind, message_channels
    events["bank"], events["program"] = np.where(is_note, voices.T, 0)
    events["number"] = np.where(np.isin(kind, (BEND, CHANNEL_PRESSURE)), 0, number)
    events["value"] = np.where(kind == NOTE_OFF, 0, value)
    is_bend, is_pressure = kind == BEND, kind == CHANNEL_PRESSURE
    events["value"][is_bend] = (value[is_bend].astype(np.int16) << 7 | number[is_bend]) - 8192
    events["value"][is_pressure] = number[is_pressure]
    if controls:
        rows = [row for row, _, _, _ in controls]
        added = np.zeros(len(rows), EVENT)
        added["time_s"], added["kind"] = times_s[rows], CONTROL
        _, added["channel"], added["number"], added["value"] = np.transpose(controls)
        events = np.insert(events, rows, added)
    return events[events["kind"] != _NO_EVENT]


def make_piece(name: str, rows: list[tuple]) -> Piece:
    """Builds a Piece from rows (time_s, kind, channel, bank, program, number, value), sorted by time.

    Raises InputError if there is no note among them.
    """
    events = np.zeros(len(rows), EVENT)
    if rows:
        columns = zip(*rows)
        for field in ("time_s", "kind", "channel", "bank", "program", "number", "value"):
            events[field] = next(columns)
    return finish(name, events)


def finish(name: str, events: np.ndarray) -> Piece:
    """Builds a Piece from events whose ends are still to be found. Raises InputError if there is no note among them."""
    if not (events["kind"] == NOTE_ON).any():
        raise InputError(f"{name}: holds no note")
    duration_s = float(events["time_s"][-1])
    events["end_s"] = _note_ends_s(events, duration_s)
    events.flags.writeable = False
    return Piece(name, events, duration_s)


def _note_ends_s(events: np.ndarray, duration_s: float) -> np.ndarray:
    """Returns for each NOTE_ON when it stops sounding, and for every other event its own time: [event], in seconds."""
    kind, number = events["kind"], events["number"]
    channel = events["channel"].astype(np.int64)
    key = channel * 128 + number
    is_control = kind == CONTROL
    (notes,) = np.nonzero(kind == NOTE_ON)
    _, struck_again = _nearest(kind == NOTE_ON, key, notes, notes)
    _, silenced = _nearest(is_control & (number == ALL_SOUND_OFF), channel, notes, notes)
    _, released = _nearest(kind == NOTE_OFF, key, notes, notes)
    _, all_released = _nearest(is_control & (number == ALL_NOTES_OFF), channel, notes, notes)
    ends = np.minimum(released, all_released)
    is_pedal = is_control & np.isin(number, (SUSTAIN, RESET_CONTROLLERS))
    if is_pedal.any():
        is_down = (number == SUSTAIN) & (events["value"] >= 64)
        moved, _ = _nearest(is_pedal, channel, notes, ends)
        _, lifted = _nearest(is_pedal & ~is_down, channel, notes, ends)
        ends = np.where((moved >= 0) & is_down[moved], lifted, ends)
    ends = np.minimum(np.minimum(ends, struck_again), silenced)
    ends_s = events["time_s"].copy()
    ends_s[notes] = np.append(events["time_s"], duration_s)[ends]
    return ends_s


def _nearest(
    which: np.ndarray, groups: np.ndarray, rows: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds events of the same group.

    Args:
        which: the events that are looked for, bool [event].
        groups: int [event], at least 0.
        rows: numbers of events, whose groups are meant.
        after: for each of `rows`, the event from which to look.

    Returns:
        for each of `rows` the number of the last such event up to `after`, -1 if there is none, and of the first one
        behind it, len(which) if there is none.
    """
    n = len(which) + 1
    (found,) = np.nonzero(which)
    found = np.sort(groups[found] * n + found)  # by group, then by time
    begins = groups[rows] * n
    places = np.searchsorted(found, begins + after, side="right")
    before = np.append(found, -1)[places - 1] - begins
    behind = np.append(found, np.iinfo(np.int64).max)[places] - begins
    return np.maximum(before, -1), np.minimum(behind, n - 1)
