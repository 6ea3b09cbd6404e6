import numpy as np
import pytest
from data_helpers import SOUNDFONT, chunker

from data_gen import midi
from data_gen.corpus import ComposedCorpus
from data_gen.instruments import parse_instruments, playable_pitches
from data_gen.synth import Synthesizer
from data_gen.variation import DRUM_KITS, Effects, Variation, vary

INSTRUMENTS = parse_instruments(["drums", "piano", "strings"])
DRUMS, PIANO, STRINGS = INSTRUMENTS
PIECE = ComposedCorpus(0, INSTRUMENTS).load("train", 0)
ALL = {
    "gain_db": 6.0,
    "transpose": 5,
    "tempo": 0.2,
    "velocity": 0.5,
    "presets": 1.0,
    "reverb": 1.0,
    "chorus": 1.0,
}


def varied(seed=0, **changes):
    return vary(PIECE, INSTRUMENTS, Variation(**changes), np.random.default_rng(seed))


def visit(index, gain_db=0.0, **changes):
    corpus = ComposedCorpus(0, INSTRUMENTS)
    return chunker(corpus, INSTRUMENTS, variation=Variation(**changes), gain_db=gain_db, chunks_per_song=10).visit(
        index
    )


@pytest.mark.parametrize("name", [None, *ALL, "all"])
def test_the_mixture_is_the_sum_of_the_stems_whatever_varies(name):
    changes = ALL if name == "all" else {name: ALL[name]} if name else {}
    varied_visit = visit(3, **changes)
    np.testing.assert_array_equal(varied_visit.mixture, varied_visit.stems.sum(axis=-1, keepdims=True))
    assert np.abs(varied_visit.mixture).max() > 0.01
    if name:
        assert not np.array_equal(varied_visit.stems, visit(3).stems)
        np.testing.assert_array_equal(varied_visit.stems, visit(3, **changes).stems)


def test_without_variation_the_piece_is_as_it_was():
    assert varied() is PIECE


def test_tempo_scales_all_times_by_one_factor():
    piece = varied(tempo=0.2)
    factor = piece.duration_s / PIECE.duration_s
    assert 1 / 1.2 <= factor <= 1 / 0.8 and factor != 1
    np.testing.assert_allclose(piece.events["time_s"], PIECE.events["time_s"] * factor)
    np.testing.assert_allclose(piece.events["end_s"], PIECE.events["end_s"] * factor)


def test_transposition_moves_melodic_notes_together_and_leaves_drums():
    shifts = set()
    for seed in range(20):
        piece = varied(seed, transpose=4)
        shift = piece.notes_of(PIANO)["number"].astype(int) - PIECE.notes_of(PIANO)["number"]
        np.testing.assert_array_equal(shift, shift[0])
        np.testing.assert_array_equal(piece.notes_of(STRINGS)["number"] - shift[0], PIECE.notes_of(STRINGS)["number"])
        np.testing.assert_array_equal(piece.notes_of(DRUMS)["number"], PIECE.notes_of(DRUMS)["number"])
        shifts.add(int(shift[0]))
    assert min(shifts) < 0 < max(shifts) and max(map(abs, shifts)) <= 4


def test_transposition_stays_within_what_the_instrument_plays():
    low, high = playable_pitches(STRINGS)
    rows = [(0.1, midi.NOTE_ON, 0, 0, 48, high, 90), (0.5, midi.NOTE_OFF, 0, 0, 0, high, 0)]
    piece = midi.make_piece("high", rows)
    for seed in range(30):
        moved = vary(piece, (STRINGS,), Variation(transpose=12), np.random.default_rng(seed))
        assert low <= moved.notes["number"][0] <= high


def test_note_offs_follow_their_notes():
    piece = next(
        p for seed in range(9) if (p := varied(seed, transpose=5)).notes["number"].sum() != PIECE.notes["number"].sum()
    )
    fields = ("time_s", "kind", "channel", "bank", "program", "number", "value")
    again = midi.make_piece("again", list(zip(*(piece.events[field].tolist() for field in fields))))
    np.testing.assert_allclose(again.events["end_s"], piece.events["end_s"])  # a lost note-off would change them


def test_velocities_keep_their_order_and_range():
    before, after = PIECE.notes["value"], varied(velocity=0.5).notes["value"]
    assert not np.array_equal(before, after)
    assert after.min() >= 1 and after.max() <= 127
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()


def test_presets_are_drawn_among_the_instrument_s_own():
    programs, kits = set(), set()
    for seed in range(20):
        piece = varied(seed, presets=1.0)
        assert len(piece.notes_of(PIANO)) == len(PIECE.notes_of(PIANO))
        programs.update(piece.notes_of(PIANO)["program"].tolist())
        kits.update(piece.notes_of(DRUMS)["program"].tolist())
    assert len(programs) > 3 and programs <= set(PIANO.programs)
    assert len(kits) > 3 and kits <= set(DRUM_KITS)


def test_gains_stay_within_the_range():
    index = next(i for i in range(20) if visit(i).stems.any(axis=(0, 1)).all())
    plain, changed = visit(index), visit(index, gain_db=6.0)
    for position in range(3):
        ratio_db = 20 * np.log10(np.abs(changed.stems[..., position]).max() / np.abs(plain.stems[..., position]).max())
        assert abs(ratio_db) <= 6.01
        assert abs(ratio_db) > 0.01


@pytest.mark.parametrize("effects", [Effects(reverb_send=100), Effects(chorus_send=100)])
def test_an_effect_stays_in_the_stem_of_its_instrument(effects):
    rows = [(0.1, midi.NOTE_ON, 0, 0, 0, 60, 100), (0.5, midi.NOTE_OFF, 0, 0, 0, 60, 0)]
    piece = midi.make_piece("note", rows)
    synthesizer = Synthesizer(SOUNDFONT, INSTRUMENTS, 16_000)
    dry = synthesizer.render(piece, 0, 32_000)
    wet = synthesizer.render(piece, 0, 32_000, (Effects(), effects, Effects()))
    assert np.abs(wet[:, 1] - dry[:, 1]).max() > 1e-3
    assert np.abs(wet[:, [0, 2]]).max() < 1e-6  # FluidSynth's reverb adds a tiny offset against denormal numbers


def test_reverb_rings_on_after_the_note():
    rows = [(0.1, midi.NOTE_ON, 0, 0, 0, 60, 100), (0.5, midi.NOTE_OFF, 0, 0, 0, 60, 0)]
    synthesizer = Synthesizer(SOUNDFONT, (PIANO,), 16_000)
    dry, wet = (
        synthesizer.render(midi.make_piece("note", rows), 0, 32_000, effects)[24_000:]
        for effects in ((), (Effects(reverb_send=100, reverb_room=0.9),))
    )
    assert np.sqrt(np.square(wet).mean()) > 10 * np.sqrt(np.square(dry).mean())
