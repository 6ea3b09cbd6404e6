"""MIDI files -> pieces: true time, true programs, true ends of notes, and never an error but InputError."""

from __future__ import annotations

import csv
import random
import signal
import struct

import mido
import numpy as np
import pytest
from data_helpers import SHARED, cc, control, drum, midi_bytes, note, off, on, piece, program, tempo
from hypothesis import given
from hypothesis import strategies as st

from data_gen import InputError, midi
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


def test_the_notes_of_an_instrument_are_those_of_its_programs_and_drums_are_channel_10():
    tracks = [[program(2), on(60), off(60, 480)], [program(48, channel=1), on(62, channel=1), off(62, 480, 1)]]
    drums = [program(48, channel=9), on(38, channel=9), off(38, 480, 9)]
    parsed_piece = parsed(*tracks, drums)
    found = {name: parsed_piece.notes_of(instrument)["number"].tolist() for name, instrument in CANDIDATES.items()}
    assert {name: numbers for name, numbers in found.items() if numbers} == {
        "drums": [38],
        "piano": [60],
        "strings": [62],
    }


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
        (b"MThd\0\0\0\6\0\1\0\1\0\x60", "it ends too early"),
        (b"MThd\0\0\0\2\0\1", "damaged MIDI file"),
        (raw_file(A_NOTE + END, ticks_per_beat=0), "zero ticks per beat"),
        (raw_file(END), "holds no note"),
        (raw_file(b"\x00\xf4" + A_NOTE + END), "undefined status byte"),
        (raw_file(b"\xff\xff\xff\x7f" + A_NOTE[1:] + END), "lasts 1398102 s"),
        (raw_file(b"\x00\x90\x3c\x64" + b"\xff" * 200 + b"\x7f" + b"\x80\x3c\x40" + END), "file.mid: "),
    ],
    ids=["empty", "riff", "html", "header", "track", "short", "division", "silent", "status", "long", "absurd"],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_the_file_and_the_reason(data, complaint):
    with pytest.raises(InputError, match=complaint) as refusal:
        parse_midi(data, "some/file.mid")
    assert str(refusal.value).startswith("some/file.mid: ")
    assert "\n" not in str(refusal.value)


def test_a_delta_time_of_thousands_of_bytes_is_refused():
    data = raw_file(b"\x00\x90\x3c\x64" + b"\xff" * 2_000 + b"\x7f\x80\x3c\x40" + END)
    with pytest.raises(InputError, match="^file.mid: "):
        parse_midi(data, "file.mid")


def test_a_file_larger_than_any_song_is_refused_unread():
    with pytest.raises(InputError, match=f"file.mid: {midi.MAX_FILE_BYTES + 1} bytes, more than a song needs"):
        parse_midi(raw_file(A_NOTE + END).ljust(midi.MAX_FILE_BYTES + 1, b"\0"), "file.mid")
    assert len(parse_midi(raw_file(A_NOTE + END).ljust(midi.MAX_FILE_BYTES, b"\0"), "file.mid").notes) == 1


def test_a_file_of_more_events_than_any_song_is_refused(monkeypatch):
    monkeypatch.setattr(midi, "MAX_EVENTS", 4)
    assert len(parsed([on(60), off(60, 9)]).notes) == 1
    with pytest.raises(InputError, match="file.mid: 5 events, more than a song needs"):
        parsed([on(60), off(60, 9), on(60), off(60, 9)])


def test_a_file_of_more_tracks_than_any_song_is_refused(monkeypatch):
    monkeypatch.setattr(midi, "MAX_TRACKS", 2)
    assert len(parsed([on(60), off(60, 9)], []).notes) == 1
    with pytest.raises(InputError, match="file.mid: 3 tracks, more than a song needs"):
        parsed([on(60), off(60, 9)], [], [])


def test_a_file_made_to_take_hours_is_given_up_and_the_alarm_is_taken_back(monkeypatch):
    # The time of an event is a number of any length, which mido builds up in quadratic time.
    monkeypatch.setattr(midi, "MAX_PARSING_S", 0.1)
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(InputError, match="^file.mid: not read within"):
        parse_midi(raw_file(b"\x00\x90\x3c\x64" + b"\xff" * 1_000_000 + b"\x7f\x80\x3c\x40" + END), "file.mid")
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


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
    if playable:
        read = read_midi(path)
        assert len(read.notes) > 1_000
        assert 60 < read.duration_s < 600
    else:
        with pytest.raises(InputError) as refusal:
            read_midi(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)


def test_drums_are_heard_in_drum_rows_alone():
    made = piece(drum(0), note(0, 1, 60))
    assert made.notes_of(CANDIDATES["drums"])["number"].tolist() == [38]
    assert made.notes_of(CANDIDATES["piano"])["number"].tolist() == [60]
