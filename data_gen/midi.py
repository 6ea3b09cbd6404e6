"""One MIDI file -> Piece: every event that a synthesiser needs, at its true time in seconds.

`midi_file` reads the bytes and `channels` follows banks and programs. Here all tracks are merged before time is
computed, so that tempo changes count on whatever track they are, and the end of each note is found.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np
from absl import logging

from data_gen import InputError, channels, midi_file
from data_gen.channels import ALL_NOTES_OFF, ALL_SOUND_OFF, RESET_CONTROLLERS, SUSTAIN
from data_gen.instruments import DRUM_BANK, Instrument

SUFFIXES = (".mid", ".midi", ".kar", ".rmi")  # of file names, in lower case

NOTE_ON, NOTE_OFF, CONTROL, BEND, CHANNEL_PRESSURE, KEY_PRESSURE = range(6)

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
    ticks, messages, ports = _merged(file.tracks)
    times_s = _seconds(file.ticks_per_beat, ticks, messages)
    rows = _rows(times_s, messages, ports)
    sounds_s = [row[0] for row in rows if row[1] in (NOTE_ON, NOTE_OFF)]
    if sounds_s and sounds_s[-1] > MAX_DURATION_S:
        raise InputError(f"{name}: lasts {sounds_s[-1]:.0f} s, more than a song needs (limit {MAX_DURATION_S:.0f} s)")
    if file.repairs and not sounds_s:
        raise InputError(f"{name}: damaged MIDI file, without a note that can be read ({_first_of(file.repairs)})")
    # Anything else that comes hours later is a slip of the program that wrote the file: the piece ends before it.
    piece = make_piece(name, [row for row in rows if row[0] <= MAX_DURATION_S])
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


def _merged(tracks: list[list[midi_file.Message]]) -> tuple[np.ndarray, list[midi_file.Message], list[int]]:
    """Returns (ticks [message], messages, their ports) of all tracks in playing order: by tick, then by track."""
    messages = [message for track in tracks for message in track]
    ports = [port for of_track in channels.ports(tracks) for port in of_track]
    ticks = np.array([message[0] for message in messages], np.float64)
    order = np.argsort(ticks, kind="stable")
    return ticks[order], [messages[i] for i in order], [ports[i] for i in order]


def _seconds(ticks_per_beat: int, ticks: np.ndarray, messages: list[midi_file.Message]) -> np.ndarray:
    """Returns the time of each message in seconds, by the tempo changes among all of them."""
    if ticks_per_beat < 0:  # SMPTE: frames per second and ticks per frame; 29 stands for 29.97
        frames_hz = -(ticks_per_beat >> 8)
        return ticks / ((30000 / 1001 if frames_hz == 29 else frames_hz) * (ticks_per_beat & 0xFF or 1))
    changes, us_per_beat = [], [500_000]
    for i, (_, status, number, content) in enumerate(messages):
        if status == midi_file.META and number == midi_file.SET_TEMPO and len(content) >= 3:
            tempo = int.from_bytes(content[:3], "big")
            if tempo > 0:
                changes.append(i)
                us_per_beat.append(tempo)
    change_ticks = np.concatenate([[0.0], ticks[changes]])
    s_per_tick = np.array(us_per_beat) * 1e-6 / ticks_per_beat
    change_s = np.concatenate([[0.0], np.cumsum(np.diff(change_ticks) * s_per_tick[:-1])])
    segment = np.searchsorted(change_ticks, ticks, side="right") - 1
    return change_s[segment] + (ticks - change_ticks[segment]) * s_per_tick[segment]


def _rows(times_s: np.ndarray, messages: list[midi_file.Message], ports: list[int]) -> list[tuple]:
    """Returns rows (time_s, kind, channel, bank, program, number, value), with bank and program of each note."""
    state = channels.Channels()
    voices = state.voices
    rows: list[tuple] = []
    for time_s, (_, status, number, value), port in zip(times_s.tolist(), messages, ports):
        kind = status & 0xF0
        if status < 0xF0:
            channel = port * 16 + (status & 0x0F)
        if kind == 0x90 and value > 0:
            state.use(channel)
            rows.append((time_s, NOTE_ON, channel, *voices[channel], number, value))
        elif kind in (0x80, 0x90):
            rows.append((time_s, NOTE_OFF, channel, 0, 0, number, 0))
        elif kind == 0xB0:
            if not state.change_control(channel, number, value):
                rows.append((time_s, CONTROL, channel, 0, 0, number, value))
        elif kind == 0xC0:
            state.change_program(channel, number)
        elif kind == 0xE0:
            state.use(channel)
            rows.append((time_s, BEND, channel, 0, 0, 0, (value << 7 | number) - 8192))
        elif kind == 0xD0:
            state.use(channel)
            rows.append((time_s, CHANNEL_PRESSURE, channel, 0, 0, 0, number))
        elif kind == 0xA0:
            rows.append((time_s, KEY_PRESSURE, channel, 0, 0, number, value))
        elif status == midi_file.SYSTEM_EXCLUSIVE:
            controls = state.receive_exclusive(port, value)
            rows += [(time_s, CONTROL, channel, 0, 0, number, value) for channel, number, value in controls]
    return rows


def make_piece(name: str, rows: list[tuple]) -> Piece:
    """Builds a Piece from rows (time_s, kind, channel, bank, program, number, value), sorted by time.

    Raises InputError if there is no note among them.
    """
    events = np.zeros(len(rows), EVENT)
    if rows:
        columns = zip(*rows)
        for field in ("time_s", "kind", "channel", "bank", "program", "number", "value"):
            events[field] = next(columns)
    if not (events["kind"] == NOTE_ON).any():
        raise InputError(f"{name}: holds no note")
    duration_s = float(events["time_s"][-1])
    events["end_s"] = _note_ends_s(rows, duration_s)
    events.flags.writeable = False
    return Piece(name, events, duration_s)


def _note_ends_s(rows: list[tuple], duration_s: float) -> np.ndarray:
    """Returns for each NOTE_ON when it stops sounding, and for every other event its own time: [row], in seconds."""
    ends_s = np.array([row[0] for row in rows])
    # [channel] {pitch: row}: per channel, so that releasing a channel takes no longer than it has notes.
    held: list[dict[int, int]] = [{} for _ in range(256)]  # notes whose key is down
    pedalled: list[dict[int, int]] = [{} for _ in range(256)]  # notes whose key is up and whose pedal is down
    is_pedal_down = [False] * 256

    def release(time_s: float, notes: dict[int, int]) -> None:
        for row in notes.values():
            ends_s[row] = time_s
        notes.clear()

    for row, (time_s, kind, channel, _, _, number, value) in enumerate(rows):
        if kind == NOTE_ON:
            for notes in (held[channel], pedalled[channel]):  # the same key struck again ends the earlier note
                if number in notes:
                    ends_s[notes.pop(number)] = time_s
            held[channel][number] = row
        elif kind == NOTE_OFF and number in held[channel]:
            if is_pedal_down[channel]:
                pedalled[channel][number] = held[channel].pop(number)
            else:
                ends_s[held[channel].pop(number)] = time_s
        elif kind == CONTROL and number in (SUSTAIN, RESET_CONTROLLERS):
            is_pedal_down[channel] = number == SUSTAIN and value >= 64
            if not is_pedal_down[channel]:
                release(time_s, pedalled[channel])
        elif kind == CONTROL and number == ALL_NOTES_OFF:
            if is_pedal_down[channel]:
                pedalled[channel].update(held[channel])
                held[channel].clear()
            release(time_s, held[channel])
        elif kind == CONTROL and number == ALL_SOUND_OFF:
            release(time_s, held[channel])
            release(time_s, pedalled[channel])
    for notes in (*held, *pedalled):
        release(duration_s, notes)
    return ends_s
