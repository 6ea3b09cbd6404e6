"""Chunks: what a visit cuts, what it drops, and that mixture and stems say the same."""

from __future__ import annotations

import pathlib
import pickle

import numpy as np
import pytest
from data_helpers import (
    BAND,
    PIANO,
    RATE_HZ,
    SOUNDFONT,
    Handmade,
    Vanishing,
    are_equal,
    band_rows,
    chunker,
    control,
    note,
    piece,
    rms,
    snr_db,
)

from data_gen import InputError
from data_gen.corpus import ComposedCorpus
from data_gen.instruments import CANDIDATES
from data_gen.stems import SILENCE_DBFS
from data_gen.synth import Synthesizer

TEN = tuple(CANDIDATES.values())
TAILS = 4 * 1_600  # four chunks


@pytest.fixture(scope="module")
def busy():
    return Handmade(*(piece(band_rows(0, 8, seed=seed), name=f"busy {seed}") for seed in range(3)))


# ---- Mixture and stems ----------------------------------------------------------------------------------------------
def added_up(stems: np.ndarray) -> np.ndarray:
    """[chunk, time]: stem after stem. (From eight on, the order of `stems.sum(axis=-1)` depends on strides.)"""
    return sum(stems[..., position] for position in range(stems.shape[-1]))


@pytest.mark.parametrize("instruments", [(PIANO,), BAND, TEN], ids=["one", "four", "ten"])
def test_the_mixture_is_the_sum_of_the_stems_in_every_bit(instruments):
    some = chunker(ComposedCorpus(0, instruments), instruments=instruments, chunks_per_song=20)
    for index in range(3):
        visit = some.visit(index)
        assert rms(visit.mixture) > 0
        assert np.array_equal(visit.mixture[..., 0], added_up(visit.stems))


def test_the_mixture_is_still_the_sum_of_the_stems_after_it_came_from_another_process():
    visit = chunker(ComposedCorpus(0, TEN), instruments=TEN, chunks_per_song=20).visit(0)
    sent = pickle.loads(pickle.dumps(visit))
    assert are_equal(sent, visit)
    assert np.array_equal(sent.mixture[..., 0], added_up(sent.stems))


def test_with_some_targets_the_mixture_holds_all_instruments_still(busy):
    everything = chunker(busy).visit(0)
    some = chunker(busy, targets=("strings", "drums")).visit(0)
    assert np.array_equal(some.mixture, everything.mixture)
    assert np.array_equal(some.stems, everything.stems[:, :, [3, 0]])


def test_a_visit_has_the_shapes_types_and_contiguity_that_it_documents(busy):
    visit = chunker(busy, targets=("bass", "piano"), context_samples=100).visit(4)
    assert visit.index == 4
    assert visit.song.startswith("busy")
    assert visit.mixture.shape == (8, 1_800, 1)
    assert visit.stems.shape == (8, 1_800, 2)
    assert visit.starts_s.shape == (8,)
    assert visit.mixture.dtype == visit.stems.dtype == np.float32
    assert chunker(busy, context_samples=100).time_samples == 1_800


# ---- Where chunks lie -----------------------------------------------------------------------------------------------
def test_chunks_are_consecutive_and_within_the_piece(busy):
    starts = set()
    for index in range(12):
        visit = chunker(busy).visit(index)
        assert np.diff(visit.starts_s) == pytest.approx(0.1)
        assert visit.starts_s[0] >= 0
        assert visit.starts_s[-1] + 0.1 <= busy.load("train", int(visit.song[-1])).duration_s
        starts.add(visit.starts_s[0])
    assert len(starts) == 12


@pytest.mark.parametrize("index", range(4))
def test_a_chunk_is_what_a_render_of_the_whole_piece_has_at_its_start(busy, index):
    visit = chunker(busy).visit(index)
    music = busy.load("train", int(visit.song[-1]))
    whole = Synthesizer(SOUNDFONT, BAND, RATE_HZ).render(music, 0, int(music.duration_s * RATE_HZ) + 1)
    begin = round(float(visit.starts_s[0]) * RATE_HZ)
    assert begin > 0
    stretch = visit.stems.reshape(-1, 4)
    for position in range(4):
        # The first of its chunks may lack the tails of notes that were over before the pre-roll.
        heard = stretch[TAILS:, position]
        early, exact, late = (whole[begin + shift :][TAILS : len(stretch), position] for shift in (-1, 0, 1))
        assert snr_db(exact, heard) > 15
        assert snr_db(exact, heard) > snr_db(early, heard)
        assert snr_db(exact, heard) > snr_db(late, heard)


@pytest.mark.parametrize("context", [1, 64, 777])
def test_context_is_added_around_the_chunks_that_would_be_cut_without_it(busy, context):
    for index in range(3):
        plain, wide = chunker(busy).visit(index), chunker(busy, context_samples=context).visit(index)
        assert np.array_equal(wide.starts_s, plain.starts_s)
        inner = wide.stems[:, context:-context]
        assert inner.shape == plain.stems.shape
        assert snr_db(plain.stems[4:], inner[4:]) > 20  # from the fifth on, no tail differs
        assert snr_db(plain.stems, inner) > 5


def test_context_is_the_audio_of_the_neighbouring_chunks(busy):
    visit = chunker(busy, context_samples=700).visit(0)
    for left, right in zip(visit.mixture[:-1], visit.mixture[1:]):
        assert np.array_equal(left[-1_400:], right[:1_400])


def test_before_the_piece_the_context_is_silent():
    short = Handmade(piece(note(0, 1, 60), control(0.15, 7, 100)))  # lasts 1 s; its chunk must begin at its start
    visit = chunker(short, chunk_samples=RATE_HZ, context_samples=1_000).visit(0)
    assert visit.starts_s.tolist() == [0]
    assert not visit.stems[:, :1_000].any()
    assert visit.stems[:, 1_000:2_000].any()


@pytest.mark.parametrize("chunks_per_song", [1, 8])
def test_a_piece_shorter_than_a_chunk_gives_one_chunk_that_ends_in_silence(chunks_per_song):
    short = Handmade(piece(note(0, 0.05, 40, program=33)))
    visit = chunker(short, chunk_samples=4 * RATE_HZ, chunks_per_song=chunks_per_song).visit(0)
    assert visit.starts_s.tolist() == [0]
    assert visit.mixture.shape == (1, 4 * RATE_HZ, 1)
    assert rms(visit.mixture[:, :4_000]) > 1e-3
    assert not visit.mixture[:, 3 * RATE_HZ :].any()


def test_a_piece_gives_no_more_chunks_than_it_is_long(busy):
    visit = chunker(busy, chunks_per_song=1_000).visit(0)
    assert 75 <= len(visit.starts_s) <= 82
    assert visit.starts_s[0] < 0.1


# ---- Draws ----------------------------------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_visits_in_whatever_order(busy):
    forwards = [chunker(busy, keep_solo=0.5).visit(index) for index in range(4)]
    backwards = [chunker(busy, keep_solo=0.5).visit(index) for index in reversed(range(4))]
    assert all(are_equal(one, other) for one, other in zip(forwards, reversed(backwards)))


def test_another_seed_or_another_index_gives_another_visit(busy):
    visits = [chunker(busy, seed=seed).visit(index) for seed in (0, 1) for index in range(3)]
    assert len({(visit.song, visit.starts_s[0]) for visit in visits}) == 6


def test_every_piece_is_visited(busy):
    light = chunker(busy, chunks_per_song=1, chunk_samples=64)
    assert {light.visit(index).song for index in range(30)} == {"busy 0", "busy 1", "busy 2"}


# ---- What is dropped ------------------------------------------------------------------------------------------------
def gaps() -> Handmade:
    """A second of piano and bass, a second of silence, a second of piano alone, and so on."""
    rows = []
    for begin_s in range(0, 60, 3):
        rows += [note(begin_s + i / 10, 0.09, 60 + i, 2, 0) for i in range(20)]
        rows += [note(begin_s + i / 10, 0.09, 40 + i, 1, 33) for i in range(10)]
    return Handmade(piece(*rows))


def test_silent_and_solo_chunks_are_dropped_and_counted():
    n_all = n_silent = n_solo = 0
    for index in range(4):
        everything, kept = (
            chunker(gaps(), chunks_per_song=40, keep_silent=k, keep_solo=k).visit(index) for k in (1.0, 0.0)
        )
        assert (everything.n_silent, everything.n_solo) == (0, 0)
        energies = np.square(everything.stems, dtype=np.float64).mean(axis=1)
        silent = np.square(everything.mixture).mean(axis=(1, 2)) < 10 ** (SILENCE_DBFS / 10)
        solo = ~silent & (np.sort(energies)[:, -2] < np.sort(energies)[:, -1] * 1e-3)
        assert kept.n_silent == silent.sum()
        assert kept.n_solo == solo.sum()
        assert np.array_equal(kept.starts_s, everything.starts_s[~silent & ~solo])
        assert np.array_equal(kept.stems, everything.stems[~silent & ~solo])
        assert np.array_equal(kept.mixture, everything.mixture[~silent & ~solo])
        n_all, n_silent, n_solo = n_all + len(silent), n_silent + kept.n_silent, n_solo + kept.n_solo
    assert n_all == 160
    assert 20 < n_silent < 90
    assert 20 < n_solo < 90


def test_silent_and_solo_chunks_are_kept_and_dropped_apart():
    counts = {}
    for keep_silent, keep_solo in ((0.0, 1.0), (1.0, 0.0)):
        visit = chunker(gaps(), chunks_per_song=300, keep_silent=keep_silent, keep_solo=keep_solo).visit(0)
        counts[keep_silent] = (visit.n_silent > 0, visit.n_solo > 0)
    assert counts == {0.0: (True, False), 1.0: (False, True)}


def test_a_share_of_the_silent_chunks_is_kept():
    args = {"chunks_per_song": 500, "keep_solo": 1.0}
    all_dropped = chunker(gaps(), keep_silent=0.0, **args).visit(0).n_silent
    some_dropped = chunker(gaps(), keep_silent=0.5, **args).visit(0).n_silent
    assert all_dropped > 100
    assert 0.3 * all_dropped < some_dropped < 0.7 * all_dropped


def test_the_chunk_and_not_its_context_decides_whether_it_is_silent():
    # A note every second: a chunk in the rest is silent, though its context is not.
    music = Handmade(piece(*(note(i, 0.05, 40, program=33) for i in range(20))))
    plain, wide = (
        chunker(music, chunks_per_song=100, keep_silent=0.0, context_samples=c).visit(0) for c in (0, RATE_HZ)
    )
    assert plain.n_silent > 20
    assert wide.n_silent == plain.n_silent


def test_with_one_instrument_nothing_plays_alone():
    music = Handmade(piece(*(note(i / 4, 0.25, 60) for i in range(20))))
    visit = chunker(music, instruments=(PIANO,), keep_solo=0.0).visit(0)
    assert visit.n_solo == 0
    assert len(visit.starts_s) == 8


def test_a_visit_of_which_nothing_is_kept_has_no_chunk():
    music = Handmade(piece(*(note(i / 4, 0.25, 60) for i in range(20))))
    visit = chunker(music, keep_solo=0.0, context_samples=10).visit(0)
    assert visit.n_solo == 8
    assert visit.starts_s.shape == (0,)
    assert visit.mixture.shape == (0, 1_620, 1)
    assert visit.stems.shape == (0, 1_620, 4)


# ---- Errors ---------------------------------------------------------------------------------------------------------
def test_a_split_without_a_piece_is_refused():
    with pytest.raises(InputError, match="no piece in the validation split"):
        chunker(Handmade(), split="validation").visit(0)


def test_a_vanished_file_fails_its_visits_and_no_others():
    corpus = Vanishing(piece(band_rows(0, 2), name="here"), piece(band_rows(0, 2), name="gone"))
    outcomes = []
    for index in range(12):
        try:
            outcomes.append(chunker(corpus).visit(index).song)
        except InputError as error:
            outcomes.append(str(error))
    assert set(outcomes) == {"here", "gone: No such file or directory"}


def test_a_missing_soundfont_is_found_before_anything_is_rendered(busy, tmp_path):
    with pytest.raises(InputError, match="no such SoundFont"):
        chunker(busy, soundfonts=(SOUNDFONT, str(tmp_path / "none.sf2"))).source.prepare()


def test_a_damaged_soundfont_among_good_ones_is_left_out(busy, tmp_path):
    damaged = tmp_path / "damaged.sf2"
    damaged.write_bytes(pathlib.Path(SOUNDFONT).read_bytes()[:50_000])
    source = chunker(busy, soundfonts=(str(damaged), SOUNDFONT)).source
    source.prepare()
    assert source.soundfonts == (SOUNDFONT,)
    with pytest.raises(InputError, match="damaged.sf2"):
        chunker(busy, soundfonts=(str(damaged),)).source.prepare()


def test_a_chunker_that_was_sent_elsewhere_makes_the_same_chunks(busy):
    sent = pickle.loads(pickle.dumps(chunker(busy)))
    assert are_equal(sent.visit(1), chunker(busy).visit(1))
