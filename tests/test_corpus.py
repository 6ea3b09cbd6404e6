"""The corpus: what a scan finds, what it need not read twice, which files are one song, and how songs are split."""

from __future__ import annotations

import logging
import os
import pathlib
import pickle
import shutil
import zlib

import numpy as np
import pytest
from data_helpers import BAND, BASS, DRUMS, PIANO, SHARED, STRINGS, midi_bytes, off, on, program, song_bytes

from data_gen import InputError, corpus, index, midi
from data_gen.corpus import ComposedCorpus, MidiCorpus, open_corpus
from data_gen.index import scan
from data_gen.instruments import CANDIDATES
from data_gen.songs import SIGNATURE_SIZE, _crc32, music_signature
from data_gen.stems import SPLITS


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch) -> pathlib.Path:
    """An empty cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def melody(seed: int, n_notes: int = 200) -> list[int]:
    """A random walk over the middle of the keyboard."""
    steps = np.random.default_rng(seed).integers(-7, 8, n_notes)
    pitches = [60]
    for step in steps.tolist():
        pitches.append(pitches[-1] + (step if 40 <= pitches[-1] + step <= 84 else -step))
    return pitches


def write(folder: pathlib.Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def songs(first: int, last: int) -> dict[str, bytes]:
    return {f"{seed:02}.mid": song_bytes(melody(seed)) for seed in range(first, last)}


def split_by_path(opened: MidiCorpus) -> dict[str, str]:
    return {
        os.path.relpath(entry.path, opened.midi_dir): split
        for split, entries in opened.splits.items()
        for entry in entries
    }


def index_path(cache_dir: pathlib.Path) -> pathlib.Path:
    (path,) = (cache_dir / "sourcesep").glob("index-*.json")
    return path


# ---- What is found --------------------------------------------------------------------------------------------------
def test_files_are_found_recursively_whatever_the_case_of_their_extension(tmp_path):
    names = ["a.mid", "B.MID", "deep/er/c.Midi", "deep/d.kar", "e e.rmi", "ü.mid", "two.dots.mid"]
    others = {"readme.txt": b"", "mid": b"", "a.mid.zip": b"", "a.mus": b""}
    write(tmp_path, {**{name: song_bytes(melody(i)) for i, name in enumerate(names)}, **others})
    assert [entry.path for entry in scan(str(tmp_path), False)] == sorted(names)


def test_a_folder_that_is_linked_into_another_is_searched_too(tmp_path):
    write(tmp_path / "elsewhere", songs(0, 2))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert [entry.path for entry in scan(str(tmp_path / "root"), False)] == ["link/00.mid", "link/01.mid"]


def test_a_link_to_nothing_does_not_stop_a_scan(tmp_path):
    write(tmp_path, songs(0, 1))
    (tmp_path / "link.mid").symlink_to(tmp_path / "nothing.mid")
    assert [entry.path for entry in scan(str(tmp_path), False) if not entry.error] == ["00.mid"]


def test_an_entry_says_what_the_file_holds(tmp_path):
    track = [
        program(33, 0, 1),
        on(40, 480, 1),
        off(40, 480, 1),
        on(38, 0, 9),
        off(38, 240, 9),
        on(38, 0, 9),
        off(38, 240, 9),
    ]
    write(tmp_path, {"a.mid": midi_bytes(track)})
    (entry,) = scan(str(tmp_path), False)
    stat = os.stat(tmp_path / "a.mid")
    assert (entry.path, entry.size, entry.mtime_ns, entry.error) == ("a.mid", stat.st_size, stat.st_mtime_ns, "")
    assert entry.duration_s == pytest.approx(1.5)
    assert {key: tuple(value) for key, value in entry.notes.items()} == {"0:33": (1, 0.5), "128:0": (2, 0.5)}
    assert entry.holds(BASS)
    assert entry.holds(DRUMS)
    assert not entry.holds(PIANO)


def test_broken_files_are_counted_named_and_skipped(tmp_path, caplog):
    write(tmp_path, {**songs(0, 3), "empty.mid": b"", "text.mid": b"hello", "cut.mid": song_bytes(melody(9))[:20]})
    caplog.set_level(logging.INFO, "absl")
    opened = MidiCorpus(str(tmp_path), [PIANO], progress=False)
    assert sum(opened.size(split) for split in SPLITS) == 3
    assert "3 of 6 MIDI files are skipped as broken" in caplog.text
    for name in ("empty.mid", "text.mid", "cut.mid"):
        assert caplog.text.count(f"{tmp_path}/{name}: ") == 1


# ---- What is not read twice -----------------------------------------------------------------------------------------
def test_a_second_scan_returns_what_the_first_did(tmp_path):
    write(tmp_path, {**songs(0, 3), "broken.mid": b"hello"})
    assert scan(str(tmp_path), False) == scan(str(tmp_path), False)


def test_a_file_of_the_same_size_and_time_is_not_read_again_and_a_changed_one_is(tmp_path):
    write(tmp_path, songs(0, 2))
    before = {entry.path: entry for entry in scan(str(tmp_path), False)}
    for name, later_ns in (("00.mid", 0), ("01.mid", 1_000_000_000)):
        stat = os.stat(tmp_path / name)
        (tmp_path / name).write_bytes(b"x" * stat.st_size)
        os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns + later_ns))
    after = {entry.path: entry for entry in scan(str(tmp_path), False)}
    assert after["00.mid"].digest == before["00.mid"].digest
    assert not after["00.mid"].error
    assert "not a MIDI file" in after["01.mid"].error


def test_a_broken_file_that_was_mended_is_used(tmp_path):
    write(tmp_path, {**songs(0, 1), "x.mid": b"hello"})
    assert [bool(entry.error) for entry in scan(str(tmp_path), False)] == [False, True]
    write(tmp_path, {"x.mid": song_bytes(melody(5))})
    assert [bool(entry.error) for entry in scan(str(tmp_path), False)] == [False, False]


def test_a_file_that_was_removed_is_no_longer_found(tmp_path):
    write(tmp_path, songs(0, 3))
    scan(str(tmp_path), False)
    (tmp_path / "01.mid").unlink()
    assert [entry.path for entry in scan(str(tmp_path), False)] == ["00.mid", "02.mid"]


def test_two_folders_have_an_index_each(tmp_path, cache_dir):
    one, two = write(tmp_path / "one", songs(0, 2)), write(tmp_path / "two", songs(2, 4))
    scan(one, False), scan(two, False)
    assert len(list((cache_dir / "sourcesep").glob("index-*.json"))) == 2
    assert [entry.path for entry in scan(one, False)] == ["00.mid", "01.mid"]


def test_a_piece_loads_as_the_file_reads(tmp_path):
    write(tmp_path, {"a.mid": song_bytes(melody(3), programs=(0, 48))})
    opened = MidiCorpus(str(tmp_path), [PIANO, STRINGS], progress=False)
    loaded, read = opened.load("train", 0), midi.read_midi(tmp_path / "a.mid")
    assert np.array_equal(loaded.events, read.events)
    assert (loaded.name, loaded.duration_s) == (read.name, read.duration_s)
    assert opened.name("train", 0) == str(tmp_path / "a.mid") == loaded.name


def test_a_deleted_file_still_loads_from_the_cache(tmp_path):
    write(tmp_path, {"a.mid": song_bytes(melody(4))})
    opened = MidiCorpus(str(tmp_path), [PIANO], progress=False)
    expected = midi.read_midi(tmp_path / "a.mid")
    (tmp_path / "a.mid").unlink()
    assert np.array_equal(opened.load("train", 0).events, expected.events)


def test_a_file_gone_from_the_folder_and_from_the_cache_is_an_input_error_that_names_it(tmp_path, cache_dir):
    write(tmp_path, {"a.mid": song_bytes(melody(5))})
    opened = MidiCorpus(str(tmp_path), [PIANO], progress=False)
    (tmp_path / "a.mid").unlink()
    shutil.rmtree(cache_dir)
    with pytest.raises(InputError, match="a.mid: No such file"):
        opened.load("train", 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"hello",
        lambda data: data[:40],
        lambda data: data[:-40],
        lambda data: data[40:],
        lambda data: data[: len(data) // 2] + b"~~~~" + data[len(data) // 2 + 4 :],
    ],
    ids=["empty", "text", "beginning", "no end", "no beginning", "overwritten"],
)
def test_when_stored_events_are_damaged_the_file_is_read_again(tmp_path, cache_dir, damage):
    write(tmp_path, {"a.mid": song_bytes(melody(6))})
    opened = MidiCorpus(str(tmp_path), [PIANO], progress=False)
    (stored,) = cache_dir.rglob("*.npz")
    stored.write_bytes(damage(stored.read_bytes()))
    assert np.array_equal(opened.load("train", 0).events, midi.read_midi(tmp_path / "a.mid").events)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "hello",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "7",
        lambda text: text.replace("[1,", "[0,", 1),
        lambda text: "[1, null]",
        lambda text: '[1, [["00.mid"]]]',
        lambda text: '[1, [["00.mid", 1, 2, "", "", 0, {}, 5, 0, "one too many"]]]',
        lambda text: "\x00\xff",
    ],
)
def test_a_damaged_index_is_made_anew(tmp_path, cache_dir, damage):
    write(tmp_path, songs(0, 3))
    before = [(entry.path, entry.digest, entry.song) for entry in scan(str(tmp_path), False)]
    path = index_path(cache_dir)
    path.write_text(damage(path.read_text()), encoding="latin-1")
    assert [(entry.path, entry.digest, entry.song) for entry in scan(str(tmp_path), False)] == before
    (tmp_path / "00.mid").write_bytes(b"")
    assert scan(str(tmp_path), False)[0].error


def test_a_scan_leaves_no_temporary_file(tmp_path, cache_dir):
    write(tmp_path, songs(0, 3))
    scan(str(tmp_path), False)
    assert {path.suffix for path in cache_dir.rglob("*") if path.is_file()} == {".json", ".npz"}


def file_in_its_place(folder, monkeypatch):
    (folder / "cache").write_bytes(b"")


def full_disk(folder, monkeypatch):
    def replacing(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "replacing", replacing)
    monkeypatch.setattr(index, "write_atomically", lambda path, data: replacing(path))


def folder_in_place_of_the_index(folder, monkeypatch):
    scan(str(folder / "songs"), False)
    for path in (folder / "cache").rglob("*.json"):
        path.unlink()
        path.mkdir()


def not_writable(folder, monkeypatch):
    (folder / "cache" / "sourcesep").mkdir(parents=True)
    monkeypatch.setattr(index.pathlib.Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no")))


@pytest.mark.parametrize("break_cache", [file_in_its_place, full_disk, folder_in_place_of_the_index, not_writable])
def test_without_a_usable_cache_files_are_read_and_this_is_told_once(break_cache, tmp_path, monkeypatch, caplog):
    folder = write(tmp_path / "songs", songs(0, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    break_cache(tmp_path, monkeypatch)
    caplog.set_level(logging.WARNING, "absl")
    entries = scan(folder, False)
    assert len(entries) == 2 and not any(entry.error for entry in entries)
    assert caplog.text.count("set XDG_CACHE_HOME") == 1
    entry = entries[0]
    index.load_piece.cache_clear()
    assert len(index.load_piece(entry.digest, os.path.join(folder, entry.path)).events)


def test_links_are_followed_and_each_file_comes_once(tmp_path):
    write(tmp_path / "a", songs(0, 2))
    write(tmp_path / "elsewhere", songs(2, 3))
    os.symlink(".", tmp_path / "a" / "l1")
    os.symlink("..", tmp_path / "a" / "l2")
    os.symlink(tmp_path / "elsewhere", tmp_path / "a" / "album")
    os.symlink(tmp_path / "elsewhere", tmp_path / "a" / "b again")
    os.symlink("nowhere", tmp_path / "a" / "broken.mid")
    entries = scan(str(tmp_path / "a"), False)
    assert len(entries) == 3
    assert len({os.path.realpath(tmp_path / "a" / entry.path) for entry in entries}) == 3


def test_names_that_are_not_text_are_read_and_remembered(tmp_path):
    folder = write(tmp_path, songs(0, 1))
    (path,) = (path for path in tmp_path.iterdir())
    os.rename(path, os.fsencode(tmp_path) + b"/caf\xe9.mid")
    for _ in range(2):
        (entry,) = scan(folder, False)
        assert os.fsencode(entry.path) == b"caf\xe9.mid" and not entry.error
    (tmp_path / "more").mkdir()
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/more\xe9")
    os.rename(tmp_path / "more", folder)
    os.rename(os.fsencode(tmp_path) + b"/caf\xe9.mid", os.path.join(folder, "a.mid"))
    assert len(scan(folder, False)) == 1


# ---- Songs ----------------------------------------------------------------------------------------------------------
def edited(pitches: list[int]) -> list[int]:
    changed = list(pitches)
    for place in (30, 80, 130, 180):
        changed[place] += 5
    return changed[:-6]


@pytest.mark.parametrize(
    "other",
    [
        lambda pitches: song_bytes(pitches),
        lambda pitches: song_bytes([pitch + 3 for pitch in pitches]),
        lambda pitches: song_bytes([pitch - 8 for pitch in pitches]),
        lambda pitches: song_bytes(pitches, us_per_beat=317_000),
        lambda pitches: song_bytes(pitches, ticks=77),
        lambda pitches: song_bytes(pitches, programs=(48,)),
        lambda pitches: song_bytes(pitches, programs=(0, 48, 33)),
        lambda pitches: song_bytes(edited(pitches)),
        lambda pitches: song_bytes([pitch + 2 for pitch in edited(pitches)], us_per_beat=600_000),
    ],
    ids=["renamed", "higher", "lower", "slower", "faster", "other program", "doubled", "edited", "all of it"],
)
def test_the_same_music_in_another_guise_is_the_same_song_and_only_one_copy_is_used(tmp_path, other):
    files = {f"{seed}.mid": song_bytes(melody(seed)) for seed in (1, 2, 3)}
    write(tmp_path, {**files, "z/another name.mid": other(melody(2))})
    named = {entry.path: entry.song for entry in scan(str(tmp_path), False)}
    assert named["z/another name.mid"] == named["2.mid"]
    assert len(set(named.values())) == 3
    opened = MidiCorpus(str(tmp_path), [PIANO, STRINGS], "any", progress=False)
    used = {os.path.basename(entry.path) for entries in opened.splits.values() for entry in entries}
    assert used == {"1.mid", "2.mid", "3.mid"}


def test_a_copy_that_is_found_later_joins_its_song(tmp_path):
    write(tmp_path, songs(0, 3))
    before = {entry.path: entry.song for entry in scan(str(tmp_path), False)}
    write(tmp_path, {"a copy.mid": song_bytes([pitch + 1 for pitch in melody(1)])})
    after = {entry.path: entry.song for entry in scan(str(tmp_path), False)}
    assert after == {**before, "a copy.mid": before["01.mid"]}


def test_different_music_is_a_different_song_even_with_the_same_drums(tmp_path):
    beat = [message for _ in range(100) for message in (on(36, 0, 9), off(36, 240, 9), on(38, 0, 9), off(38, 240, 9))]
    for seed in range(6):
        tune = [message for pitch in melody(seed) for message in (on(pitch), off(pitch, 240))]
        write(tmp_path, {f"{seed}.mid": midi_bytes(tune, beat)})
    assert len({entry.song for entry in scan(str(tmp_path), False)}) == 6


def test_the_hash_of_a_song_stays_what_it_was_so_that_none_changes_its_split():
    windows = np.random.default_rng(0).integers(-128, 128, (50, 6)).astype(np.int16)
    assert _crc32(windows).tolist() == [zlib.crc32(window.tobytes()) for window in windows]
    signature = music_signature(midi.parse_midi(song_bytes(melody(1)), "x"))
    assert signature[:3] == (13_679_297, 27_863_888, 10_800_850)


def test_signatures_agree_about_as_far_as_the_music_does():
    def signature(pitches):
        return np.array(music_signature(midi.parse_midi(song_bytes(pitches), "x")))

    half = melody(1)[:100] + melody(2)[:100]
    assert (signature(melody(1)) == signature([pitch + 5 for pitch in melody(1)])).all()
    assert (signature(melody(1)) == signature(melody(2))).mean() < 0.1
    assert 0.1 < (signature(melody(1)) == signature(half)).mean() < 0.6
    assert len(music_signature(midi.parse_midi(song_bytes([60]), "x"))) == SIGNATURE_SIZE


# ---- Splits ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def many(tmp_path_factory) -> str:
    """Sixty songs, every second of them twice."""
    copies = {f"copies/{seed:02}.mid": song_bytes([p + 2 for p in melody(seed)], 100) for seed in range(0, 60, 2)}
    return write(tmp_path_factory.mktemp("many"), {**songs(0, 60), **copies})


def test_no_song_is_on_two_sides_and_each_is_used_once(many):
    named = {entry.path: entry.song for entry in scan(many, False)}
    opened = MidiCorpus(many, [PIANO], progress=False)
    sides = {
        split: [named[os.path.relpath(entry.path, opened.midi_dir)] for entry in entries]
        for split, entries in opened.splits.items()
    }
    used = sides["train"] + sides["validation"] + sides["test"]
    assert sorted(used) == sorted(set(named.values()))
    assert len(used) == 60
    assert all(len(side) > 0 for side in sides.values())
    assert len(sides["train"]) > 36
    assert [opened.size(split) for split in SPLITS] == [len(sides[split]) for split in SPLITS]


def test_a_song_stays_on_its_side_when_files_are_added_or_removed_and_when_the_cache_is_lost(tmp_path, cache_dir):
    folder = write(tmp_path, songs(0, 25))
    before = split_by_path(MidiCorpus(folder, [PIANO], progress=False))
    assert len(before) == 25
    write(tmp_path, songs(25, 40))
    more = split_by_path(MidiCorpus(folder, [PIANO], progress=False))
    assert len(more) == 40
    assert before.items() <= more.items()
    for seed in range(0, 40, 2):
        (tmp_path / f"{seed:02}.mid").unlink()
    fewer = split_by_path(MidiCorpus(folder, [PIANO], progress=False))
    assert len(fewer) == 20
    assert fewer.items() <= more.items()
    shutil.rmtree(cache_dir / "sourcesep")
    assert split_by_path(MidiCorpus(folder, [PIANO], progress=False)) == fewer


def test_a_song_stays_on_its_side_whatever_instruments_are_named(many):
    one, two = (split_by_path(MidiCorpus(many, named, "any", False)) for named in ([PIANO], [PIANO, DRUMS]))
    assert one == two


def test_a_single_song_is_trained_on(tmp_path):
    for seed in range(12):  # among so many, some would be held out by their music
        opened = MidiCorpus(write(tmp_path / str(seed), songs(seed, seed + 1)), [PIANO], progress=False)
        assert opened.size("train") == 1


# ---- What is required -----------------------------------------------------------------------------------------------
@pytest.fixture
def varied(tmp_path) -> str:
    """A file with piano, one with strings, one with both."""
    casts = {"piano.mid": (0,), "strings.mid": (48,), "both.mid": (1, 49)}
    return write(tmp_path, {name: song_bytes(melody(i), programs=cast) for i, (name, cast) in enumerate(casts.items())})


def test_all_requires_every_instrument_and_any_one_of_them(varied):
    assert set(split_by_path(MidiCorpus(varied, [PIANO, STRINGS], "all", False))) == {"both.mid"}
    everything = {"piano.mid", "strings.mid", "both.mid"}
    assert set(split_by_path(MidiCorpus(varied, [PIANO, STRINGS], "any", False))) == everything
    assert set(split_by_path(MidiCorpus(varied, [STRINGS], "all", False))) == {"strings.mid", "both.mid"}


def test_a_folder_without_a_usable_file_is_refused_with_how_many_hold_what(varied):
    with pytest.raises(InputError) as refusal:
        MidiCorpus(varied, [PIANO, STRINGS, DRUMS], "all", False)
    assert "none of 3 readable MIDI files holds all of the instruments" in str(refusal.value)
    assert "(piano in 2, strings in 2, drums in 0)" in str(refusal.value)
    assert "--require=any" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match=r"holds any of the instruments \(drums in 0\)"):
        MidiCorpus(varied, [DRUMS], "any", False)


def test_a_missing_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(InputError, match=f"--midi_dir={tmp_path}/none: no such folder"):
        MidiCorpus(str(tmp_path / "none"), BAND, progress=False)
    write(tmp_path, songs(0, 1))
    with pytest.raises(InputError, match="no such folder"):
        MidiCorpus(str(tmp_path / "00.mid"), BAND, progress=False)


def test_a_folder_without_midi_files_is_refused_by_its_name(tmp_path):
    write(tmp_path, {"readme.txt": b"", "sub/a.mp3": b""})
    with pytest.raises(InputError, match=f"--midi_dir={tmp_path}: holds no MIDI file"):
        MidiCorpus(str(tmp_path), BAND, progress=False)


def test_a_folder_of_broken_files_is_refused(tmp_path):
    with pytest.raises(InputError, match="none of 0 readable MIDI files"):
        MidiCorpus(write(tmp_path, {"a.mid": b"hello"}), BAND, progress=False)


# ---- Composed -------------------------------------------------------------------------------------------------------
def test_the_composed_corpus_is_the_same_each_time_and_another_with_another_seed():
    one, same, other = ComposedCorpus(1, BAND), ComposedCorpus(1, BAND), ComposedCorpus(2, BAND)
    corpus._compose.cache_clear()
    first = one.load("train", 3)
    corpus._compose.cache_clear()
    assert np.array_equal(first.events, same.load("train", 3).events)
    assert not np.array_equal(first.events, other.load("train", 3).events)


def test_no_composed_piece_is_in_two_splits():
    composed = ComposedCorpus(0, (PIANO, BASS))
    pieces = [composed.load(split, index) for split in SPLITS for index in range(5)]
    assert len({piece.events.tobytes() for piece in pieces}) == 15
    assert [composed.size(split) for split in SPLITS] == [400, 40, 40]
    names = {composed.name(split, index) for split in SPLITS for index in range(5)}
    assert len(names) == 15


def test_a_composed_piece_plays_every_instrument_and_travels_with_its_corpus():
    composed = pickle.loads(pickle.dumps(ComposedCorpus(0, BAND)))
    piece = composed.load("test", 7)
    assert all(len(piece.notes_of(instrument)) > 0 for instrument in BAND)


def test_a_folder_is_opened_if_one_is_named_and_else_the_composer_plays(tmp_path):
    assert isinstance(open_corpus("", BAND, "all", 3), ComposedCorpus)
    opened = open_corpus(write(tmp_path, songs(0, 1)), [PIANO], "all", 3)
    assert isinstance(opened, MidiCorpus)
    assert pickle.loads(pickle.dumps(opened)).load("train", 0).name == str(tmp_path / "00.mid")


# ---- Real files -----------------------------------------------------------------------------------------------------
def test_real_files_are_found_with_the_instruments_that_they_hold(tmp_path):
    source = SHARED / "midi" / "freedoom"
    if not source.is_dir():
        pytest.skip("no ../shared/midi here")
    for path in sorted(source.glob("*.mid"))[:12]:
        shutil.copy(path, tmp_path)
    index = scan(str(tmp_path), False)
    assert len(index) == 12
    for entry in index:
        piece = midi.read_midi(tmp_path / entry.path)
        held = {name for name, instrument in CANDIDATES.items() if entry.holds(instrument)}
        assert held == {name for name, instrument in CANDIDATES.items() if len(piece.notes_of(instrument))}
