"""MIDI files -> pieces: true time, true programs, true ends of notes, and never an error but InputError."""

from __future__ import annotations

import contextlib
import csv
import random
import re
import struct
import time

import mido
import numpy as np
import pytest
from data_helpers import SHARED, cc, control, drum, midi_bytes, note, off, on, piece, program, tempo
from hypothesis import given
from hypothesis import strategies as st

from data_gen import InputError, midi, midi_file
from data_gen.instruments import CANDIDATES, DRUM_BANK
from data_gen.midi import BEND, CHANNEL_PRESSURE, CONTROL, KEY_PRESSURE, NOTE_OFF, NOTE_ON, parse_midi, read_midi


def parsed(*tracks: list, **arguments) -> midi.Piece:
    return parse_midi(midi_bytes(*tracks, **arguments), "file.mid")


def raw_file(track: bytes, ticks_per_beat: int = 96, n_tracks: int = 1, format: int = 0) -> bytes:
    header = b"MThd" + struct.pack(">IHHH", 6, format, n_tracks, ticks_per_beat & 0xFFFF)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


END = b"\x00\xff\x2f\x00"
A_NOTE = b"\x00\x90\x3c\x64" + b"\x60\x80\x3c\x40"  # 96 ticks of middle C


# ---- Time -----------------------------------------------------------------------------------------------------------
def test_without_a_tempo_a_beat_lasts_half_a_second():
    notes = parsed([on(60, 480), off(60, 240)]).notes
    assert notes["time_s"] == pytest.approx([0.5])
    assert notes["end_s"] == pytest.approx([0.75])


def test_a_tempo_change_counts_on_whatever_track_it_stands():
    melody = [on(60, 480), off(60, 480), on(62, 480), off(62, 480)]
    changes = [tempo(1_000_000, 960), tempo(250_000, 480)]  # beats of 0.5 s, from beat 2 on 1 s, from beat 3 on 0.25 s
    for tracks in ([changes, melody], [melody, changes], [[], melody, [], changes]):
        notes = parsed(*tracks).notes
        assert notes["time_s"] == pytest.approx([0.5, 2.0], abs=1e-12)
        assert notes["end_s"] == pytest.approx([1.0, 2.25], abs=1e-12)


def test_tempo_changes_of_several_tracks_count_together():
    notes = parsed([tempo(1_000_000, 480)], [tempo(2_000_000, 960)], [on(60, 1_440), off(60, 480)]).notes
    assert notes["time_s"] == pytest.approx([0.5 + 1.0 + 2.0])
    assert notes["end_s"] == pytest.approx([0.5 + 1.0 + 4.0])


def test_a_tempo_change_within_a_note_stretches_it():
    notes = parsed([on(60), off(60, 960)], [tempo(1_000_000, 480)]).notes
    assert notes["time_s"] == pytest.approx([0])
    assert notes["end_s"] == pytest.approx([1.5])


def test_of_two_tempos_at_one_time_the_later_counts():
    assert parsed([tempo(1_000_000), tempo(250_000), on(60, 480), off(60)]).notes["time_s"] == pytest.approx([0.25])


def test_a_thousand_tempo_changes_add_up_without_drift():
    changes = [tempo(400_000 + i, 480) for i in range(1_000)]
    notes = parsed(changes, [on(60, 480 * 1_001), off(60)]).notes
    assert notes["time_s"] == pytest.approx([0.5 + sum(400_000 + i for i in range(1_000)) * 1e-6], abs=1e-9)


@pytest.mark.parametrize("type", [0, 1, 2])
def test_files_of_format_0_1_and_2_are_read(type):
    tracks = [[tempo(250_000), on(60, 480), off(60, 480)], [on(64, 960, 1), off(64, 480, 1)]]
    notes = parsed(*tracks[: 1 if type == 0 else 2], type=type).notes
    assert notes["number"].tolist() == [60, 64][: len(notes)]
    assert notes["time_s"] == pytest.approx([0.25, 0.5][: len(notes)])


def test_a_file_of_one_track_and_one_of_many_give_the_same_piece():
    many = parsed([tempo(400_000)], [program(48), on(60), off(60, 480)], [on(40, 240, 1), off(40, 480, 1)])
    one = parsed([tempo(400_000), program(48), on(60), on(40, 240, 1), off(60, 240), off(40, 240, 1)], type=0)
    assert np.array_equal(one.events, many.events)


@pytest.mark.parametrize(
    ("frames", "frames_hz", "ticks_per_frame"), [(24, 24, 80), (25, 25, 40), (29, 30_000 / 1_001, 4), (30, 30, 100)]
)
def test_smpte_division_counts_frames_and_not_beats(frames, frames_hz, ticks_per_frame):
    division = (-frames << 8) | ticks_per_frame
    slower = b"\x00\xff\x51\x03\x0f\x42\x40"  # a tempo, which does not count
    notes = parse_midi(raw_file(slower + b"\x60\x90\x3c\x64" + b"\x20\x80\x3c\x40" + END, division), "file.mid").notes
    assert notes["time_s"] == pytest.approx([96 / frames_hz / ticks_per_frame])
    assert notes["end_s"] == pytest.approx([128 / frames_hz / ticks_per_frame])


def test_the_duration_is_the_time_of_the_last_event():
    assert parsed([on(60), off(60, 480), cc(7, 100, 480)]).duration_s == pytest.approx(1.0)


def test_events_are_in_order_of_time_and_those_of_one_time_as_in_the_file():
    events = parsed([on(60), off(60, 480), on(62), off(62, 480)], [cc(7, 1, 480, 1), cc(7, 2, 0, 1)]).events
    assert (np.diff(events["time_s"]) >= 0).all()
    at_once = events[events["time_s"] == 0.5]
    assert at_once["kind"].tolist() == [NOTE_OFF, NOTE_ON, CONTROL, CONTROL]
    assert at_once["value"][2:].tolist() == [1, 2]


# ---- Programs and banks ---------------------------------------------------------------------------------------------
def test_without_a_program_change_a_note_is_played_by_program_0():
    notes = parsed([on(60, channel=3), off(60, 480, 3)]).notes
    assert (notes["bank"].tolist(), notes["program"].tolist()) == ([0], [0])


def test_a_program_change_affects_the_later_notes_of_its_channel_alone():
    notes = parsed([on(60), off(60, 480), program(48), on(62), off(62, 480), on(64, channel=1), off(64, 9, 1)]).notes
    assert dict(zip(notes["number"].tolist(), notes["program"].tolist())) == {60: 0, 62: 48, 64: 0}


def test_a_program_change_while_a_note_sounds_leaves_that_note_as_it_is():
    notes = parsed([program(16), on(60), program(48, 240), off(60, 240)]).notes
    assert notes["program"].tolist() == [16]
    assert notes["end_s"] == pytest.approx([0.5])


def test_a_program_change_on_another_track_counts_for_the_channel():
    notes = parsed([program(33, channel=2)], [on(40, 1, 2), off(40, 480, 2)]).notes
    assert notes["program"].tolist() == [33]


def test_bank_select_waits_for_the_next_program_change():
    notes = parsed([cc(0, 8), on(60), off(60, 480), program(4), on(62), off(62, 480)]).notes
    assert list(zip(notes["bank"].tolist(), notes["program"].tolist())) == [(0, 0), (8, 4)]


def test_bank_select_does_not_take_the_drum_channel_off_its_bank():
    notes = parsed([cc(0, 8, channel=9), program(25, channel=9), on(38, channel=9), off(38, 480, 9)]).notes
    assert (notes["bank"].tolist(), notes["program"].tolist()) == ([DRUM_BANK], [25])


def test_bank_select_is_not_among_the_events_since_each_note_says_its_bank():
    events = parsed([cc(0, 8), cc(32, 1), program(4), on(60), off(60, 480)]).events
    assert events["kind"].tolist() == [NOTE_ON, NOTE_OFF]


def test_the_notes_of_an_instrument_are_those_of_its_programs_and_channel_10_is_drums():
    tracks = [[program(2), on(60), off(60, 480)], [program(48, channel=1), on(62, channel=1), off(62, 480, 1)]]
    drums = [program(48, channel=9), on(38, channel=9), off(38, 480, 9)]
    parsed_piece = parsed(*tracks, drums)
    found = {name: parsed_piece.notes_of(instrument)["number"].tolist() for name, instrument in CANDIDATES.items()}
    assert {name: numbers for name, numbers in found.items() if numbers} == {
        "drums": [38],
        "piano": [60],
        "strings": [62],
    }


# ---- Percussion elsewhere, resets, ports: files written byte by byte ------------------------------------------------
def variable(number: int) -> bytes:
    digits = [number & 127]
    while number := number >> 7:
        digits.insert(0, number & 127 | 128)
    return bytes(digits)


def chunk(data: bytes, length: int | None = None, name: bytes = b"MTrk") -> bytes:
    return name + struct.pack(">I", len(data) if length is None else length) + data


def song(*tracks: bytes, n_tracks: int | None = None) -> bytes:
    """A file of format 1 with these tracks, each of which is a chunk or the data of one."""
    header = struct.pack(">HHH", 1, len(tracks) if n_tracks is None else n_tracks, 96)
    return chunk(header, name=b"MThd") + b"".join(t if t[:2] in (b"MT", b"XF") else chunk(t + END) for t in tracks)


def control_bytes(channel: int, number: int, value: int) -> bytes:
    return bytes([0, 0xB0 | channel, number, value])


def program_bytes(channel: int, number: int) -> bytes:
    return bytes([0, 0xC0 | channel, number])


def exclusive(text: str) -> bytes:
    data = bytes.fromhex(text + "F7")
    return b"\0\xf0" + variable(len(data)) + data


def roland(address_and_data: str) -> bytes:
    """A GS message with its checksum."""
    return exclusive(f"41104212{address_and_data}{-sum(bytes.fromhex(address_and_data)) % 128:02X}")


def meta_bytes(kind: int, data: bytes, delta: int = 0) -> bytes:
    return variable(delta) + bytes([0xFF, kind]) + variable(len(data)) + data


def beat(channel: int, *keys: int) -> bytes:
    keys = keys or (36, 42, 38, 42)
    return b"".join(bytes([0, 0x90 | channel, key, 100, 48, 0x80 | channel, key, 64]) for key in keys)


GM1_ON, GM2_ON, XG_ON = exclusive("7E7F0901"), exclusive("7E7F0903"), exclusive("43104C00007E00")
GS_ON = roland("40007F00")


def voices(*tracks: bytes) -> list[tuple[int, int, int]]:
    """(channel, bank, program) of the notes of a file, without repetitions."""
    notes = parse_midi(song(*tracks), "file.mid").notes
    return list(dict.fromkeys(zip(notes["channel"].tolist(), notes["bank"].tolist(), notes["program"].tolist())))


@pytest.mark.parametrize(
    "setup",
    [
        XG_ON + control_bytes(10, 0, 127) + control_bytes(10, 32, 0) + program_bytes(10, 0),
        control_bytes(10, 0, 127) + control_bytes(10, 32, 0) + program_bytes(10, 0),
        XG_ON + control_bytes(10, 0, 126) + program_bytes(10, 0),
        XG_ON + exclusive("43104C080A0702") + program_bytes(10, 0),
        XG_ON + exclusive("43104C080A017F") + exclusive("43104C080A0300"),
        GS_ON + roland("401A1501") + program_bytes(10, 0),
        GS_ON + roland("401A1502"),
        GM1_ON + roland("401A1501") + program_bytes(10, 0),
        GM2_ON + control_bytes(10, 0, 120) + program_bytes(10, 0),
        GM2_ON + control_bytes(10, 0, 120) + control_bytes(10, 32, 3) + program_bytes(10, 0),
        control_bytes(10, 0, 120) + program_bytes(10, 0),
        b"\0\xf0\x03\x43\x10\x4c" + b"\0\xf7\x05\x08\x0a\x07\x01\xf7",  # in two packets
    ],
)
def test_percussion_outside_channel_10_is_percussion(setup):
    assert voices(setup + beat(10)) == [(10, DRUM_BANK, 0)]


@pytest.mark.parametrize(
    ("setup", "bank"),
    [
        (GS_ON + roland("40101500") + program_bytes(9, 48), 0),
        (GS_ON + roland("40101500") + control_bytes(9, 0, 8) + program_bytes(9, 48), 8),
        (roland("40101500") + program_bytes(9, 48), 0),
        (XG_ON + control_bytes(9, 0, 0) + program_bytes(9, 48), 0),
        (XG_ON + exclusive("43104C08090700") + program_bytes(9, 48), 0),
        (GM2_ON + control_bytes(9, 0, 121) + program_bytes(9, 48), 0),
        (GM2_ON + control_bytes(9, 0, 121) + control_bytes(9, 32, 1) + program_bytes(9, 48), 1),
    ],
)
def test_melody_on_channel_10_is_melody(setup, bank):
    assert voices(setup + beat(9)) == [(9, bank, 48)]


@pytest.mark.parametrize(
    "setup",
    [
        roland("401A1501")[:-2] + b"\x00\xf7",  # a wrong checksum
        XG_ON + roland("401A1501"),  # a message for another maker's mode
        GS_ON + exclusive("43104C080A0701"),
        GM1_ON + control_bytes(10, 0, 127) + program_bytes(10, 0),  # General MIDI 1 knows no banks
        GS_ON + control_bytes(10, 0, 127) + program_bytes(10, 0),  # sounds of the MT-32
        GM2_ON + control_bytes(10, 0, 127) + program_bytes(10, 0),
        XG_ON + control_bytes(10, 0, 127),  # without the program change that it waits for
        control_bytes(10, 0, 127) + program_bytes(10, 3) + control_bytes(10, 0, 0) + program_bytes(10, 0),
        exclusive("41114212401A150110"),  # to a device of another number
    ],
)
def test_what_does_not_make_a_channel_percussion_leaves_it_melody(setup):
    assert [bank == DRUM_BANK for _, bank, _ in voices(setup + beat(10))] == [False]


@pytest.mark.parametrize("setup", [b"", GM1_ON, GS_ON, XG_ON, GM2_ON, control_bytes(9, 0, 0), control_bytes(9, 0, 121)])
def test_channel_10_is_percussion_unless_a_file_says_otherwise(setup):
    assert voices(setup + program_bytes(9, 8) + beat(9)) == [(9, DRUM_BANK, 8)]


def test_the_bank_of_melody_is_the_variation_of_the_standard_in_force():
    selected = control_bytes(0, 0, 0) + control_bytes(0, 32, 8) + program_bytes(0, 4) + beat(0)
    assert voices(XG_ON + selected) == [(0, 8, 4)]
    assert voices(GM2_ON + control_bytes(0, 0, 121) + selected) == [(0, 8, 4)]
    assert voices(GS_ON + selected) == voices(selected) == [(0, 0, 4)]
    assert voices(GM1_ON + control_bytes(0, 0, 8) + program_bytes(0, 4) + beat(0)) == [(0, 0, 4)]


@pytest.mark.parametrize(("program", "effect"), [(0, 120), (50, 123), (115, 127)])
def test_xg_sound_effects_are_effects_and_no_piano_or_strings(program, effect):
    assert voices(XG_ON + control_bytes(0, 0, 64) + program_bytes(0, program) + beat(0)) == [(0, 0, effect)]


@pytest.mark.parametrize(
    "reset", [GM1_ON, GM2_ON, GS_ON, XG_ON, roland("00007F00"), roland("40007F7F"), exclusive("43104C00007F00")]
)
def test_a_reset_within_a_file_brings_programs_controllers_and_percussion_back(reset):
    setup = program_bytes(0, 48) + roland("401A1501") + program_bytes(10, 8) + control_bytes(0, 64, 127)
    setup += (
        control_bytes(0, 7, 20)
        + control_bytes(0, 10, 0)
        + b"".join(control_bytes(0, number, value) for number, value in ((101, 0), (100, 0), (6, 12)))
    )
    track = setup + beat(0, 60) + beat(10, 36) + b"\x00\x90\x40\x64" + reset + beat(0, 62) + beat(10, 38)
    read = parse_midi(song(track), "file.mid")
    notes = {int(n["number"]): n for n in read.notes}
    assert {key: (int(n["bank"]), int(n["program"])) for key, n in notes.items()} == {
        60: (0, 48), 36: (DRUM_BANK, 8), 64: (0, 48), 62: (0, 0), 38: (0, 0),
    }  # fmt: skip
    assert notes[60]["end_s"] == notes[64]["end_s"] == notes[64]["time_s"]  # at the reset: neither pedal nor key holds
    controls = read.events[(read.events["kind"] == CONTROL) & (read.events["channel"] == 0)]
    last = {int(row["number"]): int(row["value"]) for row in controls}
    assert (last[7], last[10], last[121]) == (100, 64, 0)
    parameters = [(int(row["number"]), int(row["value"])) for row in controls if row["number"] in (6, 38, 100, 101)]
    assert parameters[3:7] == [(101, 0), (100, 0), (6, 2), (38, 0)]  # two semitones again


def test_a_reset_before_everything_else_leaves_no_event():
    plain = parse_midi(song(program_bytes(0, 4) + beat(0)), "file.mid")
    for reset in (GM1_ON, GS_ON, XG_ON, GM2_ON):
        assert np.array_equal(parse_midi(song(reset + program_bytes(0, 4) + beat(0)), "file.mid").events, plain.events)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (meta_bytes(0x21, b"\0"), meta_bytes(0x21, b"\1")),
        (b"", meta_bytes(0x21, b"\5")),
        (meta_bytes(0x09, b"SC-55 A"), meta_bytes(0x09, b"SC-55 B")),
        (meta_bytes(0x09, b"A") + meta_bytes(0x21, b"\0"), meta_bytes(0x09, b"A") + meta_bytes(0x21, b"\1")),
    ],
)
def test_ports_and_devices_have_sixteen_channels_each(first, second):
    tracks = [
        meta_bytes(0x51, b"\x07\xa1\x20"),
        first + program_bytes(0, 0) + beat(0) + beat(9),
        second + program_bytes(0, 48) + beat(0) + beat(9),
    ]
    assert sorted(voices(*tracks)) == [(0, 0, 0), (9, DRUM_BANK, 0), (16, 0, 48), (25, DRUM_BANK, 0)]
    ends_s = parse_midi(song(*tracks), "file.mid").notes
    assert np.allclose(ends_s["end_s"] - ends_s["time_s"], 0.25)  # no note is cut by the same key of the other port


def test_a_port_may_change_within_a_track_and_one_port_alone_is_the_first():
    both = program_bytes(0, 4) + beat(0) + meta_bytes(0x21, b"\3") + program_bytes(0, 48) + beat(0)
    assert voices(meta_bytes(0x21, b"\2") + both) == [(0, 0, 4), (16, 0, 48)]
    assert voices(meta_bytes(0x21, b"\7") + program_bytes(0, 48) + beat(0)) == [(0, 0, 48)]
    assert voices(meta_bytes(0x21, b"") + program_bytes(0, 48) + beat(0)) == [(0, 0, 48)]
    assert voices(program_bytes(0, 48), meta_bytes(0x09, b"any") + beat(0)) == [(0, 0, 48)]


def test_messages_to_the_parts_of_a_second_port_change_that_port_only():
    second = meta_bytes(0x21, b"\1") + roland("401A1501") + beat(10)
    assert sorted(voices(beat(10), second)) == [(10, 0, 0), (26, DRUM_BANK, 0)]
    from_first = roland("501A1501") + beat(10)  # the parts B of a Sound Canvas, set from port A
    assert sorted(voices(from_first, meta_bytes(0x21, b"\1") + beat(10))) == [(10, 0, 0), (26, DRUM_BANK, 0)]


def test_releases_belong_with_the_note_struck_last_by_their_key():
    track = XG_ON + control_bytes(10, 0, 127) + program_bytes(10, 0) + beat(10, 60)
    track += control_bytes(10, 0, 0) + program_bytes(10, 0) + beat(10, 60) + beat(9, 60) + beat(0, 60)
    events = parse_midi(song(track), "file.mid").events
    assert midi.is_percussion(events).tolist() == [True, True, False, False, True, True, False, False]
    stray = parse_midi(song(b"\x00\x89\x3c\x40" + b"\x00\x80\x3c\x40" + beat(9, 62) + beat(0, 62)), "file.mid").events
    assert midi.is_percussion(stray).tolist() == [True, False, True, True, False, False]


# ---- Damage that others play over -----------------------------------------------------------------------------------
TUNE = program_bytes(0, 48) + beat(0, 60, 64, 67)
SECOND = chunk(program_bytes(1, 0) + beat(1, 60) + END)


ODD_METAS = [
    *((0x54, b"\xff\0\0\0\0"), (0x54, b"\1"), (0x20, b""), (0x20, b"\1\2\3"), (0x00, b""), (0x00, b"\1"), (0x21, b"")),
    *((0x51, b""), (0x51, b"\1"), (0x51, b"\x07\xa1\x20\x09"), (0x58, b"\4\2"), (0x58, b"")),
    *((0x59, b"\x0b\x05"), (0x59, b""), (0x2E, b"\1")),
]


def list_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)


def wrapped(*chunks: bytes) -> bytes:
    data = b"RMID" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(data)) + data


INFO = list_chunk(b"LIST", b"INFO" + list_chunk(b"INAM", b"A title of so many letters that the music begins late"))


@pytest.mark.parametrize(
    "data",
    [
        song(chunk(TUNE + END + b"\xde\xad\xbe\xef" * 3)),
        song(chunk(TUNE + END + bytes(100))),
        song(chunk(TUNE + END + b"\x00\x90\x3c")),
        song(chunk(TUNE + END, len(TUNE) + 44)),
        song(chunk(TUNE + END, 0xFFFFFFFF)),
        song(chunk(TUNE + END, len(TUNE))),
        song(chunk(TUNE)),
        song(TUNE) + b"\0" * 500,
        song(TUNE, n_tracks=3),
        song(chunk(b"abcd", name=b"XFIH"), TUNE),
        chunk(struct.pack(">HHH", 1, 1, 96) + bytes(4), name=b"MThd") + chunk(TUNE + END),
        b"\0" * 128 + song(TUNE),
        b"\xef\xbb\xbf" + song(TUNE),
        wrapped(list_chunk(b"data", song(TUNE))),
        wrapped(INFO, list_chunk(b"data", song(TUNE))),
        wrapped(list_chunk(b"DISP", b"\1\0\0\0" + b"x" * 99), INFO, list_chunk(b"data", song(TUNE))),
        *(song(meta_bytes(kind, value) + TUNE) for kind, value in ODD_METAS),
        song(TUNE[:-1] + b"\x40" + meta_bytes(0x06, b"far", 96 * 2 * 3600 * 5)),
        song(chunk(TUNE + variable(96 * 2 * 3600 * 5) + END[1:])),
        song(TUNE + variable(96 * 2 * 3600 * 5) + b"\xb0\x5b\x00"),
        song(b"\x00\xf8" + TUNE + b"\x00\xfe"),
        song(b"\0\xf0\x03\x43\x12\x00" + TUNE),
    ],
)  # fmt: skip
def test_what_does_not_concern_the_music_changes_nothing_and_is_not_mentioned(data, caplog):
    read = parse_midi(data, "odd.mid")
    assert np.array_equal(read.events, parse_midi(song(TUNE), "file.mid").events)
    assert read.duration_s == pytest.approx(0.75)
    assert not caplog.records


@pytest.mark.parametrize("length", [len(TUNE) + 6, len(TUNE) - 6])
def test_a_wrong_length_of_one_track_leaves_the_next_one_whole(length):
    assert len(parse_midi(song(chunk(TUNE + END, length), SECOND), "file.mid").notes) == 4
    assert len(parse_midi(song(SECOND, chunk(TUNE + END, length), SECOND), "file.mid").notes) == 5
    assert len(parse_midi(song(chunk(TUNE + END, length), SECOND, n_tracks=1), "file.mid").notes) == 4


@pytest.mark.parametrize(
    ("data", "n_notes", "complaint"),
    [
        (song(TUNE)[:-14], 2, "track 1 ends too early at byte"),
        (song(TUNE)[:-12], 2, "track 1 ends too early at byte 41"),  # between two messages
        (song(chunk(TUNE + END, 400))[:-4], 3, "track 1 ends too early"),
        (song(TUNE + b"\0\xf4" + beat(0, 72)), 3, r"track 1 has an undefined status byte \(0xf4\) at byte 49"),
        (
            song(beat(1, 60), TUNE + b"\xff\xff\xff\xff\x7f" + beat(0, 72)),
            4,
            "track 2 has a number of more than",
        ),
        (song(b"\0\x3c\x64" + beat(0, 72), TUNE), 3, "track 1 has a message without a status byte"),
        (
            song(TUNE + b"\0\x90\x48\xc8", TUNE + b"\0\x90\x48\xc8"),
            8,
            "track 1 has data bytes above 127, 1 of them, and 1 more",
        ),
    ],
)
def test_a_damaged_track_is_played_up_to_where_it_ends_with_one_line(data, n_notes, complaint, caplog):
    midi._warn_once.cache_clear()
    for _ in range(2):
        assert len(parse_midi(data, "some/file.mid").notes) == n_notes
    (record,) = caplog.records  # once, however often it is read
    message = record.getMessage()
    assert re.match(r"some/file.mid: damaged MIDI file, played as far as it can be read \(" + complaint, message)
    assert "\n" not in message


# ---- When notes end -------------------------------------------------------------------------------------------------
def test_a_note_ends_when_its_key_is_released():
    assert piece(note(1, 2, 60), note(2, 0.5, 64)).notes["end_s"].tolist() == [3, 2.5]


def test_a_note_on_without_velocity_is_a_note_off():
    notes = parsed([on(60), on(60, 480, velocity=0), on(62, 480), off(62, 480)]).notes
    assert notes["number"].tolist() == [60, 62]
    assert notes["end_s"] == pytest.approx([0.5, 1.5])


def test_a_release_on_another_channel_or_of_another_key_ends_nothing():
    notes = parsed([on(60), off(60, 240, 1), off(61, 240), off(60, 480)]).notes
    assert notes["end_s"] == pytest.approx([1.0])


def test_a_key_struck_again_ends_its_earlier_note():
    notes = parsed([on(60), on(60, 480), off(60, 480), off(60, 480)]).notes
    assert notes["end_s"] == pytest.approx([0.5, 1.0])


def test_a_note_never_released_ends_with_the_piece():
    parsed_piece = parsed([on(60), on(62, 480), off(62, 480), cc(7, 90, 480)])
    assert parsed_piece.notes["end_s"] == pytest.approx([1.5, 1.0])
    assert parsed_piece.duration_s == pytest.approx(1.5)


def test_the_sustain_pedal_holds_released_notes_until_it_is_lifted():
    rows = [control(0.5, 64, 127), note(1, 1, 60), note(1, 4, 64), control(3, 64, 0), note(6, 1, 67)]
    assert piece(*rows).notes["end_s"].tolist() == [3, 5, 7]


def test_the_pedal_of_one_channel_holds_no_note_of_another():
    assert piece(control(0, 64, 127, channel=1), note(1, 1, 60), control(5, 64, 0)).notes["end_s"].tolist() == [2]


@pytest.mark.parametrize(("value", "end_s"), [(63, 2), (64, 5)])
def test_the_pedal_is_down_from_64_on(value, end_s):
    assert piece(control(0, 64, value), note(1, 1, 60), control(5, 64, 0)).notes["end_s"].tolist() == [end_s]


def test_the_pedal_pressed_while_a_key_is_down_holds_its_note_too():
    assert piece(note(1, 1, 60), control(1.5, 64, 100), control(5, 64, 0)).notes["end_s"].tolist() == [5]


def test_a_key_struck_again_under_the_pedal_ends_its_earlier_note():
    rows = [control(0, 64, 127), note(1, 0.5, 60), note(2, 0.5, 60), control(5, 64, 0)]
    assert piece(*rows).notes["end_s"].tolist() == [2, 5]


def test_reset_all_controllers_lifts_the_pedal():
    rows = [control(0, 64, 127), note(1, 1, 60), control(3, 121, 0), control(5, 64, 0)]
    assert piece(*rows).notes["end_s"].tolist() == [3]


def test_all_notes_off_releases_the_keys_of_its_channel():
    rows = [note(1, 5, 60), note(1, 5, 64), note(1, 5, 60, channel=1), control(2, 123, 0)]
    assert sorted(piece(*rows).notes["end_s"].tolist()) == [2, 2, 6]


def test_all_notes_off_leaves_sounding_what_the_pedal_holds():
    rows = [control(0, 64, 127), note(1, 5, 60), note(1, 0.5, 64), control(2, 123, 0), control(4, 64, 0)]
    assert piece(*rows).notes["end_s"].tolist() == [4, 4]


def test_all_sound_off_ends_even_what_the_pedal_holds():
    rows = [control(0, 64, 127), note(1, 5, 60), note(1, 0.5, 64), control(2, 120, 0), control(4, 64, 0)]
    assert piece(*rows).notes["end_s"].tolist() == [2, 2]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(NOTE_ON), st.sampled_from([60, 61]), st.just(90)),
            st.tuples(st.just(NOTE_OFF), st.sampled_from([60, 61]), st.just(0)),
            st.tuples(st.just(CONTROL), st.sampled_from([64, 120, 121, 123]), st.sampled_from([0, 127])),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_happens_a_note_ends_after_it_began_and_never_sounds_twice_at_once(happenings):
    rows = [(0, NOTE_ON, 0, 0, 0, 60, 90)]
    rows += [(i + 1, kind, i % 2, 0, 0, number, value) for i, (kind, number, value) in enumerate(happenings)]
    made = midi.make_piece("random", rows)
    notes = made.notes
    assert (notes["end_s"] >= notes["time_s"]).all()
    assert (notes["end_s"] <= made.duration_s).all()
    for key in {(n["channel"], n["number"]) for n in notes}:
        mine = notes[(notes["channel"] == key[0]) & (notes["number"] == key[1])]
        assert (mine["end_s"][:-1] <= mine["time_s"][1:]).all()


# ---- What else an event carries -------------------------------------------------------------------------------------
def test_bends_and_pressures_and_controllers_arrive_with_their_values():
    track = [
        mido.Message("pitchwheel", pitch=-8192, channel=1),
        mido.Message("pitchwheel", pitch=8191, channel=1),
        mido.Message("aftertouch", value=5, channel=2),
        mido.Message("polytouch", note=60, value=6, channel=3),
        cc(11, 127, channel=4),
        on(127, velocity=127, channel=15),
        off(127, 480, 15),
    ]
    events = parsed(track).events
    assert events[["kind", "channel", "number", "value"]].tolist() == [
        (BEND, 1, 0, -8192),
        (BEND, 1, 0, 8191),
        (CHANNEL_PRESSURE, 2, 0, 5),
        (KEY_PRESSURE, 3, 60, 6),
        (CONTROL, 4, 11, 127),
        (NOTE_ON, 15, 127, 127),
        (NOTE_OFF, 15, 127, 0),
    ]


def test_the_events_of_a_piece_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        piece(note(0, 1, 60)).events["value"] = 0


def test_a_piece_without_a_note_is_refused_by_its_name():
    with pytest.raises(InputError, match="^silence: holds no note$"):
        midi.make_piece("silence", control(0, 7, 100))
    with pytest.raises(InputError, match="^nothing: holds no note$"):
        midi.make_piece("nothing", [])


# ---- Odd and damaged files ------------------------------------------------------------------------------------------
def test_data_bytes_over_127_are_clipped():
    damaged = b"\x00\x90\x3c\xc8" + b"\x60\x80\x3c\x40" + END
    notes = parse_midi(raw_file(damaged), "file.mid").notes
    assert notes["value"].tolist() == [127]


@pytest.mark.parametrize("key", [b"\xff\xff", b"\x09\x00", b"\x00\x05", b"\x80\x01", b""])
def test_an_undefined_key_signature_is_no_reason_to_refuse_a_song(key):
    data = raw_file(b"\x00\xff\x59" + bytes([len(key)]) + key + A_NOTE + END)
    assert len(parse_midi(data, "file.mid").notes) == 1


def test_running_status_is_understood():
    data = raw_file(b"\x00\x90\x3c\x64" + b"\x60\x3c\x00" + b"\x00\x40\x64" + b"\x60\x40\x00" + END)
    assert parse_midi(data, "file.mid").notes["end_s"] == pytest.approx([0.5, 1.0])


def test_a_midi_file_in_a_riff_wrapper_is_read():
    data = raw_file(A_NOTE + END)
    wrapped = b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data
    assert np.array_equal(parse_midi(wrapped, "a.rmi").events, parse_midi(data, "a.mid").events)


def test_a_tempo_of_zero_does_not_stop_time():
    data = raw_file(b"\x00\xff\x51\x03\x00\x00\x00" + A_NOTE + END)
    assert parse_midi(data, "file.mid").notes["end_s"] == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a MIDI file"),
        (b"RIFF0000RMIDdata0000", "not a MIDI file"),
        (b"<html>", "not a MIDI file"),
        (b"MThd", "it ends too early"),
        (b"MThd\0\0\0\6\0\1\0\1\0\x60", "it holds no track"),
        (b"MThd\0\0\0\2\0\1", "damaged MIDI file"),
        (raw_file(A_NOTE + END, ticks_per_beat=0), "zero ticks per beat"),
        (raw_file(END), "holds no note"),
        (raw_file(b"\x00\xf4" + A_NOTE + END), "undefined status byte"),
        (raw_file(b"\xff\xff\xff\x7f" + A_NOTE[1:] + END), "lasts 1398102 s"),
    ],
    ids=["empty", "riff", "html", "header", "track", "short", "division", "silent", "status", "long"],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_the_file_and_the_reason(data, complaint):
    with pytest.raises(InputError, match=complaint) as refusal:
        parse_midi(data, "some/file.mid")
    assert str(refusal.value).startswith("some/file.mid: ")
    assert "\n" not in str(refusal.value)


def test_a_file_larger_than_any_song_is_refused_unread():
    with pytest.raises(InputError, match=f"file.mid: {midi_file.MAX_BYTES + 1} bytes, more than a song needs"):
        parse_midi(raw_file(A_NOTE + END).ljust(midi_file.MAX_BYTES + 1, b"\0"), "file.mid")
    assert len(parse_midi(raw_file(A_NOTE + END).ljust(midi_file.MAX_BYTES, b"\0"), "file.mid").notes) == 1


def test_a_file_of_more_events_than_any_song_is_refused(monkeypatch):
    monkeypatch.setattr(midi_file, "MAX_MESSAGES", 2)
    assert len(parsed([on(60), off(60, 9)]).notes) == 1
    with pytest.raises(InputError, match="file.mid: more than 2 events, more than a song needs"):
        parsed([on(60), off(60, 9), on(60), off(60, 9)])


def test_a_file_of_more_tracks_than_any_song_is_refused(monkeypatch):
    monkeypatch.setattr(midi_file, "MAX_TRACKS", 2)
    assert len(parsed([on(60), off(60, 9)], []).notes) == 1
    with pytest.raises(InputError, match="file.mid: more than 2 tracks, more than a song needs"):
        parsed([on(60), off(60, 9)], [], [])


def held_keys(n_keys: int) -> bytes:
    return b"".join(bytes([0, 0x90 | channel, key, 1]) for channel in range(16) for key in range(n_keys))


@pytest.mark.parametrize(
    "track",
    [
        b"\x00\x90\x3c\x64" + b"\xff" * 2_000_000 + b"\x7f\x80\x3c\x40",  # the time of an event in 2 MB
        held_keys(128) + b"\x00\xb0\x7b\x00" + b"\x00\x7b\x00" * 400_000,  # All Notes Off while 2,048 keys are down
        held_keys(128) + (b"\x00\xf0\x05\x7e\x7f\x09\x01\xf7" + b"\x00\x90\x3c\x01") * 150_000,  # resets
        b"\x00\xff\x21\x01\x00\x00\xff\x21\x01\x01" * 100_000 + A_NOTE,  # ports
        b"".join(b"\x00\xff\x09\x03" + i.to_bytes(3, "big") for i in range(200_000)) + A_NOTE,  # devices
    ],
    ids=["delta", "notes off", "resets", "ports", "devices"],
)
def test_no_file_below_the_limit_of_size_takes_long(track):
    before_s = time.process_time()
    with contextlib.suppress(InputError):
        parse_midi(raw_file(track + END), "file.mid")
    assert time.process_time() - before_s < 10  # a second or two, with room for a slow machine


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="none.mid: No such file or directory"):
        read_midi(tmp_path / "none.mid")
    with pytest.raises(InputError, match=f"{tmp_path}: Is a directory"):
        read_midi(tmp_path)


def test_a_file_is_read_as_its_bytes_are_and_named_by_its_path(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_bytes([on(60), off(60, 480)]))
    for written in (path, str(path)):
        assert read_midi(written).name == str(path)
        assert np.array_equal(read_midi(written).events, parse_midi(path.read_bytes(), "x").events)


def a_rich_file() -> bytes:
    """Some of everything that a file may hold."""
    names = ("track_name", "copyright", "lyrics", "marker")
    head = [
        tempo(400_000),
        mido.MetaMessage("key_signature", key="Bb"),
        mido.MetaMessage("time_signature", numerator=3),
    ]
    head += [mido.MetaMessage(name, **{"text" if name != "track_name" else "name": "é"}) for name in names]
    head += [mido.MetaMessage("smpte_offset"), mido.MetaMessage("sequencer_specific", data=(1, 2, 3))]
    head += [mido.MetaMessage("sequence_number", number=3), mido.MetaMessage("midi_port", port=1)]
    body = [
        mido.Message("sysex", data=(1, 2, 3)),
        program(48),
        cc(0, 8),
        cc(7, 90),
        mido.Message("pitchwheel", pitch=200),
    ]
    body += [mido.Message("aftertouch", value=3), mido.Message("polytouch", note=4, value=3), cc(64, 127)]
    for pitch in range(60, 72):
        body += [on(pitch, 10), off(pitch, 200)]
    return midi_bytes(head, body, [on(38, 5, 9), off(38, 50, 9)], ticks_per_beat=96)


RICH_FILE = a_rich_file()


def piece_or_input_error(data: bytes) -> None:
    try:
        read = parse_midi(data, "damaged.mid")
    except InputError as error:
        assert str(error).startswith("damaged.mid: ")
        assert "\n" not in str(error)
        return
    notes = read.notes
    assert len(notes) > 0
    assert (np.diff(read.events["time_s"]) >= 0).all()
    assert (notes["end_s"] >= notes["time_s"]).all()
    assert 0 <= read.duration_s <= midi.MAX_DURATION_S


def test_a_file_cut_off_anywhere_is_a_piece_or_an_input_error():
    assert len(parse_midi(RICH_FILE, "whole").notes) == 13
    for length in range(len(RICH_FILE)):
        piece_or_input_error(RICH_FILE[:length])


@given(
    st.lists(
        st.tuples(st.integers(0, len(RICH_FILE) - 1), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=20
    )
)
def test_a_file_damaged_anywhere_is_a_piece_or_an_input_error(damages):
    data = bytearray(RICH_FILE)
    for position, n_lost, inserted in damages:
        data[position : position + n_lost] = inserted
    piece_or_input_error(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_in_a_track_are_a_piece_or_an_input_error(track):
    piece_or_input_error(raw_file(track))
    piece_or_input_error(raw_file(A_NOTE + track + END))


# ---- Real files -----------------------------------------------------------------------------------------------------
def listed(folder: str) -> list[dict]:
    path = SHARED / folder / "MANIFEST.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sampled() -> list:
    """Real files of each kind, the smaller ones, for speed."""
    rows = [row for row in listed("midi") if int(row["n_notes"]) < 3_000]
    rows = random.Random(0).sample(rows, min(8, len(rows)))
    late = [row for row in listed("midi") if row["tempo_on_nonzero_track"] == "True" and int(row["n_notes"]) < 4_000]
    rows += [row for row in late if row not in rows][:8]
    return rows or [pytest.param({}, marks=pytest.mark.skip(reason="no ../shared/midi here"))]


@pytest.mark.parametrize("row", sampled(), ids=lambda row: row.get("file", "none"))
def test_a_real_file_lasts_as_long_and_holds_as_many_notes_as_its_manifest_says(row):
    read = read_midi(SHARED / "midi" / row["file"])
    ends_s = np.array([read.duration_s, read.notes["end_s"].max()])  # the manifest has the one or the other
    assert np.abs(ends_s - float(row["duration_true_s"])).min() < 0.01
    assert len(read.notes) == pytest.approx(int(row["n_notes"]), rel=0.03)  # it has no note that is never released
    programs = {int(p) for p in row["programs"].split()}
    assert set(read.notes[read.notes["bank"] != DRUM_BANK]["program"].tolist()) == programs


@pytest.mark.parametrize(
    "row",
    listed("midi_bad") or [pytest.param({}, marks=pytest.mark.skip(reason="no ../shared/midi_bad here"))],
    ids=lambda row: row.get("file", "none"),
)
def test_a_real_broken_file_is_read_with_its_notes_or_refused_in_one_line_that_names_it(row):
    path = SHARED / "midi_bad" / row["file"]
    playable = row["kind"] in ("data byte >127", "KeySignatureError")
    repairable = ("corrupt-file-missing-byte", "non-midi-track", "running-status-sysex")  # with 8 notes each
    if playable:
        read = read_midi(path)
        assert len(read.notes) > 1_000
        assert 60 < read.duration_s < 600
    elif row["file"].removeprefix("jazzsoft-test-midi__test-").removesuffix(".mid") in repairable:
        assert len(read_midi(path).notes) == 8
    else:
        with pytest.raises(InputError) as refusal:
            read_midi(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)


def test_drums_are_heard_in_drum_rows_alone():
    made = piece(drum(0), note(0, 1, 60))
    assert made.notes_of(CANDIDATES["drums"])["number"].tolist() == [38]
    assert made.notes_of(CANDIDATES["piano"])["number"].tolist() == [60]
