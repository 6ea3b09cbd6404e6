"""Recorded stems as training data: layouts, windows, the corpus, mixing with MIDI and solo recordings."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import soxr
import yaml
from absl import logging
from conftest import SOUNDFONT, change
from helpers import hide_fluidsynth, noise, run

from data_gen import InputError
from data_gen.chunks import Chunker
from data_gen.effects import EffectChances
from data_gen.instruments import Instrument, parse_instruments
from data_gen.layouts import assign, find_songs, normalize
from data_gen.mixed import MixedStems
from data_gen.recorded import RecordedStems, draw_speed
from data_gen.recorded_corpus import RecordedCorpus, open_solos
from data_gen.recorded_take import RecordedTake
from data_gen.stems import OTHER
from data_gen.variation import Variation
from data_gen.windows import open_stem
from sourcesep.config import Config
from sourcesep.evaluate import songs as scored_songs
from sourcesep.sources import make_chunker, open_source
from sourcesep.train import training

RATE = 8_000
BAND = parse_instruments(["drums", "bass"])
ALL = parse_instruments(["drums", "bass", "piano", "strings", "vocals"], recorded=True)


def write(path, samples, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def write_song(folder, seed=0, names=("drums", "bass"), seconds=4.0, suffix="wav"):
    """A song of noise, which differs from that of every other seed."""
    stems = {name: noise(round(seconds * RATE), seed=1_000 * seed + i) for i, name in enumerate(names)}
    for name, samples in stems.items():
        write(folder / f"{name}.{suffix}", samples)
    return stems


def write_container(path, n_tracks=5, seconds=2.0, rate=44_100):
    """A file of several sound tracks in AAC, each a sine of 200 Hz times its number."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate)) / rate
    tracks = [0.3 * np.sin(2 * np.pi * 200 * (i + 1) * time_s).astype(np.float32) for i in range(n_tracks)]
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=rate, layout="mono") for _ in tracks]
        for stream, samples in zip(streams, tracks):
            for start in range(0, len(samples), 1_024):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1_024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return tracks


# ---- Layouts --------------------------------------------------------------------------------------------------------
def named(folder):
    write_song(folder / "A song", names=("Drums_1", "drums 2", "BassGuitar", "mixture", "vox"))


def musdb18(folder):
    write_container(folder / "train" / "A song.stem.mp4", seconds=0.2)


def slakh(folder):
    described = {"S00": (0, True, "Drums"), "S01": (33, False, "Bass"), "S02": (1, False, "Piano")}
    stems = {
        key: {"program_num": program, "is_drum": is_drum, "inst_class": label, "audio_rendered": True}
        for key, (program, is_drum, label) in described.items()
    }
    write_song(folder / "train" / "Track00001" / "stems", names=described)
    (folder / "train" / "Track00001" / "metadata.yaml").write_text(yaml.safe_dump({"stems": stems}))


def moises(folder):
    tracks = {"drums": ["snare drum", "kick drum"], "bowed_strings": ["violin (solo)"], "other_keys": ["synth pad"]}
    stems = [
        {
            "stemName": stem,
            "tracks": [{"id": f"{stem}{i}", "trackType": t, "extension": "wav"} for i, t in enumerate(types)],
        }
        for stem, types in tracks.items()
    ]
    for stem, types in tracks.items():
        write_song(folder / "0001" / stem, names=[f"{stem}{i}" for i in range(len(types))])
    (folder / "0001" / "data.json").write_text(json.dumps({"song": "x", "stems": stems}))


LAYOUTS = {
    named: ("A song", {"drums": 2, "bass": 1, "vocals": 1}, set(), True, None),
    musdb18: ("train/A song", {"drums": 1, "bass": 1, "vocals": 1}, {"other"}, False, "train"),
    slakh: ("train/Track00001", {"drums": 1, "bass": 1, "piano": 1}, set(), True, "train"),
    moises: ("0001", {"drums": 2, "strings": 1}, {"synth pad"}, True, None),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_stems_of_every_layout_belong_to_the_instruments_that_play_them(layout, tmp_path):
    layout(tmp_path)
    (song,) = find_songs(tmp_path)
    assigned = assign(song, ALL)
    found = {name: len(places) for name, places in assigned.stems.items()}
    assert (song.name, found, set(assigned.others), assigned.is_labelled, song.split) == LAYOUTS[layout]
    assert all(open_stem(place.path, place.track).n_samples for place in song.places)


@pytest.mark.parametrize(
    "name, instrument",
    [
        *(("drums", "drums"), ("01_KickDrum (L)", "drums"), ("Bass", "bass"), ("bass_guitar-2", "bass")),
        *(
            ("Violin 1", "strings"),
            ("Lead Vocals", "vocals"),
            ("Grand Piano_R", "piano"),
            ("harp", None),
            ("808", None),
        ),
    ],
)
def test_a_stem_belongs_to_the_instrument_that_its_name_or_an_alias_says(name, instrument, tmp_path):
    write(tmp_path / "song" / f"{name}.wav", noise(100))
    assigned = assign(find_songs(tmp_path)[0], ALL)
    assert list(assigned.stems) == ([instrument] if instrument else [])


def test_an_instrument_gets_the_files_of_its_own_name_before_those_that_have_it_as_an_alias(tmp_path):
    write_song(tmp_path / "song", names=("violin", "cello", "guitar1", "guitar2", "gtr_lead"))
    instruments = [Instrument(name) for name in ("strings", "violin", "guitar1", "guitar2")]
    assigned = assign(find_songs(tmp_path)[0], instruments, {"guitar2": ["gtr lead"]})
    owners = {place.path.stem: name for name, places in assigned.stems.items() for place in places}
    assert owners == {
        "violin": "violin",
        "cello": "strings",
        "guitar1": "guitar1",
        "guitar2": "guitar2",
        "gtr_lead": "guitar2",
    }
    assert normalize("01 Grand-Piano (Left)") == "grand_piano"


# ---- Windows --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, subtype",
    [
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "FLOAT"),
        ("a.flac", "PCM_16"),
        ("a.ogg", "VORBIS"),
        ("a.mp3", None),
    ],
)
def test_a_window_is_what_the_whole_file_holds_there(name, subtype, tmp_path):
    write(tmp_path / name, noise(50_000, 2), 44_100, subtype)
    file = open_stem(tmp_path / name)
    whole = file.read(0, file.n_samples)
    assert whole.shape == (file.n_samples, 2) and abs(file.n_samples - 50_000) < 4_500
    for begin, end in ((0, 100), (20_000, 33_333), (file.n_samples - 50, file.n_samples + 50)):
        np.testing.assert_allclose(file.read(begin, end), whole[begin:end], atol=1e-6 if name != "a.mp3" else 0.02)
    np.testing.assert_allclose(file.read(500, 900, mono=True)[:, 0], whole[500:900].mean(axis=1), atol=1e-6)


def test_a_window_of_a_track_in_a_container_is_what_it_holds_there(tmp_path):
    tracks = write_container(tmp_path / "song.stem.mp4")
    for track in (0, 3):
        file = open_stem(tmp_path / "song.stem.mp4", track)
        assert file.sample_rate == 44_100 and abs(file.n_samples - 88_200) < 3_000
        window = file.read(40_000, 60_000)[:, 0]
        lag = np.correlate(window[2_000:6_000], tracks[track][40_000:60_000][: 4_000 + 2_100], "full").argmax()
        spectrum = np.abs(np.fft.rfft(window * np.hanning(20_000)))
        assert abs(spectrum.argmax() * 44_100 / 20_000 - 200 * (track + 1)) < 3 and lag
        np.testing.assert_allclose(file.read(45_000, 50_000), file.read(40_000, 60_000)[5_000:10_000], atol=1e-5)


@pytest.mark.parametrize("rate, wanted", [(44_100, 16_000), (16_000, 44_100), (48_000, 44_100)])
def test_a_resampled_window_has_no_seam_at_its_borders(rate, wanted, tmp_path):
    song = noise(3 * rate)
    file = open_stem(write(tmp_path / "a.wav", song, rate, "FLOAT"))
    take = RecordedTake("a", [(file,)], wanted)
    whole = soxr.resample(song, rate, wanted)
    assert abs(take.n_samples - len(whole)) <= 1
    for start, length in ((300, 4_000), (12_345, 5_000), (take.n_samples - 2_300, 2_000)):
        window = take.stems(start, length)[0, 0]
        np.testing.assert_allclose(window, whole[start : start + length], atol=2e-6)  # 94 dB below the noise
    assert not take.stems(-2_000, 1_000).any() and not take.stems(take.n_samples + 1_000, 100).any()


def test_speed_changes_pitch_and_length_together_within_the_narrower_limit(tmp_path):
    time_s = np.arange(4 * 44_100) / 44_100
    file = open_stem(write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1_000 * time_s), 44_100))
    take = RecordedTake("a", [(file,)], 16_000, speed=Fraction(11, 10))
    assert take.n_samples == pytest.approx(4 * 16_000 / 1.1, abs=2)
    spectrum = np.abs(np.fft.rfft(take.stems(20_000, 16_000)[0, 0] * np.hanning(16_000)))
    assert spectrum.argmax() == 1_100
    rng = np.random.default_rng(0)
    speeds = [float(draw_speed(Variation(transpose=1, tempo=0.5), rng)) for _ in range(300)]
    assert 2 ** (-1 / 12) <= min(speeds) < 0.96 and 1.04 < max(speeds) <= 2 ** (1 / 12)
    assert {draw_speed(Variation(transpose=0, tempo=0.5), rng), draw_speed(Variation(transpose=5), rng)} == {1}


def test_several_files_of_an_instrument_are_summed_whatever_their_rates_channels_and_lengths(tmp_path):
    low = 0.2 * np.sin(2 * np.pi * 100 * np.arange(16_000) / 8_000)
    stereo = np.stack([low[:8_000], 0 * low[:8_000]], axis=1)
    files = [write(tmp_path / "1.wav", low, subtype="FLOAT"), write(tmp_path / "2.flac", stereo, subtype="PCM_24")]
    files += [write(tmp_path / "3.wav", soxr.resample(low, 8_000, 16_000), 16_000, "FLOAT")]
    stems = RecordedTake("a", [[open_stem(file) for file in files], ()], 8_000).stems(0, 16_000)[:, 0]
    expected = 2 * low
    expected[:8_000] += low[:8_000] / 2
    np.testing.assert_allclose(stems[0, 200:15_800], expected[200:15_800], atol=1e-3)
    assert not stems[1].any()


# ---- Corpus ---------------------------------------------------------------------------------------------------------
def test_bad_data_is_told_in_one_line_each_and_the_rest_is_used(tmp_path, caplog):
    good = write_song(tmp_path / "good", seed=1)
    write_song(tmp_path / "short", seed=2)
    write(tmp_path / "short" / "bass.wav", noise(RATE, seed=5), 4_000)
    write_song(tmp_path / "silent", seed=3)
    write(tmp_path / "silent" / "bass.wav", np.zeros(4 * RATE))
    stems = write_song(tmp_path / "mixed", seed=4)
    write(tmp_path / "mixed" / "mixture.wav", 0.5 * sum(stems.values()))
    write_song(tmp_path / "nan", seed=5)
    write(tmp_path / "nan" / "bass.wav", np.where(np.arange(4 * RATE) == 9, np.nan, good["bass"]), subtype="FLOAT")
    write_song(tmp_path / "empty", seed=6)
    (tmp_path / "empty" / "bass.wav").write_bytes(b"")
    slakh(tmp_path / "slakh")
    (tmp_path / "slakh" / "train" / "Track00001" / "stems" / "S01.wav").unlink()
    corpus = RecordedCorpus([str(tmp_path)], BAND)
    used = {os.path.basename(song.name) for songs in corpus.splits.values() for song in songs}
    assert used == {"good", "short", "silent", "mixed"}
    for line in (
        "short: its stems have rates of 4000, 8000 Hz",
        "short: its stems have lengths of 2.0 to 4.0 s",
        "silent/bass.wav: is silent",
        "mixed/mixture.wav: is not the sum of the stems: the difference is 0.0 dB",
        "nan/bass.wav: holds samples that are not finite numbers",
        "empty/bass.wav: an empty file",
        "stems/S01.wav is missing, though metadata.yaml names it",
    ):
        assert sum(line in record.message for record in caplog.records) == 1, line
    assert "good" not in " ".join(record.message for record in caplog.records if record.levelname == "WARNING")


def test_a_folder_without_usable_songs_is_refused_with_a_count_for_each_reason(tmp_path):
    for name in ("a", "b"):
        write_song(tmp_path / name, seed=ord(name), names=("harp", "bagpipe"))
    write_song(tmp_path / "c")
    (tmp_path / "c" / "bass.wav").write_text("no sound")
    with pytest.raises(
        InputError,
        match="none of 3 songs can be trained on; 2 without a stem for any of drums, bass; 1 with a file that",
    ):
        RecordedCorpus([str(tmp_path)], BAND)


def test_a_second_start_reads_no_sound(tmp_path):
    write_song(tmp_path / "song")
    before = RecordedCorpus([str(tmp_path)], BAND).splits
    path = tmp_path / "song" / "bass.wav"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert RecordedCorpus([str(tmp_path)], BAND).splits == before


def music(seed, seconds=14.0, rate=44_100):
    """Chords of random notes: something with a tune, that a fingerprint can hold on to."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(2 * rate) / rate
    song = np.zeros(round((seconds + 2) * rate), np.float32)
    for start_s in np.arange(0, seconds, 0.25):
        for pitch in rng.integers(45, 90, 3):
            start = round(start_s * rate)
            song[start : start + 2 * rate] += (
                0.1 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time_s) * np.exp(-4 * time_s)
            ).astype(np.float32)
    return song


def test_another_master_of_a_song_counts_as_the_song_and_never_lands_in_another_split(tmp_path):
    for seed in range(4):
        song = music(seed)
        write(tmp_path / "a" / f"song {seed}" / "drums.wav", song, 44_100)
        if seed < 2:  # limited, cut at the beginning, at another rate, in a lossy format
            master = soxr.resample(np.tanh(song)[2_205:], 44_100, 48_000)
            write(tmp_path / "b" / "test" / f"x{seed}" / "drums.ogg", 0.7 * master, 48_000, "VORBIS")
    corpus = RecordedCorpus([str(tmp_path / "a"), str(tmp_path / "b")], BAND)
    names = {
        split: sorted(os.path.relpath(song.name, tmp_path) for song in songs) for split, songs in corpus.splits.items()
    }
    assert sum(map(len, names.values())) == 4
    assert {"b/test/x0", "b/test/x1"} <= set(names["test"])  # held out, so that training does not hear them


def test_the_folders_of_a_data_set_decide_its_splits_and_chance_those_it_has_no_folder_for(tmp_path):
    for split, n in (("train", 30), ("test", 2)):
        for i in range(n):
            write_song(tmp_path / split / f"{i}", seed=100 * n + i, seconds=0.7)
    splits = RecordedCorpus([str(tmp_path)], BAND).splits
    names = {split: [os.path.relpath(song.name, tmp_path) for song in songs] for split, songs in splits.items()}
    assert sorted(names["test"]) == ["test/0", "test/1"]
    assert names["validation"] and all(name.startswith("train/") for name in names["validation"] + names["train"])


def test_a_stem_called_other_is_left_out_where_it_may_hold_an_instrument_that_has_no_stem(tmp_path, caplog):
    write_song(tmp_path / "unknown", seed=1, names=("drums", "other"))
    write_song(tmp_path / "known", seed=2, names=("drums", "other"))
    write(tmp_path / "known" / "bass.wav", np.zeros(4 * RATE))
    corpus = RecordedCorpus([str(tmp_path)], BAND, other=True)
    files = {os.path.basename(song.name): song.stems for songs in corpus.splits.values() for song in songs}
    assert corpus.names == ("drums", "bass", OTHER)
    assert [len(some) for some in files["unknown"]] == [1, 0, 0]
    assert [len(some) for some in files["known"]] == [1, 0, 1]
    assert sum("no stem for bass" in record.message for record in caplog.records) == 1


# ---- Mixing with MIDI and solo recordings ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Four songs of drums, bass and other, one of them for tests; solo recordings of bass; noises."""
    folder = tmp_path_factory.mktemp("library")
    for i in range(3):
        write_song(folder / "songs" / "train" / f"{i}", seed=10 + i, names=("drums", "bass", "flute"))
    write_song(folder / "songs" / "test" / "9", seed=19, names=("drums", "bass", "flute"))
    for i in range(4):
        write(folder / "solo" / f"take{i}.wav", noise(2_000, seed=50 + i, level=0.03))
    write(folder / "noise" / "street.wav", noise(9 * RATE, seed=60))
    return folder


@pytest.fixture
def recorded_config(config, library):
    """The smallest Config that trains on recordings alone."""
    return change(config, stems_dir=(f"{library}/songs",), soundfonts=())


VARIATIONS = {
    "none": {"vary_gain_db": 0.0, "vary_transpose": 0, "vary_tempo": 0.0},
    "speed": {"vary_transpose": 5, "vary_tempo": 0.3},
    "gain": {"vary_gain_db": 10.0},
    "effects": {f"vary_{field.name}": 0.9 for field in dataclasses.fields(EffectChances)},
}
SOURCES = {
    "recordings": {},
    "both": {"midi_share": 0.5, "soundfonts": (SOUNDFONT,)},
    "solo": {"remix": 1.0, "other": True},
}


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_mixture_is_the_sum_of_the_stems_for_every_source_and_variation(
    source, variation, recorded_config, library
):
    known = {name: value for name, value in VARIATIONS[variation].items() if hasattr(recorded_config, name)}
    config = change(recorded_config, **SOURCES[source], **known)
    if source == "solo":
        config = change(config, solo_dir=(f"bass:{library}/solo", f"other:{library}/noise"))
    chunker = make_chunker(config, "train")
    visits = [chunker.visit(i) for i in range(4)]
    for visit in visits:
        np.testing.assert_allclose(visit.mixture[..., 0], visit.stems.sum(axis=2), atol=2e-6)
        assert visit.stems.shape[1:] == (chunker.time_samples, len(config.stem_names))
    assert sum(len(visit.mixture) for visit in visits) > 20
    again = pickle.loads(pickle.dumps(chunker)).visit(2)
    np.testing.assert_array_equal(again.stems, visits[2].stems)  # as it is in a process that renders


def test_midi_share_says_how_often_midi_is_visited(recorded_config):
    source = open_source(change(recorded_config, midi_share=0.3, soundfonts=(SOUNDFONT,)))
    rng = np.random.default_rng(0)
    played = [source.draw("train", rng).name.startswith("composed") for _ in range(200)]
    assert 0.2 < np.mean(played) < 0.4
    assert source.load("test", 0).name.endswith("/9")  # recordings come first
    assert source.load("test", 1).name.startswith("composed")


def test_solo_recordings_replace_stems_of_their_instrument_at_its_level_in_remixed_visits(recorded_config, library):
    corpus = RecordedCorpus(recorded_config.stems_dir, BAND)
    recorded = RecordedStems(corpus, RATE)
    solos = {"bass": open_solos(f"{library}/solo"), OTHER: open_solos(f"{library}/noise")}
    counts = collections.Counter()
    for index in range(60):
        source = MixedStems(("drums", "bass", OTHER), [recorded], (1.0,), solos, 0.5, Variation())
        take = source.draw("train", np.random.default_rng(index))
        stems = take.stems(0, 2 * RATE)[:, 0]
        (song,) = [song for song in corpus.splits["train"] if song.name == take.name]
        own = RecordedTake(song.name, song.stems, RATE).stems(0, 2 * RATE)[:, 0]
        np.testing.assert_array_equal(stems[0], own[0])
        if not np.array_equal(stems[1], own[1]):
            counts["bass"] += 1
            assert np.sqrt(np.mean(stems[1] ** 2)) == pytest.approx(0.1, rel=0.2)
            assert np.abs(np.corrcoef(stems[1], own[1])[0, 1]) < 0.1
        counts[OTHER] += stems[2].any()
    assert 5 < counts["bass"] < 25 and 5 < counts[OTHER] < 25  # a half of the half that is remixed


def test_a_voice_is_an_instrument_where_there_are_recordings(config, tmp_path):
    write_song(tmp_path / "song", names=("drums", "lead vocals"))
    given = {"stems_dir": (str(tmp_path),), "instruments": ("drums", "vocals"), "targets": ()}
    chunker = make_chunker(change(config, **given), "train")
    assert chunker.visit(0).stems.any(axis=(0, 1)).all()
    both = make_chunker(change(config, **given, midi_share=1.0), "train")  # MIDI plays drums, and nobody sings
    assert both.visit(0).stems.any(axis=(0, 1)).tolist() == [True, False]
    with pytest.raises(InputError, match="unknown instrument 'vocals'"):
        make_chunker(change(config, instruments=("drums", "vocals"), targets=()), "train")


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"solo_dir": ("harp:a",), "remix": 0.5}, "--solo_dir: 'harp' is not among the instruments"),
        ({"solo_dir": ("a/b",), "remix": 0.5}, "--solo_dir=a/b: write INSTRUMENT:FOLDER"),
        ({"solo_dir": ("drums:a",)}, "--solo_dir: remixing puts solo recordings into mixtures; set e.g. --remix=0.5"),
        ({"stem_aliases": ("harp:x",)}, "--stem_names: 'harp' is not among"),
        ({"midi_share": 0.5}, "--midi_share=0.5: needs --stems_dir"),
        ({"midi_share": 0.0, "midi_dir": "x", "stems_dir": ("y",)}, "--midi_share=0 leaves it unused"),
        ({"consistent": True, "solo_dir": ("other:x",), "remix": 0.5}, "do not make up the mixture; add --other"),
    ],
)
def test_flags_of_recordings_that_contradict_others_are_refused(flags, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Config(**flags)


# ---- Training and scoring -------------------------------------------------------------------------------------------
def test_a_run_on_recordings_is_scored_on_those_it_has_not_heard(recorded_config, library, tmp_path, caplog):
    config = change(recorded_config, steps=2, validate_every=2)
    assert training.train(config, tmp_path / "run").step == 2
    (held_out,) = scored_songs.list_held_out(config, "", (), 20, 1.0)
    one = held_out.load()
    assert held_out.name.endswith("test/9") and set(one.references) == {"drums", "bass"}
    np.testing.assert_allclose(one.mixture, one.references["drums"] + one.references["bass"], atol=1e-6)
    caplog.set_level("INFO", logger="absl")
    logging.get_absl_logger().addHandler(caplog.handler)
    try:
        listed = scored_songs.list_recorded(config, f"{library}/songs", 20, 1.0)
    finally:
        logging.get_absl_logger().removeHandler(caplog.handler)
    assert [song.name for song in listed] == ["test/9"]
    assert "4 songs, of which 3 were used in training and are left out" in caplog.text


def test_a_song_that_is_deleted_while_training_is_told_once_and_training_goes_on(recorded_config, tmp_path, caplog):
    for i in range(2):
        write_song(tmp_path / "songs" / f"{i}", seed=70 + i)
    from data_gen.workers import Workers

    config = change(recorded_config, stems_dir=(str(tmp_path / "songs"),))
    with Workers(make_chunker(config, "train"), 0) as workers:
        next(workers)
        (tmp_path / "songs" / "0" / "bass.wav").unlink()
        names = {os.path.basename(next(workers).song) for _ in range(12)}
    assert names == {"1"}
    assert sum("0/bass.wav: no such file" in record.message for record in caplog.records) == 1


def test_the_command_trains_on_recordings_without_fluidsynth_and_paths_are_kept_absolute(library, tmp_path):
    flags = "--instruments=drums,bass --stem_names=drums:pots+pans --sample_rate=8000 --stacks=1 --blocks=2 --filters=4"
    flags += " --head_filters=4 --pool_chunks=10 --batch_size=2 --workers=0 --steps=1 --validate_every=0 --remix=0.5"
    flags += f" --stems_dir={os.path.relpath(library)}/songs --solo_dir=bass:{os.path.relpath(library)}/solo"
    status, output, errors = run("train.py", *flags.split(), f"--run_dir={tmp_path}/run", **hide_fluidsynth(tmp_path))
    assert status == 0 and "step 1" in output, errors
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["stems_dir"] == [f"{library}/songs"] and kept["solo_dir"] == [f"bass:{library}/solo"]


def test_chunks_of_a_short_recording_are_filled_up_with_silence(tmp_path):
    write_song(tmp_path / "song", seconds=0.05)
    source = RecordedStems(RecordedCorpus([str(tmp_path)], BAND), RATE)
    visit = Chunker(source, "train", source.names, chunk_samples=1_600).visit(0)
    assert visit.mixture.shape == (1, 1_600, 1) and not visit.mixture[0, 500:].any()
