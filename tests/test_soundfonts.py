"""SoundFonts: files written and read, levels, shared samples, and one drawn for each instrument and visit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from data_helpers import (
    BAND,
    BASS,
    DRUMS,
    PIANO,
    RATE_HZ,
    STRINGS,
    Handmade,
    are_equal,
    band_rows,
    chunker,
    note,
    piece,
    pitch_hz,
    rms,
    sine_sample,
)

from data_gen import InputError, soundfont_file, soundfonts
from data_gen.instruments import DRUM_BANK
from data_gen.played import PlayedStems
from data_gen.soundfont_file import Preset, Sample, SoundFontFile, Zone, write_soundfont
from data_gen.synth import Synthesizer
from data_gen.variation import Sound


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    """Three SoundFonts of sines: all four instruments, loud and an octave higher; soft piano and bass; a kit."""
    folder = tmp_path_factory.mktemp("fonts")
    loud, soft = sine_sample(880, 0.4), sine_sample(440, 0.1)
    programs = (0, 33, 48)
    write_soundfont(
        folder / "loud.sf2",
        [*(Preset(f"p{p}", 0, p, [Zone(loud)]) for p in programs), Preset("kit", DRUM_BANK, 0, [Zone(loud)])],
    )
    write_soundfont(folder / "soft.sf2", [Preset(f"p{p}", 0, p, [Zone(soft)]) for p in (0, 33)])
    drums = [Zone(sine_sample(330, 0.2, name)) for name in ("kick", "snare", "ride")]
    write_soundfont(folder / "kit.sf2", [Preset("drums", 0, 0, drums)])
    return tuple(str(folder / f"{name}.sf2") for name in ("loud", "soft", "kit"))


@pytest.fixture(scope="module")
def busy():
    return Handmade(*(piece(band_rows(0, 8, seed=seed), name=f"busy {seed}") for seed in range(3)))


# ---- Files ----------------------------------------------------------------------------------------------------------
def test_a_written_soundfont_reads_back_and_sounds_as_written(tmp_path):
    low, high = sine_sample(440, 0.5), sine_sample(660, 0.5)
    path = tmp_path / "two.sf2"
    zones = [Zone(low, keys=(0, 69)), Zone(high, keys=(70, 127), generators={soundfont_file.COARSE_TUNE: -12})]
    write_soundfont(path, [Preset("two sines", 0, 3, zones)])
    file = SoundFontFile(path)
    assert file.presets == {(0, 3): "two sines"}
    assert file.samples_of(0, 3) == [0, 1]
    np.testing.assert_allclose(file.sample(1) / 32_767, high.data, atol=1e-4)
    synthesizer = Synthesizer(path, (PIANO,), RATE_HZ)
    for key, hz in ((69, 440), (81, 660)):  # the upper one is an octave above A4, and tuned an octave down
        stems = synthesizer.render(piece(note(0, 2, key, program=3)), 0, RATE_HZ)
        assert pitch_hz(stems[4_000:, 0]) == pytest.approx(hz, abs=1)


def test_a_file_of_drums_is_a_kit_whatever_its_bank(fonts):
    loud, soft, kit = map(SoundFontFile, fonts)
    assert (loud.kit, soft.kit, kit.kit) == ((DRUM_BANK, 0), None, (0, 0))
    assert [one.is_kit for one in (loud, soft, kit)] == [False, False, True]
    assert [soundfonts.profile(path).plays(PIANO) for path in fonts] == [True, True, False]
    assert [soundfonts.profile(path).plays(DRUMS) for path in fonts] == [True, False, True]


def test_files_folders_patterns_and_weights_are_listed(tmp_path):
    for name in ("a.sf2", "b/c.SF3", "b/d.txt", "e:3.sf2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = soundfonts.expand_soundfonts([f"{tmp_path}:2", f"{tmp_path}/a*:0.5", "/no.sf2"])
    expected = {tmp_path / "a.sf2": 0.5, tmp_path / "e:3.sf2": 2.0, tmp_path / "b" / "c.SF3": 2.0, "/no.sf2": 1.0}
    assert listed == {str(path): weight for path, weight in expected.items()}
    for wrong, message in ((f"{tmp_path}/x*", "no SoundFont"), ("a.sf2:0", "above 0")):
        with pytest.raises(InputError, match=message):
            soundfonts.expand_soundfonts([wrong])


# ---- Levels and samples ---------------------------------------------------------------------------------------------
def test_levels_are_matched_by_what_was_measured(fonts):
    profiles = [soundfonts.profile(path) for path in fonts[:2]]
    loud_db, soft_db = soundfonts.match_levels(profiles, BASS)
    assert loud_db - soft_db == pytest.approx(-20 * np.log10(4), abs=0.5)
    assert loud_db + soft_db == pytest.approx(0, abs=1e-6)
    assert soundfonts.match_levels(profiles, STRINGS) == [0, 0]  # the soft one has none


def test_shared_samples_are_found_also_where_they_were_encoded_anew(tmp_path):
    rng = np.random.default_rng(0)
    samples = [Sample(0.3 * rng.standard_normal(3_000), 44_100) for _ in range(3)]
    almost = Sample(samples[1].data + 0.01 * rng.standard_normal(3_000), 44_100)
    short = Sample(samples[0].data[:100], 44_100)
    for name, of in (("one", [*samples, short]), ("other", [short, almost, samples[0]])):
        write_soundfont(tmp_path / f"{name}.sf2", [Preset("p", 0, 0, [Zone(sample) for sample in of])])
    shared, compared = soundfonts.shared_samples(str(tmp_path / "one.sf2"), str(tmp_path / "other.sf2"))
    assert shared.tolist() == [True, True, False, False]
    assert compared.tolist() == [True, True, True, False]


def test_the_report_names_what_is_missing_what_is_shared_and_bad_input(fonts, tmp_path):
    text = soundfonts.report(fonts, BAND)
    rows = [line.split() for line in text.splitlines()]
    assert ["strings", "0", "-", "-", "48-51"] in rows
    assert text.endswith("samples that another SoundFont holds too:\n  none")
    command = [sys.executable, "-m", "data_gen.soundfonts", str(tmp_path / "none.sf2")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"data_gen.soundfonts: no such SoundFont: {tmp_path}/none.sf2"


# ---- One for each instrument and visit ------------------------------------------------------------------------------
def test_each_instrument_is_played_by_the_soundfont_that_its_sound_names(fonts):
    music = piece(note(0, 2, 69, channel=0, program=0), note(0, 2, 69, channel=1, program=33))
    synthesizer = Synthesizer(fonts, (PIANO, BASS), RATE_HZ)
    stems = synthesizer.render(music, 0, RATE_HZ, (), (Sound(font=1), Sound(font=0, gain=0.5)))
    assert [pitch_hz(stem[4_000:]) for stem in stems.T] == pytest.approx([440, 880], abs=1)
    as_it_is = synthesizer.render(music, 0, RATE_HZ)
    np.testing.assert_allclose(stems[:, 1], 0.5 * as_it_is[:, 1], atol=1e-7)


def test_soundfonts_are_drawn_for_each_instrument_and_visit_among_those_that_have_it(fonts, busy):
    source = chunker(busy, soundfonts=fonts).source
    rng = np.random.default_rng(0)
    drawn = np.array([[sound.font for sound in source.draw("train", rng)._sounds] for _ in range(40)])
    drums, bass, piano, strings = drawn.T
    assert set(drums) == {0, 2}
    assert set(bass) == set(piano) == {0, 1}
    assert set(strings) == {0}
    assert 5 < np.sum(bass == piano) < 35
    weighted = PlayedStems(busy, BAND, fonts, RATE_HZ, weights=(1, 9, 1))
    assert sum(weighted.draw("train", rng)._sounds[1].font for _ in range(40)) > 28


def test_a_visit_depends_on_its_seed_and_number_only_with_several_soundfonts(fonts, busy):
    one, other = (chunker(busy, soundfonts=fonts) for _ in range(2))
    visits = [one.visit(index) for index in range(4)]
    assert all(are_equal(other.visit(index), visits[index]) for index in (3, 1, 0, 2))
    levels = np.array([[rms(visit.stems[..., i]) for i in range(4)] for visit in visits])
    assert (levels > 0).all()
    assert levels[:, 2].max() < 2.5 * levels[:, 2].min()  # matched: 4 apart as they are


def test_songs_as_they_are_sound_through_one_soundfont(fonts, busy):
    source = chunker(busy, soundfonts=(fonts[1], fonts[0])).source
    alone = PlayedStems(busy, BAND, fonts[:1], RATE_HZ)
    np.testing.assert_array_equal(source.load("test", 0).stems(0, 8_000), alone.load("test", 0).stems(0, 8_000))
