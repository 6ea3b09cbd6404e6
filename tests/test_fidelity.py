"""What we render, compared with FluidSynth's own player."""

import shutil

import mido
import pytest
from conftest import SOUNDFONT

from benchmarks import fidelity

pytestmark = pytest.mark.skipif(not shutil.which("fluidsynth"), reason="the fluidsynth program is not installed")


def compare(path):
    _, difference_db, correlation, clocked_db, clocked = fidelity.compare((str(path), SOUNDFONT))
    return difference_db, correlation, clocked_db, clocked


@pytest.mark.parametrize(
    "song",
    [
        "simutrans/43-Driving-on-the-midnight-highway.mid",  # tempo changes on which the player's clock drifts
        "pianobooster/BoosterMusic__06-Greensleeves.mid",
        "apt-freedink-data/games__dink__dink__Sound__1003.mid",
        "easyrpg-rtp/Dungeon_1.mid",
    ],
)
def test_real_songs_sound_as_fluidsynth_plays_them(real_midi, song):
    difference_db, correlation, clocked_db, clocked = compare(real_midi / song)
    assert difference_db < 2.5 and correlation > 0.9
    assert clocked_db < 0.05 and clocked > 0.999


def test_tempo_on_a_later_track_counts_as_it_does_for_fluidsynth(tmp_path):
    song = mido.MidiFile(type=1, ticks_per_beat=96)
    notes, tempo = song.add_track(), song.add_track()
    tempo.append(mido.MetaMessage("set_tempo", tempo=900_000, time=96))
    tempo.append(mido.MetaMessage("set_tempo", tempo=250_000, time=96 * 4))
    for pitch in (60, 64, 67, 72) * 4:
        notes.append(mido.Message("note_on", note=pitch, velocity=100))
        notes.append(mido.Message("note_off", note=pitch, time=48))
    song.save(tmp_path / "song.mid")
    difference_db, correlation, clocked_db, clocked = compare(tmp_path / "song.mid")
    assert difference_db < 1.0 and correlation > 0.98
    assert clocked_db < 0.01 and clocked > 0.9999


def test_channels_programs_banks_bends_and_pedals_are_those_of_fluidsynth(tmp_path):
    song = mido.MidiFile(ticks_per_beat=96)
    track = song.add_track()
    for channel, program in ((0, 0), (1, 48), (9, 16), (5, 33)):
        track.append(mido.Message("program_change", channel=channel, program=program))
    for control, value in ((101, 0), (100, 0), (6, 12), (7, 70), (1, 90)):
        track.append(mido.Message("control_change", channel=1, control=control, value=value))
    track.append(mido.Message("control_change", channel=0, control=64, value=127))
    track.append(mido.Message("control_change", channel=5, control=0, value=8))
    track.append(mido.Message("program_change", channel=5, program=38))
    for step in range(12):
        for channel, pitch in ((0, 60 + step), (1, 55), (9, 36 + step), (5, 40)):
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=60 + 5 * step))
        track.append(mido.Message("pitchwheel", channel=1, pitch=600 * step))
        track.append(mido.Message("control_change", channel=5, control=11, value=127 - 8 * step))
        track.append(mido.Message("aftertouch", channel=1, value=10 * step))
        for position, (channel, pitch) in enumerate(((0, 60 + step), (1, 55), (9, 36 + step), (5, 40))):
            track.append(mido.Message("note_off", channel=channel, note=pitch, time=30 * (position == 0)))
        if step == 6:
            track.append(mido.Message("control_change", channel=0, control=64, value=0))
            track.append(mido.Message("control_change", channel=1, control=121, value=0))
    song.save(tmp_path / "song.mid")
    _, _, clocked_db, clocked = compare(tmp_path / "song.mid")
    assert clocked_db < 0.05 and clocked > 0.9999
