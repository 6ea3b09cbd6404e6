"""SoundFonts made of sample packs: folders named by note or drum, SFZ files, Hydrogen kits."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from data_helpers import DRUMS, PIANO, RATE_HZ, drum, note, piece, pitch_hz, rms

from data_gen import InputError
from data_gen.instruments import DRUM_BANK
from data_gen.make_soundfont import drum_keys, note_key, read_source
from data_gen.soundfont_file import write_soundfont
from data_gen.synth import Synthesizer


def write_sine(path, hz, level=0.5, rate_hz=22_050, seconds=1.5):
    """A stereo file of a sine whose sides differ in level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), rate_hz)


def pitch_of(preset, tmp_path, key, velocity=100):
    """Pitch and level of a note of a preset, played as a piano."""
    write_soundfont(tmp_path / "made.sf2", [preset])
    stems = Synthesizer(tmp_path / "made.sf2", (PIANO,), RATE_HZ).render(
        piece(note(0, 1, key, program=preset.program, velocity=velocity)), 0, RATE_HZ
    )
    return pitch_hz(stems[2_000:14_000, 0]), rms(stems)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Piano_C4", 60),
        ("A0-soft", 21),
        ("harp Bb3 v2", 58),
        ("f#5", 78),
        ("x_Cs2", 37),
        ("string 064", 64),
        ("ambient", None),
    ],
)
def test_the_note_of_a_file_is_read_from_its_name(name, key):
    assert note_key(name) == key


@pytest.mark.parametrize(
    ("name", "keys"),
    [("Kick_01", (35, 36)), ("snare-soft", (38, 40)), ("HiHat Open", (46,)), ("closed hh", (42,)), ("piano", ()),
     ("Floor Tom", (41, 43))],
)  # fmt: skip
def test_the_drum_of_a_file_is_read_from_its_name(name, keys):
    assert drum_keys(name) == keys


def test_a_folder_of_notes_plays_in_tune_between_them_and_softly_for_low_velocities(tmp_path):
    for name, hz in (("A3", 220), ("A4", 440)):
        write_sine(tmp_path / "pack" / f"{name}_loud.wav", hz)
        write_sine(tmp_path / "pack" / f"{name}_soft.wav", hz, 0.05)
    preset = read_source(f"piano={tmp_path}/pack")
    assert (preset.bank, preset.program, len(preset.zones)) == (0, 0, 4)
    for key in (57, 60, 69, 76):
        hz, loud = pitch_of(preset, tmp_path, key)
        assert hz == pytest.approx(440 * 2 ** ((key - 69) / 12), rel=0.01)
        assert pitch_of(preset, tmp_path, key, 60)[1] < 0.2 * loud


def test_a_folder_of_drums_and_a_hydrogen_kit_play_the_drums_that_files_are_named_by(tmp_path):
    write_sine(tmp_path / "kit" / "one.wav", 100)
    write_sine(tmp_path / "kit" / "two.wav", 400)
    rows = "".join(
        f"<instrument><id>{i}</id><name>{name}</name><layer><filename>{file}.wav</filename></layer></instrument>"
        for i, (name, file) in enumerate((("Kick", "one"), ("Snare Rock", "two"), ("Gone", "three")))
    )
    xml = f'<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit"><instrumentList>{rows}</instrumentList></drumkit_info>'
    (tmp_path / "kit" / "drumkit.xml").write_text(xml)
    write_sine(tmp_path / "folder" / "kick.wav", 100)
    write_sine(tmp_path / "folder" / "snare_1.wav", 400)
    for source in ("kit", "folder"):
        preset = read_source(str(tmp_path / source))
        assert (preset.bank, {zone.keys[0] for zone in preset.zones}) == (DRUM_BANK, {35, 36, 38, 40})
        write_soundfont(tmp_path / "kit.sf2", [preset])
        synthesizer = Synthesizer(tmp_path / "kit.sf2", (DRUMS,), RATE_HZ)
        for key, hz in ((36, 100), (38, 400)):
            assert pitch_hz(synthesizer.render(piece(drum(0, key)), 0, 12_000)[:, 0]) == pytest.approx(hz, rel=0.02)


def test_an_sfz_file_keeps_ranges_tuning_loops_and_inherited_opcodes(tmp_path):
    write_sine(tmp_path / "samples" / "a sine.wav", 441, seconds=0.5)
    (tmp_path / "one.sfz").write_text(
        """// a comment
        #define $KEY 69
        <control> default_path=samples/
        <group> pitch_keycenter=$KEY ampeg_release=0.05 loop_mode=loop_continuous loop_start=1000 loop_end=5999
        <region> sample=a sine.wav lokey=0 hikey=71
        <region> sample=a sine.wav lokey=c5 hikey=127 transpose=-12 volume=-12
        <region> sample=a sine.wav trigger=release
        <region> sample=gone.wav key=20
        """
    )
    preset = read_source(f"4={tmp_path}/one.sfz")
    assert [zone.keys for zone in preset.zones] == [(0, 71), (72, 127)]
    assert (preset.program, preset.zones[0].sample.loop) == (4, (1_000, 6_000))
    hz, level = pitch_of(preset, tmp_path, 69)
    assert hz == pytest.approx(441, rel=0.01)  # and it still sounds after the half second of the file
    lower_hz, softer = pitch_of(preset, tmp_path, 81)
    assert lower_hz == pytest.approx(441, rel=0.01)
    assert softer == pytest.approx(level * 10 ** (-12 / 20), rel=0.15)


def test_an_sfz_file_follows_includes_and_plays_what_sounds_before_any_controller_moves(tmp_path):
    for name, hz in (("a", 220), ("b", 440)):
        write_sine(tmp_path / "samples" / f"{name}.wav", hz, seconds=0.5)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "one.sfz").write_text("<region> sample=$FILE.wav key=$KEY $MORE")
    (tmp_path / "all.sfz").write_text(
        """/* over
        lines */ <control> default_path=samples/ set_cc20=64 note_offset=12
        <global> sw_lokey=0 sw_hikey=3 sw_default=1 ampeg_sustain=0 ampeg_sustain_oncc20=100
        #define $FILE a
        #define $KEY 45
        #define $MORE group_volume=-6
        #include "maps/one.sfz"
        #define $FILE b
        #define $KEY 57
        #define $MORE volume_oncc20=-3
        <group> volume=1.5
        #include "maps\\one.sfz"
        <group> key=60
        """
        + "\n".join(
            f"<region> sample=b.wav {more}"
            for more in ("seq_position=2", "lorand=0.5", "trigger=release", "sw_last=2", "locc20=65", "on_locc1=1",
                         "xfin_locc1=0 xfin_hicc1=127", "amplitude_oncc1=100", "end=-1")
        )
        + "<region> sample=*silence <region> sample=b.wav key=61 sw_last=1 hicc20=64 xfout_locc1=0 xfout_hicc1=9"
    )  # fmt: skip
    preset = read_source(f"piano={tmp_path}/all.sfz")
    assert [zone.keys[0] for zone in preset.zones] == [57, 69, 73]
    (low_hz, softer), (high_hz, level) = (pitch_of(preset, tmp_path, key) for key in (57, 69))
    assert (low_hz, high_hz) == (pytest.approx(220, rel=0.01), pytest.approx(440, rel=0.01))
    assert softer == pytest.approx(level * 10 ** (-6 / 20), rel=0.15)
    (tmp_path / "maps" / "one.sfz").write_text('#include "maps/one.sfz"')
    with pytest.raises(InputError, match="includes itself"):
        read_source(f"piano={tmp_path}/all.sfz")


def test_an_sfz_file_takes_loops_from_the_samples_and_offsets_and_crossfaded_layers(tmp_path):
    write_sine(tmp_path / "one.wav", 441, seconds=0.5)
    loop = struct.pack("<9I6I", *(0,) * 7, 1, 0, 0, 0, 1_000, 5_999, 0, 0)
    data = (tmp_path / "one.wav").read_bytes() + b"smpl" + struct.pack("<I", len(loop)) + loop
    (tmp_path / "one.wav").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    (tmp_path / "one.sfz").write_text(
        "<group> sample=one.wav pitch_keycenter=69 <region> xfout_lovel=40 xfout_hivel=60\n"
        "<region> xfin_lovel=40 xfin_hivel=60 offset=500 pitch_keytrack=0 tune=-1200 <region> loop_mode=no_loop key=20"
    )
    preset = read_source(f"piano={tmp_path}/one.sfz")
    assert [zone.velocities for zone in preset.zones] == [(0, 50), (51, 127), (0, 127)]
    assert [zone.sample.loop for zone in preset.zones] == [(1_000, 6_000), (500, 5_500), None]
    assert pitch_of(preset, tmp_path, 81, velocity=40)[0] == pytest.approx(882, rel=0.01)
    assert pitch_of(preset, tmp_path, 81)[0] == pytest.approx(220.5, rel=0.01)


def test_bad_sources_are_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    write_sine(tmp_path / "notes" / "C4.wav", 262)
    for source, message in (
        (tmp_path / "empty", "no sample in it"),
        ("/nowhere", "no SFZ file"),
        (f"harp={tmp_path}/notes", "say what it is"),
    ):
        with pytest.raises(InputError, match=message):
            read_source(str(source))
    command = [sys.executable, "-m", "data_gen.make_soundfont", f"{tmp_path}/out.sf2", f"piano={tmp_path}/notes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "notes (1 zones)" in done.stdout
    again = subprocess.run([*command, command[-1]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "too" in again.stderr.splitlines()[-1]


def levels_db(preset, tmp_path, velocities, key=69):
    """Levels of a note at some velocities in dB, relative to the last one."""
    if preset.bank == DRUM_BANK:
        write_soundfont(tmp_path / "made.sf2", [preset])
        kit = Synthesizer(tmp_path / "made.sf2", (DRUMS,), RATE_HZ)
        levels = [rms(kit.render(piece(drum(0, key, velocity=velocity)), 0, 12_000)) for velocity in velocities]
    else:
        levels = [pitch_of(preset, tmp_path, key, velocity)[1] for velocity in velocities]
    return 20 * np.log10(np.array(levels) / levels[-1])


def test_the_velocity_curve_of_an_sfz_file_is_heard(tmp_path):
    write_sine(tmp_path / "one.wav", 440)
    velocities = (16, 32, 64, 100, 127)
    line_db, square_db = 20 * np.log10(np.array(velocities) / 127), 40 * np.log10(np.array(velocities) / 127)
    for opcodes, expected_db, within_db in (
        ("", square_db, 0.4),
        ("amp_velcurve_127=1", line_db, 0.4),
        ("amp_veltrack=0", 0 * line_db, 0.4),
        ("amp_veltrack=0 amp_veltrack_oncc20=100", square_db, 0.4),
        ("amp_veltrack_oncc20=-100 amp_veltrack_curvecc20=2", square_db, 0.4),
        ("amp_velcurve_1=0.5", 20 * np.log10(np.interp(velocities, [1, 127], [0.5, 1])), 1.5),  # the nearest power
    ):
        (tmp_path / "one.sfz").write_text(f"<control> set_cc20=127 <region> sample=one.wav key=69 {opcodes}")
        heard_db = levels_db(read_source(f"piano={tmp_path}/one.sfz"), tmp_path, velocities)
        np.testing.assert_allclose(heard_db, expected_db, atol=within_db, err_msg=opcodes)


def test_layers_of_an_sfz_file_play_as_recorded_at_the_top_of_their_velocities(tmp_path):
    for name, level in (("soft", 0.05), ("middle", 0.2), ("loud", 0.5)):
        write_sine(tmp_path / f"{name}.wav", 440, level)
    (tmp_path / "one.sfz").write_text(
        """<group> key=69
        <region> sample=soft.wav hivel=30 amp_velcurve_030=1
        <region> sample=middle.wav lovel=31 hivel=80 amp_velcurve_80=1
        <region> sample=loud.wav lovel=81
        """
    )
    heard_db = levels_db(read_source(f"piano={tmp_path}/one.sfz"), tmp_path, (15, 30, 40, 80, 127))
    np.testing.assert_allclose(heard_db, [-26, -20, -14, -8, 0], atol=0.4)


def test_an_sfz_file_bends_controllers_by_its_curves(tmp_path):
    write_sine(tmp_path / "one.wav", 440)
    (tmp_path / "one.sfz").write_text(
        """<control> set_hdcc20=0.5 set_cc21=127
        <global> sample=one.wav pitch_keycenter=69
        <region> key=69 tune_oncc20=100 tune_curvecc20=1
        <region> key=70 volume_oncc21=-12 volume_curvecc21=2 pitch_keytrack=0
        <region> key=71 volume_oncc20=-12 volume_curvecc20=9 pitch_keytrack=0
        <region> key=72 volume_oncc20=-12 volume_curvecc20=7 pitch_keytrack=0
        <curve> v064=1
        <curve> curve_index=9 v000=0.25 v127=0.75
        """
    )
    preset = read_source(f"piano={tmp_path}/one.sfz")
    (hz, level), *others = (pitch_of(preset, tmp_path, key) for key in (69, 70, 71, 72))
    assert hz == pytest.approx(440, rel=0.002)  # a bipolar curve moves nothing in its middle
    assert [20 * np.log10(softer / level) for _, softer in others] == pytest.approx([0, -6, -11.9], abs=0.4)


def test_an_sfz_file_that_is_mapped_an_octave_off_is_moved_by_one_that_includes_it(tmp_path):
    write_sine(tmp_path / "one.wav", 110)
    (tmp_path / "bass.sfz").write_text("<group> lokey=50 hikey=60 <region> sample=one.wav pitch_keycenter=57")
    (tmp_path / "moved.sfz").write_text('<control> octave_offset=-1 #include "bass.sfz"')
    preset = read_source(f"piano={tmp_path}/moved.sfz")
    assert preset.zones[0].keys == (38, 48)
    assert pitch_of(preset, tmp_path, 45)[0] == pytest.approx(110, rel=0.01)


def test_volumes_above_0_db_of_an_sfz_file_are_heard(tmp_path):
    write_sine(tmp_path / "one.wav", 440, 0.05)
    regions = "".join(f"<region> key={key} volume={db}" for key, db in ((69, 0), (70, 12), (71, 20), (72, -6)))
    (tmp_path / "one.sfz").write_text(f"<global> sample=one.wav pitch_keytrack=0 {regions}")
    preset = read_source(f"piano={tmp_path}/one.sfz")
    levels = [pitch_of(preset, tmp_path, key)[1] for key in (69, 70, 71, 72)]
    assert 20 * np.log10(np.array(levels) / levels[0]) == pytest.approx([0, 12, 20, -6], abs=0.4)


def test_a_hydrogen_kit_is_as_loud_as_hydrogen_plays_its_layers(tmp_path):
    for name, hz, level in (("soft", 100, 0.05), ("loud", 100, 0.5), ("other", 400, 0.5)):
        write_sine(tmp_path / "kit" / f"{name}.wav", hz, level)
    (tmp_path / "kit" / "drumkit.xml").write_text(
        """<drumkit_info><instrumentList>
        <instrument><name>Kick</name><volume>0.5</volume><gain>2</gain>
          <layer><filename>loud.wav</filename><min>0.498</min><max>1</max><gain>1</gain></layer>
          <layer><filename>soft.wav</filename><min>0</min><max>0.502</max><gain>2</gain></layer></instrument>
        <instrument><name>Kick 2</name><layer><filename>other.wav</filename></layer></instrument>
        <instrument><name>Snare</name><applyVelocity>false</applyVelocity><instrumentComponent>
          <gain>0.5</gain><layer><filename>other.wav</filename></layer></instrumentComponent></instrument>
        </instrumentList></drumkit_info>"""
    )
    preset = read_source(str(tmp_path / "kit"))
    velocity = np.array([20, 50, 63, 64, 110, 127])
    expected = velocity / 127 * np.where(velocity < 64, 0.05 * 2, 0.5)
    np.testing.assert_allclose(levels_db(preset, tmp_path, velocity, 36), 20 * np.log10(expected / 0.5), atol=0.4)
    np.testing.assert_allclose(levels_db(preset, tmp_path, velocity, 38), 0, atol=0.4)
    write_soundfont(tmp_path / "kit.sf2", [preset])
    kick, snare = (
        rms(Synthesizer(tmp_path / "kit.sf2", (DRUMS,), RATE_HZ).render(piece(drum(0, key, velocity=127)), 0, 12_000))
        for key in (36, 38)
    )
    assert 20 * np.log10(snare / kick) == pytest.approx(-6, abs=0.4)


def test_soft_layers_of_a_folder_are_not_made_softer_than_they_were_recorded(tmp_path):
    for name, level in (("snare_soft", 0.05), ("snare_loud", 0.5), ("clap_1", 0.5), ("clap_2", 0.5)):
        write_sine(tmp_path / "kit" / f"{name}.wav", 200, level)
    preset = read_source(str(tmp_path / "kit"))
    velocities = (50, 63, 110, 127)
    usual_db = 40 * np.log10(np.array(velocities) / 127)
    np.testing.assert_allclose(levels_db(preset, tmp_path, velocities, 38), [-24, -20, usual_db[2], 0], atol=0.4)
    np.testing.assert_allclose(levels_db(preset, tmp_path, velocities, 39), usual_db, atol=0.4)  # takes, no layers
