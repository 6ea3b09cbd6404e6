"""One MIDI file -> Piece: every event that a synthesiser needs, at its true time in seconds.

The file is read with mido. All tracks are merged before time is computed, so that tempo changes count wherever they
stand, and banks and programs are followed per channel as a General MIDI player does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import signal
import threading

import mido
import numpy as np
from mido.midifiles import meta

from data_gen import InputError
from data_gen.instruments import DRUM_BANK, Instrument

SUFFIXES = (".mid", ".midi", ".kar", ".rmi")  # of file names, in lower case

NOTE_ON, NOTE_OFF, CONTROL, BEND, CHANNEL_PRESSURE, KEY_PRESSURE = range(6)

EVENT = np.dtype(
    [
        ("time_s", "f8"),  # seconds from the start of the piece
        ("end_s", "f8"),  # NOTE_ON: when it stops sounding (release of the key or, later, of the pedal); others: time_s
        ("kind", "u1"),  # NOTE_ON ... KEY_PRESSURE
        ("channel", "u1"),  # 0 to 15
        ("bank", "u1"),  # NOTE_ON: SoundFont bank in force, DRUM_BANK for percussion; others: 0
        ("program", "u1"),  # NOTE_ON: program in force; others: 0
        ("number", "u1"),  # pitch of a note, number of a controller; others: 0
        ("value", "i2"),  # velocity, controller value, bend from -8192 to 8191, pressure
    ]
)
"""One row of `Piece.events`."""

# Controllers with a meaning of their own (MIDI 1.0 specification, table III).
BANK_SELECT, BANK_SELECT_LSB, SUSTAIN, ALL_SOUND_OFF, RESET_CONTROLLERS, ALL_NOTES_OFF = 0, 32, 64, 120, 121, 123
DRUM_CHANNEL = 9

# What a file may cost. A song is far below each of them; a file above one is damaged or made to hurt.
MAX_FILE_BYTES = 2 << 20  # mido makes 300 bytes of objects of each byte
MAX_TRACKS = 1_000
MAX_EVENTS = 500_000
MAX_DURATION_S = 4 * 3600.0
MAX_PARSING_S = 30.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of music as a synthesiser hears it.

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
        """The NOTE_ON rows of `events`."""
        return self.events[self.events["kind"] == NOTE_ON]

    def notes_of(self, instrument: Instrument) -> np.ndarray:
        """The NOTE_ON rows that belong to the instrument."""
        notes = self.notes
        return notes[instrument.owns(notes)]


class _AnyKeySignature(meta.MetaSpec_key_signature):
    """Key signatures do not sound, so an undefined one is no reason to refuse a song."""

    def decode(self, message, data):
        try:
            super().decode(message, data)
        except (meta.KeySignatureError, IndexError):
            message.key = "C"


meta.add_meta_spec(_AnyKeySignature)


def read_midi(path: str | pathlib.Path) -> Piece:
    """Reads a Standard MIDI File of format 0, 1 or 2.

    Raises InputError, naming the file and the reason, if it cannot be read or holds no note.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse_midi(data, str(path))


def parse_midi(data: bytes, name: str) -> Piece:
    """Like `read_midi`, for the bytes of a file; `name` names it in messages."""
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name}: {len(data)} bytes, more than a song needs (limit {MAX_FILE_BYTES})")
    if data[:4] == b"RIFF" and b"MThd" in data[:64]:  # an RMID file: a MIDI file in a RIFF wrapper
        data = data[data.index(b"MThd") :]
    if data[:4] != b"MThd":
        raise InputError(f"{name}: not a MIDI file (it does not begin with MThd)")
    try:
        with _time_limit(name):
            midi_file = mido.MidiFile(file=io.BytesIO(data), clip=True)
    except InputError:
        raise
    except (EOFError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{name}: damaged MIDI file ({str(error) or 'it ends too early'})") from None
    if len(midi_file.tracks) > MAX_TRACKS:
        raise InputError(f"{name}: {len(midi_file.tracks)} tracks, more than a song needs (limit {MAX_TRACKS})")
    try:
        ticks, messages = _merged(midi_file)
    except OverflowError:
        raise InputError(f"{name}: damaged MIDI file (a delta time without end)") from None
    if len(messages) > MAX_EVENTS:
        raise InputError(f"{name}: {len(messages)} events, more than a song needs (limit {MAX_EVENTS})")
    times_s = _seconds(midi_file.ticks_per_beat, ticks, messages, name)
    return make_piece(name, _playable(times_s, messages))


@contextlib.contextmanager
def _time_limit(name: str):
    """Raises InputError in the block when it takes too long; in the main thread alone, where Python takes signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_):
        raise InputError(f"{name}: not read within {MAX_PARSING_S:.0f} s; a song takes a tenth of a second")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, MAX_PARSING_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _merged(midi_file: mido.MidiFile) -> tuple[np.ndarray, list]:
    """All messages of all tracks -> (ticks [message], messages), in playing order: by tick, then by track."""
    ticks, messages = [], []
    for track in midi_file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            ticks.append(tick)
            messages.append(message)
    ticks = np.array(ticks, np.float64)
    order = np.argsort(ticks, kind="stable")
    return ticks[order], [messages[i] for i in order]


def _seconds(ticks_per_beat: int, ticks: np.ndarray, messages: list, name: str) -> np.ndarray:
    """Time in seconds of each message, by the tempo changes among all of them."""
    if ticks_per_beat < 0:  # SMPTE: frames per second and ticks per frame; 29 stands for 29.97
        frames_hz = -(ticks_per_beat >> 8)
        times_s = ticks / ((30000 / 1001 if frames_hz == 29 else frames_hz) * (ticks_per_beat & 0xFF or 1))
    elif ticks_per_beat == 0:
        raise InputError(f"{name}: damaged MIDI file (zero ticks per beat)")
    else:
        changes = [i for i, message in enumerate(messages) if message.type == "set_tempo" and message.tempo > 0]
        change_ticks = np.concatenate([[0.0], ticks[changes]])
        s_per_tick = np.array([500_000] + [messages[i].tempo for i in changes]) * 1e-6 / ticks_per_beat
        change_s = np.concatenate([[0.0], np.cumsum(np.diff(change_ticks) * s_per_tick[:-1])])
        segment = np.searchsorted(change_ticks, ticks, side="right") - 1
        times_s = change_s[segment] + (ticks - change_ticks[segment]) * s_per_tick[segment]
    if len(times_s) and times_s[-1] > MAX_DURATION_S:
        raise InputError(f"{name}: lasts {times_s[-1]:.0f} s, more than a song needs (limit {MAX_DURATION_S:.0f} s)")
    return times_s


def _playable(times_s: np.ndarray, messages: list) -> list[tuple]:
    """Messages -> rows (time_s, kind, channel, bank, program, number, value); bank and program are resolved."""
    bank, program = [0] * 16, [0] * 16
    pending_bank = [0] * 16
    bank[DRUM_CHANNEL] = pending_bank[DRUM_CHANNEL] = DRUM_BANK
    rows = []
    for time_s, message in zip(times_s.tolist(), messages):
        kind = message.type
        if kind == "note_on" and message.velocity > 0:
            channel = message.channel
            rows.append((time_s, NOTE_ON, channel, bank[channel], program[channel], message.note, message.velocity))
        elif kind in ("note_off", "note_on"):
            rows.append((time_s, NOTE_OFF, message.channel, 0, 0, message.note, 0))
        elif kind == "control_change":
            # Bank select waits for the next program change; percussion keeps its bank ("GS" behaviour, as FluidSynth).
            if message.control == BANK_SELECT and message.channel != DRUM_CHANNEL:
                pending_bank[message.channel] = message.value
            elif message.control not in (BANK_SELECT, BANK_SELECT_LSB):
                rows.append((time_s, CONTROL, message.channel, 0, 0, message.control, message.value))
        elif kind == "program_change":
            bank[message.channel], program[message.channel] = pending_bank[message.channel], message.program
        elif kind == "pitchwheel":
            rows.append((time_s, BEND, message.channel, 0, 0, 0, message.pitch))
        elif kind == "aftertouch":
            rows.append((time_s, CHANNEL_PRESSURE, message.channel, 0, 0, 0, message.value))
        elif kind == "polytouch":
            rows.append((time_s, KEY_PRESSURE, message.channel, 0, 0, message.note, message.value))
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
    """For each NOTE_ON when it stops sounding; for every other event its own time."""
    ends_s = np.array([row[0] for row in rows])
    held: dict[tuple[int, int], int] = {}  # (channel, pitch) -> row of the note whose key is down
    pedalled: dict[tuple[int, int], int] = {}  # ... whose key is up and whose pedal is down
    pedal_down = [False] * 16

    def release(time_s, notes, channel):
        for key in [key for key in notes if key[0] == channel]:
            ends_s[notes.pop(key)] = time_s

    for row, (time_s, kind, channel, _, _, number, value) in enumerate(rows):
        key = (channel, number)
        if kind == NOTE_ON:
            for notes in (held, pedalled):  # the same key struck again ends the earlier note
                if key in notes:
                    ends_s[notes.pop(key)] = time_s
            held[key] = row
        elif kind == NOTE_OFF and key in held:
            if pedal_down[channel]:
                pedalled[key] = held.pop(key)
            else:
                ends_s[held.pop(key)] = time_s
        elif kind == CONTROL and number in (SUSTAIN, RESET_CONTROLLERS):
            pedal_down[channel] = number == SUSTAIN and value >= 64
            if not pedal_down[channel]:
                release(time_s, pedalled, channel)
        elif kind == CONTROL and number == ALL_NOTES_OFF:
            if pedal_down[channel]:
                pedalled.update({key: held.pop(key) for key in list(held) if key[0] == channel})
            release(time_s, held, channel)
        elif kind == CONTROL and number == ALL_SOUND_OFF:
            release(time_s, held, channel)
            release(time_s, pedalled, channel)
    for notes in (held, pedalled):
        for row in notes.values():
            ends_s[row] = duration_s
    return ends_s
