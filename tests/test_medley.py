"""Bands from several pieces and folders: tempo, key, parts; folders with weights; a share of composed pieces."""

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import (
    BAND,
    BASS,
    DRUMS,
    PIANO,
    RATE_HZ,
    SOUNDFONT,
    Handmade,
    are_equal,
    chunker,
    drum,
    note,
    piece,
    rms,
    song_bytes,
)

from data_gen import InputError
from data_gen.corpus import JoinedCorpus, MidiCorpus, open_corpus, split_folders
from data_gen.medley import beat, combine, key_shift
from data_gen.played import PlayedStems

SCALE = (0, 2, 4, 5, 7, 9, 11, 12)


def tune(beat_s: float, root: int, n: int = 64, start_s: float = 0.0):
    """A piano that plays up and down a major scale, a note on each beat."""
    steps = [SCALE[abs((i % 14) - 7)] for i in range(n)]
    return piece(*(note(start_s + i * beat_s, 0.8 * beat_s, root + step) for i, step in enumerate(steps)), name="tune")


def drummer(beat_s: float, n: int = 16):
    return piece(*(drum(0.1 + i * beat_s, 36 if i % 2 else 38) for i in range(n)), name="drummer")


@pytest.mark.parametrize("beat_s", [0.4, 0.5, 0.66])
def test_the_beat_is_found(beat_s):
    period_s, phase_s = beat(tune(beat_s, 60, start_s=0.2))
    assert period_s == pytest.approx(beat_s, abs=0.01)
    assert min(abs(phase_s - 0.2 % beat_s), beat_s - abs(phase_s - 0.2 % beat_s)) < 0.03


def test_the_key_of_another_piece_is_reached_by_the_shortest_way():
    assert [key_shift(tune(0.5, 60), tune(0.5, 60 + move)) for move in (0, 3, -4, 6, 12)] == [0, 3, -4, 6, 0]
    assert key_shift(tune(0.5, 60), drummer(0.5)) == 0


def test_a_short_part_is_repeated_on_the_beat_and_in_the_key_of_the_first_piece():
    base, drums = tune(0.5, 60), drummer(0.6)
    other = piece(*(note(i * 0.3, 0.2, 38 + step, 0, 33) for i, step in enumerate(SCALE * 4)), name="bass in D")
    band = combine(base, {DRUMS: drums, BASS: other}, BAND, np.random.default_rng(0))
    assert band.duration_s == base.duration_s
    assert (np.diff(band.events["time_s"]) >= 0).all()
    np.testing.assert_array_equal(band.notes_of(PIANO)["number"], base.notes_of(PIANO)["number"])
    strokes_s = band.notes_of(DRUMS)["time_s"]
    assert strokes_s[0] < 1 and strokes_s[-1] > base.duration_s - 1
    away_s = np.abs((strokes_s + 0.25) % 0.5 - 0.25)
    assert np.median(away_s) < 0.03
    assert {pitch % 12 for pitch in band.notes_of(BASS)["number"].tolist()} == set(np.array(SCALE) % 12)
    assert len({*band.notes["channel"].tolist()}) == 3


def test_a_visit_plays_instruments_of_several_pieces_and_depends_on_its_number_only():
    corpus = Handmade(tune(0.5, 60), drummer(0.4, 60))
    sources = [
        PlayedStems(corpus, (DRUMS, PIANO), (SOUNDFONT,), RATE_HZ, remix_match=share) for share in (1.0, 1.0, 0.0)
    ]
    some, same, apart = (chunker(corpus) for _ in range(3))
    for one, source in zip((some, same, apart), sources):
        object.__setattr__(one, "source", source)
        object.__setattr__(one, "targets", source.names)
    visits = [some.visit(index) for index in range(4)]
    assert all(are_equal(same.visit(index), visits[index]) for index in (3, 0))
    both = [min(rms(visit.stems[..., i]) for i in (0, 1)) > 0.003 for visit in visits]
    assert sum(both) >= 3
    assert all(min(rms(apart.visit(index).stems[..., i]) for i in (0, 1)) == 0 for index in range(4))


def write(folder, melodies: dict[str, list[int]]):
    folder.mkdir()
    for name, melody in melodies.items():
        (folder / f"{name}.mid").write_bytes(song_bytes(melody))
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora")
    rng = np.random.default_rng(0)
    melodies = [rng.integers(50, 70, 60).tolist() for _ in range(30)]
    one = write(root / "one", {f"a{i}": melody for i, melody in enumerate(melodies[:20])})
    two = write(root / "two", {f"b{i}": [key + 2 for key in melody] for i, melody in enumerate(melodies[15:])})
    return one, two


def test_several_folders_are_one_corpus_in_which_no_song_is_twice_and_none_changes_sides(folders):
    one, both = (
        MidiCorpus(folders[0], (PIANO,), progress=False),
        MidiCorpus(",".join(folders), (PIANO,), progress=False),
    )
    assert sum(one.size(split) for split in both.splits) == 20
    assert sum(both.size(split) for split in both.splits) == 30
    for split in both.splits:
        names = {both.name(split, index) for index in range(both.size(split))}
        assert {one.name(split, index) for index in range(one.size(split))} <= names
    with pytest.raises(InputError, match="/nowhere: no such folder"):
        MidiCorpus(f"{folders[0]},/nowhere", (PIANO,), progress=False)


def test_the_songs_of_a_folder_are_drawn_as_often_as_its_weight_says(folders):
    assert split_folders(f"{folders[0]}:3,{folders[1]}") == {folders[0]: 3.0, folders[1]: 1.0}
    corpus = MidiCorpus(f"{folders[0]}:9,{folders[1]}", (PIANO,), progress=False)
    rng = np.random.default_rng(0)
    drawn = [corpus.name("train", corpus.draw("train", rng)).startswith(folders[0]) for _ in range(300)]
    n = sum(corpus.name("train", index).startswith(folders[0]) for index in range(corpus.size("train")))
    assert np.mean(drawn) == pytest.approx(9 * n / (9 * n + corpus.size("train") - n), abs=0.06)


def test_a_share_of_the_draws_is_composed_and_none_of_the_songs_kept_for_tests(folders):
    corpus = open_corpus(folders[0], (PIANO,), "all", 0, composed_share=0.25)
    assert isinstance(corpus, JoinedCorpus)
    rng = np.random.default_rng(0)
    names = [corpus.name("train", corpus.draw("train", rng)) for _ in range(200)]
    composed = [name for name in names if name.startswith("composed-train")]
    assert 30 < len(composed) < 70
    assert corpus.load("train", corpus.size("train")).name.startswith("composed")
    assert all(folders[0] in corpus.name("test", index) for index in range(corpus.size("test")))
