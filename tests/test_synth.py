"""FluidSynth: isolated stems, true time and pitch, windows that agree with the whole, errors instead of bad audio."""

from __future__ import annotations

import concurrent.futures
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from data_helpers import (
    BAND,
    DRUMS,
    ORGAN,
    PIANO,
    RATE_HZ,
    SHARED,
    SOUNDFONT,
    STRINGS,
    band_rows,
    bend,
    cc,
    control,
    drum,
    midi_bytes,
    note,
    off,
    on,
    piece,
    pitch_hz,
    program,
    rms,
    snr_db,
    write_sine_soundfont,
)

from data_gen import InputError, composer, fluidsynth_library, midi, synth
from data_gen.instruments import CANDIDATES, DRUM_BANK, Instrument
from data_gen.synth import BLOCK_SAMPLES, MAX_DECAYED_S, PREROLL_S, RenderError, Synthesizer
from data_gen.variation import Effects

SINE = Instrument("sine", (0, 16))
# By then, 0.5 s after the pre-roll began, what was released before it and is not struck again has died away.
TAILS = max(0, int((0.5 - PREROLL_S) * RATE_HZ))


@pytest.fixture(scope="module")
def band():
    return Synthesizer(SOUNDFONT, BAND, RATE_HZ)


@pytest.fixture(scope="module")
def organ():
    return Synthesizer(SOUNDFONT, (ORGAN,), RATE_HZ)


@pytest.fixture(scope="module")
def sine_soundfont(tmp_path_factory):
    return write_sine_soundfont(tmp_path_factory.mktemp("soundfont") / "sine.sf2", [(0, 0), (0, 16)])


@pytest.fixture(scope="module")
def sine(sine_soundfont):
    return Synthesizer(sine_soundfont, (SINE,), RATE_HZ)


def blocks(time_s: float) -> int:
    """A time in samples, rounded down to a block."""
    return int(time_s * RATE_HZ) // BLOCK_SAMPLES * BLOCK_SAMPLES


def window_and_whole(synthesizer, music, start_s: float, duration_s: float) -> tuple[np.ndarray, np.ndarray]:
    """A window, and the same cut from a render that began at the start of the piece."""
    start, n = blocks(start_s), blocks(duration_s)
    return synthesizer.render(music, start, n), synthesizer.render(music, 0, start + n)[start:]


def away_from_onsets(music, instrument, start_samples: int, n_samples: int) -> np.ndarray:
    """Which samples of a window are not among the first of a note: [time].

    In its first block a note fades in from the gain of the note whose voice it takes over: that is FluidSynth's way,
    and all that one note knows of another.
    """
    is_away = np.ones(n_samples, bool)
    for onset_s in music.notes_of(instrument)["time_s"]:
        onset = round(onset_s * RATE_HZ / BLOCK_SAMPLES) * BLOCK_SAMPLES - start_samples
        is_away[max(0, onset) : max(0, onset + 4 * BLOCK_SAMPLES)] = False
    return is_away


# ---- Stems ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_samples", [1, 63, 64, 65, 1_000])
def test_stems_are_float32_of_the_length_asked_for_one_column_an_instrument(band, n_samples):
    stems = band.render(piece(note(0, 1, 60)), 640, n_samples)
    assert stems.shape == (n_samples, 4)
    assert stems.dtype == np.float32
    assert np.isfinite(stems).all()


def test_channels_of_several_ports_sound_as_channels_of_one_port_do():
    def of_channels(first, second, third, drums):
        rows = [note(0, 1, 60, first, 0), note(0.2, 1, 60, second, 4), note(0.1, 1, 60, third, 48)]
        rows += [bend(0.3, 4000, second), note(0.4, 0.2, 38, drums, bank=DRUM_BANK), control(0.5, 7, 30, first)]
        return piece(*rows)

    band = Synthesizer(SOUNDFONT, BAND, RATE_HZ)
    one_port = band.render(of_channels(0, 1, 2, 9), 0, 24_000)
    assert np.abs(one_port[:, [0, 2, 3]]).max(axis=0).min() > 0.01
    for channels in ((0, 16, 32, 9), (0, 16, 255, 25), (16, 0, 17, 200)):
        assert np.array_equal(band.render(of_channels(*channels), 0, 24_000), one_port)
    assert np.array_equal(band.render(of_channels(0, 1, 2, 9), 0, 24_000), one_port)


def test_an_instrument_plays_on_as_many_channels_as_fluidsynth_has_and_is_refused_more():
    def choir(n_channels):
        return piece(*(note(0.001 * channel, 1, 40 + channel % 48, channel, 0) for channel in range(n_channels)))

    band = Synthesizer(SOUNDFONT, BAND, RATE_HZ)
    assert rms(band.render(choir(64), 0, 8_000)[:, 2]) > 0
    with pytest.raises(RenderError, match="by hand: an instrument plays on 65 channels, and FluidSynth has 64"):
        band.render(choir(65), 0, 8_000)


@pytest.mark.parametrize(
    ("position", "rows"),
    [
        (0, drum(0.1)),
        (1, note(0.1, 1, 40, program=33)),
        (2, note(0.1, 1, 60, channel=5, program=1)),
        (3, note(0.1, 1, 60, channel=15, program=48)),
    ],
    ids=["drums", "bass", "piano", "strings"],
)
def test_a_note_sounds_in_its_own_stem_and_leaves_every_other_exactly_zero(band, position, rows):
    stems = band.render(piece(rows, control(1.5, 7, 100)), 0, RATE_HZ)
    assert rms(stems[:, position]) > 1e-3
    assert not np.delete(stems, position, axis=1).any()


def test_but_for_the_onsets_a_stem_is_the_same_in_every_bit_whether_the_others_play_or_not(band):
    music = piece(band_rows(0, 2))
    together = band.render(music, 0, 3 * RATE_HZ)
    for position, (instrument, channel) in enumerate(zip(BAND, (9, 1, 2, 3))):
        alone = piece([row for row in band_rows(0, 2) if row[2] == channel])
        assert len(alone.notes_of(instrument)) == len(alone.notes) > 0
        away = away_from_onsets(alone, instrument, 0, 3 * RATE_HZ)
        assert away.mean() > 0.5
        stem = band.render(alone, 0, 3 * RATE_HZ)[:, position]
        assert np.array_equal(stem[away], together[away, position])
        assert snr_db(stem, together[:, position]) > 20
        solo = Synthesizer(SOUNDFONT, (instrument,), RATE_HZ)  # nothing else sounds in it
        assert np.array_equal(solo.render(music, 0, 3 * RATE_HZ)[:, 0], stem)


def test_instruments_that_share_a_channel_have_a_stem_each(band):
    rows = [note(0.1, 0.4, 60, program=0), note(0.6, 0.4, 62, program=48), note(1.1, 0.4, 64, program=0)]
    stems = band.render(piece(*rows, control(0, 7, 90)), 0, 2 * RATE_HZ)
    piano_alone = band.render(piece(rows[0], rows[2], control(0, 7, 90)), 0, 2 * RATE_HZ)
    assert np.array_equal(stems[:, 2], piano_alone[:, 2])
    assert not stems[: blocks(0.6), 3].any()
    assert stems[blocks(0.6) : blocks(1.0), 3].any()


def test_the_stems_come_in_the_order_in_which_the_instruments_are_named(band):
    music = piece(band_rows(0, 1))
    backwards = Synthesizer(SOUNDFONT, BAND[::-1], RATE_HZ)
    assert np.array_equal(backwards.render(music, 0, RATE_HZ)[:, ::-1], band.render(music, 0, RATE_HZ))


def test_notes_of_instruments_that_are_not_named_do_not_sound(band):
    music = piece(note(0.1, 1, 60, program=25), note(0.1, 1, 50, channel=1, program=60), control(1.5, 7, 100))
    assert not band.render(music, 0, 2 * RATE_HZ).any()
    with_piano = piece(note(0.1, 1, 60, program=25), note(0.2, 1, 62, channel=2), control(1.5, 7, 100))
    without = piece(note(0.2, 1, 62, channel=2), control(1.5, 7, 100))
    assert np.array_equal(band.render(with_piano, 0, RATE_HZ), band.render(without, 0, RATE_HZ))


def test_sixteen_instruments_have_a_stem_each_and_a_seventeenth_is_refused():
    sixteen = (*(Instrument(f"p{i}", (8 * i,)) for i in range(15)), DRUMS)
    music = piece(*(note(0, 0.2, 60, channel=i if i < 9 else i + 1, program=8 * i) for i in range(15)), drum(0))
    stems = Synthesizer(SOUNDFONT, sixteen, 8_000).render(music, 0, 4_000)
    assert (np.abs(stems).max(axis=0) > 1e-3).all()
    with pytest.raises(InputError, match="17 instruments: FluidSynth has channels for 16 at once"):
        Synthesizer(SOUNDFONT, (*sixteen, Instrument("one_more", (127,))), 8_000)


def test_both_sides_of_the_stereo_image_are_in_the_mono_stem(sine):
    left, middle, right = (
        rms(sine.render(piece(control(0, 10, pan), note(0.1, 1, 69)), 0, RATE_HZ)) for pan in (0, 64, 127)
    )
    assert left == pytest.approx(right, rel=0.02)
    assert middle == pytest.approx(2**0.5 * left, rel=0.02)  # constant power: each side has 0.707 of it


@pytest.mark.parametrize("number", range(120, 128))
def test_a_channel_mode_message_on_one_channel_leaves_the_other_channels_alone(number):
    synthesizer = Synthesizer(SOUNDFONT, (PIANO, STRINGS, DRUMS), RATE_HZ)
    others = [note(0.2, 0.5, 64, 1, 48), note(0.2, 0.5, 67, 1, 48), note(0.3, 0.5, 70, 2, 0), drum(0.4)]
    plain = synthesizer.render(piece(*others, note(0, 0.01, 21)), 0, RATE_HZ)
    for value in (0, 1, 16, 127):
        music = piece(note(0, 0.01, 21), control(0.1, number, value), *others)
        stems = synthesizer.render(music, 0, RATE_HZ)
        for position in range(3):
            assert snr_db(plain[blocks(0.15) :, position], stems[blocks(0.15) :, position]) > 20


# ---- Reverb and chorus ----------------------------------------------------------------------------------------------
DRY, WET = (
    Effects(reverb_room=0.2, reverb_send=0, chorus_send=0),
    Effects(reverb_room=0.9, reverb_send=90, chorus_send=90),
)


def test_the_effects_of_one_instrument_change_its_stem_alone(band):
    music = piece(band_rows(0, 2))
    dry = band.render(music, 0, 3 * RATE_HZ, (DRY,) * 4)
    for position in range(4):
        wet = band.render(music, 0, 3 * RATE_HZ, [WET if i == position else DRY for i in range(4)])
        others = [i for i in range(4) if i != position]
        assert snr_db(dry[:, position], wet[:, position]) < 30
        for other in others:
            assert snr_db(dry[:, other], wet[:, other]) > 60


def test_a_render_with_effects_does_not_depend_on_those_before_it(band):
    music = piece(band_rows(0, 1))
    plain, wet = band.render(music, 0, RATE_HZ), band.render(music, 0, RATE_HZ, (WET,) * 4)
    assert np.array_equal(band.render(music, 0, RATE_HZ), plain)
    assert np.array_equal(band.render(music, 0, RATE_HZ, (WET,) * 4), wet)


def test_the_effects_that_a_piece_asks_for_are_ignored(band):
    sends = [control(0, number, 127, channel) for number in (91, 93) for channel in (1, 2, 3, 9)]
    plain, asking = piece(band_rows(0, 1)), piece(*sends, band_rows(0, 1))
    for effects in ((), (DRY,) * 4):
        assert np.array_equal(band.render(asking, 0, RATE_HZ, effects), band.render(plain, 0, RATE_HZ, effects))


# ---- The same again -------------------------------------------------------------------------------------------------
def test_what_was_rendered_before_does_not_matter(band):
    music = piece(band_rows(0, 3))
    fresh = Synthesizer(SOUNDFONT, BAND, RATE_HZ).render(music, 8_000, RATE_HZ)
    loud = piece(
        *(control(0, 7, 127, c) + bend(0, 8191, c) + control(0, 64, 127, c) for c in range(16)), band_rows(0, 2)
    )
    for before in (loud, piece(note(0, 9, 50, 3, 49)), piece(drum(0, program=25))):
        band.render(before, 0, RATE_HZ)
        assert np.array_equal(band.render(music, 8_000, RATE_HZ), fresh)


def test_two_synthesizers_at_once_do_not_disturb_each_other(band):
    music = piece(band_rows(0, 1))
    before = band.render(music, 0, RATE_HZ)
    other = Synthesizer(SOUNDFONT, BAND, 8_000)
    other.render(music, 0, 8_000)
    assert np.array_equal(band.render(music, 0, RATE_HZ), before)
    del other
    assert np.array_equal(band.render(music, 0, RATE_HZ), before)


def test_silence_is_exactly_zero(band):
    music = piece(drum(1), note(1, 0.2, 60, 2), note(30, 0.5, 60, 2))
    assert not band.render(music, 0, blocks(1)).any()
    assert not band.render(music, 20 * RATE_HZ, 5 * RATE_HZ).any()
    assert not band.render(music, 100 * RATE_HZ, RATE_HZ).any()
    assert not band.render(music, 0, 29 * RATE_HZ)[20 * RATE_HZ :].any()


# ---- Pitch, time, timbre --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_a4_sounds_at_440_hz_at_any_sample_rate(sine_soundfont, rate_hz):
    stems = Synthesizer(sine_soundfont, (SINE,), rate_hz).render(piece(note(0, 3, 69)), 0, 2 * rate_hz)
    assert pitch_hz(stems[:, 0], rate_hz) == pytest.approx(440, abs=0.5)


@pytest.mark.parametrize(("instrument", "number"), [(PIANO, 0), (STRINGS, 48), (ORGAN, 19)])
def test_the_strongest_partial_of_a_real_instrument_is_in_tune(instrument, number):
    synthesizer = Synthesizer(SOUNDFONT, (instrument,), RATE_HZ)
    heard_hz = pitch_hz(synthesizer.render(piece(note(0, 3, 69, program=number)), 0, 2 * RATE_HZ)[:, 0])
    octave = round(np.log2(heard_hz / 440))
    assert heard_hz == pytest.approx(440 * 2.0**octave, rel=0.006)  # 10 cents


@pytest.mark.parametrize("onset_s", [0.0, 0.1, 0.5, 0.7301, 1.0004])
def test_a_note_begins_at_the_nearest_block(sine, onset_s):
    heard = np.flatnonzero(sine.render(piece(note(onset_s, 1, 69)), 0, 2 * RATE_HZ))
    onset = round(onset_s * RATE_HZ / BLOCK_SAMPLES) * BLOCK_SAMPLES
    assert onset <= heard[0] < onset + BLOCK_SAMPLES + 0.004 * RATE_HZ  # the SoundFont's delay and attack, 1 ms each


def test_a_released_note_dies_away_and_a_held_one_goes_on(sine):
    stems = sine.render(piece(note(0.1, 0.4, 69), control(3, 7, 100)), 0, 2 * RATE_HZ)
    assert rms(stems[blocks(0.2) : blocks(0.5)]) > 0.01
    assert not stems[blocks(0.6) :].any()
    assert rms(sine.render(piece(note(0.1, 9, 69)), 0, 5 * RATE_HZ)[blocks(4) :]) > 0.01


def test_velocity_makes_a_note_louder(sine):
    soft, loud = (rms(sine.render(piece(note(0, 1, 69, velocity=v)), 0, RATE_HZ)) for v in (40, 120))
    assert loud > 2 * soft > 0


def test_each_note_has_its_own_program(organ):
    def render(*programs):
        rows = [note(0.1 + 4 * i, 0.5, 60 + i, program=number) for i, number in enumerate(programs)]
        return organ.render(piece(*rows, control(9, 7, 100)), 0, 5 * RATE_HZ)[:, 0]

    second = slice(blocks(4.1), None)
    assert snr_db(render(19, 19)[second], render(16, 19)[second]) > 20
    assert snr_db(render(16, 16)[second], render(16, 19)[second]) < 3


def test_a_program_change_in_a_file_is_heard_in_a_window_long_after_it():
    track = [program(19), cc(0, 0, 480 * 40), on(69, velocity=100), off(69, 960)]
    changed, plain = (midi.parse_midi(midi_bytes(t), "file.mid") for t in (track, [program(16), *track[1:]]))
    synthesizer = Synthesizer(SOUNDFONT, (ORGAN,), RATE_HZ)
    expected = synthesizer.render(piece(note(0, 1, 69, program=19)), 0, 8_000)
    assert np.array_equal(synthesizer.render(changed, 20 * RATE_HZ, 8_000), expected)
    assert not np.array_equal(synthesizer.render(plain, 20 * RATE_HZ, 8_000), expected)


@pytest.mark.parametrize("number", [4, 30, 87, 114])
def test_a_drum_program_without_a_kit_falls_back_to_the_standard_kit(band, number):
    odd, standard = (band.render(piece(drum(0, program=p), drum(0.2, 42, p)), 0, RATE_HZ) for p in (number, 0))
    assert rms(standard) > 1e-3
    assert np.array_equal(odd, standard)


def test_a_bank_that_the_soundfont_lacks_falls_back_to_bank_0(band):
    odd, plain = (band.render(piece(note(0, 1, 60, program=48, bank=b)), 0, RATE_HZ) for b in (77, 0))
    assert rms(plain) > 1e-3
    assert np.array_equal(odd, plain)


def test_a_program_that_the_soundfont_lacks_falls_back_to_another_of_the_instrument(tmp_path):
    soundfont = write_sine_soundfont(tmp_path / "two.sf2", [(0, 6), (DRUM_BANK, 0)])
    stems = Synthesizer(soundfont, (PIANO, DRUMS), RATE_HZ).render(piece(note(0, 1, 69, program=3)), 0, RATE_HZ)
    assert pitch_hz(stems[:, 0]) == pytest.approx(440, abs=0.5)


def test_a_bank_that_the_soundfont_has_is_used(tmp_path):
    both = write_sine_soundfont(tmp_path / "both.sf2", [(0, 6), (8, 5)])
    synthesizer = Synthesizer(both, (PIANO,), RATE_HZ)
    synthesizer.render(piece(note(0, 1, 69, program=5, bank=8)), 0, 64)
    assert (0, 8, 5) in synthesizer._selected.values()


# ---- Windows --------------------------------------------------------------------------------------------------------
def test_but_for_the_onsets_a_window_after_a_rest_is_the_whole_render_in_every_bit(band):
    music = piece(*(band_rows(begin_s, begin_s + 2, seed=begin_s) for begin_s in (0, 9, 18)))
    for start_s, duration_s in ((8.8, 3), (9 - PREROLL_S / 2, 1), (17.5, 2), (7.9, 0.5), (8, 12)):
        window, whole = window_and_whole(band, music, start_s, duration_s)
        for position, instrument in enumerate(BAND):
            away = away_from_onsets(music, instrument, blocks(start_s), len(window))
            assert np.array_equal(window[away, position], whole[away, position])
            assert snr_db(whole[:, position], window[:, position]) > 20
    assert rms(window) > 0.01


@pytest.mark.parametrize("start_s", [3.0, 4.1, 5.77])
def test_a_window_amid_short_notes_is_the_whole_render(band, start_s):
    window, whole = window_and_whole(band, piece(band_rows(0, 8)), start_s, 1.5)
    for position in range(4):
        assert snr_db(whole[TAILS:, position], window[TAILS:, position]) > 20


def test_a_window_of_a_composed_piece_becomes_the_whole_render(band):
    # Notes held since before the pre-roll begin anew there. Once they are over, nothing is left of that.
    for seed in range(3):
        window, whole = window_and_whole(band, composer.compose(seed, BAND), 20, 16)
        later = slice(8 * RATE_HZ, None)
        assert rms(whole[later]) > 0.01
        for position in range(4):
            assert snr_db(whole[later, position], window[later, position]) > 25


def test_a_window_of_a_real_piece_becomes_the_whole_render(band):
    path = SHARED / "midi" / "simutrans" / "01-Simutrans-Main-Theme.mid"
    if not path.is_file():
        pytest.skip("no ../shared/midi here")
    window, whole = window_and_whole(band, midi.read_midi(path), 20, 12)
    later = slice(5 * RATE_HZ, None)  # see above
    for position in range(4):
        assert snr_db(whole[later, position], window[later, position]) > 20
        assert rms(window[:, position]) == pytest.approx(rms(whole[:, position]), rel=0.1)


@pytest.mark.parametrize("start", [8_000, 8_001, 8_063])
def test_a_start_within_a_block_is_rounded_down(band, start):
    music = piece(band_rows(0, 2))
    assert np.array_equal(band.render(music, start, 1_000), band.render(music, 8_000, 1_000))


def test_a_window_may_end_long_after_the_piece(sine):
    stems = sine.render(piece(note(0, 0.5, 69)), 0, 3 * RATE_HZ)
    assert len(stems) == 3 * RATE_HZ
    assert not stems[RATE_HZ:].any()


def chased(synthesizer, *before) -> np.ndarray:
    """The window around a note at 10 s, with events long before it; asserts that it is that of the whole render."""
    channels = {row[2] for rows in before for row in rows} | {0}
    assert channels == {0}
    music = piece(*before, note(10, 1, 69, program=synthesizer.instruments[0].programs[0]))
    window, whole = window_and_whole(synthesizer, music, 9.9, 1)
    assert np.array_equal(window, whole)
    return window[:, 0]


@pytest.mark.parametrize("number", [7, 11])
def test_volume_and_expression_set_long_before_a_window_hold_in_it(sine, number):
    plain = rms(chased(sine))
    assert rms(chased(sine, control(1, number, 64))) < 0.5 * plain
    last = rms(chased(sine, control(1, number, 10), control(2, number, 100), control(9, 1, 0)))
    assert last == pytest.approx(rms(chased(sine, control(3, number, 100))), rel=1e-6)


def test_a_bend_set_long_before_a_window_holds_in_it(sine):
    assert pitch_hz(chased(sine)[blocks(0.2) :]) == pytest.approx(440, abs=1)
    assert pitch_hz(chased(sine, bend(1, 0), bend(2, 8191))[blocks(0.2) :]) == pytest.approx(440 * 2 ** (2 / 12), abs=1)


def test_a_bend_range_set_long_before_a_window_holds_in_it(sine):
    # Registered parameter 0 is the bend range; then the parameter is closed and the data entry used for another one.
    bend_range = [control(0.1, 101, 0), control(0.2, 100, 0), control(0.3, 6, 12), control(0.4, 38, 0)]
    closed = [control(0.5, 101, 127), control(0.6, 100, 127), control(0.7, 6, 3)]
    assert pitch_hz(chased(sine, *bend_range, *closed, bend(2, 8191))[blocks(0.2) :]) == pytest.approx(880, rel=0.01)


def test_controllers_reset_before_a_window_are_reset_in_it(sine):
    reset = chased(sine, control(1, 11, 20), bend(1, 8191), control(2, 121, 0))
    assert np.array_equal(reset, chased(sine))
    assert rms(chased(sine, control(1, 121, 0), control(2, 11, 20))) < 0.5 * rms(reset)


def test_controllers_of_one_channel_do_not_reach_another(sine):
    music = piece(
        note(0.1, 1, 69), control(0, 7, 1, channel=1), bend(0, 8191, channel=1), note(0, 0.01, 30, 1, program=0)
    )
    plain = piece(note(0.1, 1, 69), note(0, 0.01, 30, 1, program=0))
    part = slice(blocks(0.3), RATE_HZ)
    assert rms(sine.render(music, 0, RATE_HZ)[part]) == pytest.approx(
        rms(sine.render(plain, 0, RATE_HZ)[part]), rel=1e-6
    )


def test_the_pedal_held_over_the_start_of_a_window_keeps_its_note(sine):
    music = piece(control(1, 64, 127), note(2, 1, 69, program=16), control(12, 64, 0), control(20, 7, 100))
    window, whole = window_and_whole(sine, music, 8, 1)
    assert rms(whole) > 0.01
    assert rms(window) == pytest.approx(rms(whole), rel=0.01)
    window, whole = window_and_whole(sine, music, 11.5, 3)
    held, released = slice(blocks(0.4)), slice(blocks(0.6), None)
    assert rms(window[held]) == pytest.approx(rms(whole[held]), rel=0.01)
    assert not window[released].any()
    assert not sine.render(music, 15 * RATE_HZ, RATE_HZ).any()


def test_without_the_pedal_a_note_released_before_a_window_is_not_in_it(organ):
    assert not organ.render(piece(note(2, 1, 69, program=19), control(20, 7, 100)), 8 * RATE_HZ, RATE_HZ).any()


def test_a_note_held_since_long_before_the_pre_roll_sounds_in_a_window(organ):
    music = piece(note(1, 30, 69, program=19))
    window, whole = window_and_whole(organ, music, 20, 2)
    assert rms(whole) > 0.01
    assert rms(window) == pytest.approx(rms(whole), rel=0.1)
    assert pitch_hz(window[:, 0]) == pytest.approx(pitch_hz(whole[:, 0]), rel=0.005)


def test_a_note_that_began_in_the_pre_roll_is_the_whole_render_in_every_bit(organ):
    window, whole = window_and_whole(organ, piece(note(5 - 0.6 * PREROLL_S, 5, 69, program=19)), 5, 1)
    assert np.array_equal(window, whole)
    assert rms(window) > 0.01


def test_a_held_note_ends_in_a_window_when_its_key_is_released(organ):
    window, whole = window_and_whole(organ, piece(note(1, 8, 69, program=19), control(20, 7, 100)), 8, 6)
    assert rms(window[: blocks(0.9)]) > 0.01
    assert not window[blocks(4) :].any()
    assert not whole[blocks(4) :].any()


def test_a_struck_note_that_has_faded_is_not_struck_again(band):
    music = piece(note(1, 30, 60, channel=2, program=0))
    old, recent = (band.render(music, blocks(1 + age_s), RATE_HZ)[:, 2] for age_s in (MAX_DECAYED_S + 1, 1))
    assert rms(recent) > 1e-3
    assert not old.any()


@pytest.mark.parametrize("start_s", [0, 5])
def test_a_key_struck_again_by_another_instrument_ends_the_earlier_note(start_s):
    # A channel has each key once: `Piece` says that the organ ends at 2 s, when the piano strikes its key.
    synthesizer = Synthesizer(SOUNDFONT, (ORGAN, PIANO), RATE_HZ)
    rows = [
        (1, midi.NOTE_ON, 0, 0, 19, 60, 100),
        (2, midi.NOTE_ON, 0, 0, 0, 60, 100),
        (9, midi.NOTE_OFF, 0, 0, 0, 60, 0),
    ]
    music = piece(rows)
    assert music.notes["end_s"].tolist() == [2, 9]
    stems = synthesizer.render(music, start_s * RATE_HZ, 8 * RATE_HZ - start_s * RATE_HZ)
    assert not stems[(5 - start_s) * RATE_HZ :, 0].any()


# ---- Errors ---------------------------------------------------------------------------------------------------------
def test_a_missing_soundfont_is_refused_by_its_path(tmp_path):
    with pytest.raises(InputError, match=f"no such SoundFont: {tmp_path}/none.sf2"):
        Synthesizer(tmp_path / "none.sf2", BAND, RATE_HZ)
    with pytest.raises(InputError, match="no such SoundFont"):
        Synthesizer(tmp_path, BAND, RATE_HZ)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"these are not the sounds", lambda data: data[:100], lambda data: data[:100_000]],
    ids=["empty", "text", "header only", "truncated"],
)
def test_a_damaged_soundfont_is_refused_in_one_line_and_nothing_is_printed(tmp_path, damage, capfd):
    path = tmp_path / "damaged.sf2"
    path.write_bytes(damage(pathlib.Path(SOUNDFONT).read_bytes()))
    with pytest.raises(InputError, match="SoundFont") as refusal:
        Synthesizer(path, BAND, RATE_HZ)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_soundfont_without_a_preset_for_an_instrument_is_refused_by_its_name(sine_soundfont):
    for instruments, name in (((PIANO, STRINGS), "strings"), ((DRUMS, PIANO), "drums")):
        with pytest.raises(InputError, match=f"no preset for {name}"):
            Synthesizer(sine_soundfont, instruments, RATE_HZ)


def test_a_refused_soundfont_does_not_disturb_the_next(tmp_path, band):
    music = piece(band_rows(0, 1))
    before = band.render(music, 0, RATE_HZ)
    (tmp_path / "damaged.sf2").write_bytes(b"RIFF")
    with pytest.raises(InputError):
        Synthesizer(tmp_path / "damaged.sf2", BAND, RATE_HZ)
    assert np.array_equal(band.render(music, 0, RATE_HZ), before)


def test_what_fluidsynth_complains_of_during_a_render_fails_it_by_name(band):
    def complain():
        fluidsynth_library.load()._keep(2, b"voices were lost", None)  # as the library calls it for a warning

    advance = band._advance
    band._advance = lambda *arguments: (complain(), advance(*arguments))[1]
    try:
        with pytest.raises(RenderError, match="^by hand: FluidSynth with .*TimGM6mb.sf2: voices were lost"):
            band.render(piece(note(0, 1, 60)), 0, RATE_HZ)
    finally:
        del band._advance
    assert band.render(piece(note(0, 1, 60, 2)), 0, RATE_HZ).any()


def test_more_voices_than_there_are_is_no_error_and_no_silence(band):
    rows = [note(0.001 * i, 3, 21 + i % 88, channel=c, program=48) for c in range(9) for i in range(88)]
    stems = band.render(piece(*rows), 0, RATE_HZ)
    assert rms(stems[:, 3]) > 0.01


def test_nothing_is_printed_when_a_piece_is_rendered():
    code = """
import sys
from data_helpers import BAND, SOUNDFONT, band_rows, bend, control, drum, piece
from data_gen.synth import Synthesizer
music = piece(band_rows(0, 3), drum(1, program=99), control(1, 91, 127), control(1, 93, 127), bend(1, 8191))
stems = Synthesizer(SOUNDFONT, BAND, 44_100).render(music, 50_000, 44_100)
sys.exit(0 if stems.any() else "silence")
"""
    tests = pathlib.Path(__file__).parent
    paths = f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]"
    done = subprocess.run([sys.executable, "-c", paths + code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_default_soundfont_is_there():
    assert pathlib.Path(synth.default_soundfont()).is_file()


def test_all_ten_candidates_have_presets_in_the_embedded_soundfont():
    assert len(Synthesizer(SOUNDFONT, tuple(CANDIDATES.values()), 8_000).instruments) == 10


def test_threads_that_render_at_once_do_not_disturb_one_another():
    pieces = [piece(band_rows(0, 4, seed=seed), name=str(seed)) for seed in range(4)]
    synthesizer = Synthesizer(SOUNDFONT, BAND, RATE_HZ)
    alone = [synthesizer.render(one, 0, 4 * RATE_HZ) for one in pieces]
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        together = list(executor.map(lambda one: synthesizer.render(one, 0, 4 * RATE_HZ), 5 * pieces))
    for expected, got in zip(5 * alone, together):
        np.testing.assert_array_equal(got, expected)
