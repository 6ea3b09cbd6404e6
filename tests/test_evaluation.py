import dataclasses
import json
import pathlib
import shutil
import sys
import weakref

import numpy as np
import pytest
import soundfile
import yaml
from conftest import SOUNDFONT
from data_helpers import write_sine_soundfont
from helpers import hide_fluidsynth, make_run, run
from helpers import noise as make_noise

from data_gen import InputError, RenderError
from data_gen.layouts import find_songs
from data_gen.windows import open_stem
from sourcesep import metrics
from sourcesep.evaluate import evaluation, recordings, songs
from sourcesep.evaluate.scores import IDEAL, MIXTURE, MODEL, SHARED, ZEROS, score_by_museval, score_song
from sourcesep.evaluate.songs import LazySong, Song
from sourcesep.evaluate.summary import summarise
from sourcesep.separate.separation import Separator

RATE = 8_000


def noise(seconds=3.0, level=0.1, seed=0, channels=1):
    return make_noise(round(seconds * RATE), channels, level=level, seed=seed)


def song(seed=0, **changes):
    stems = {"drums": noise(seed=2 * seed), "bass": noise(seed=2 * seed + 1)}
    return Song(RATE, sum(stems.values()), stems)._replace(**changes)


def write(path, samples, rate=RATE, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)


def perfect(some, advance):
    advance(1.0)
    return some.references


def needs_museval():
    if not shutil.which("ffmpeg"):
        pytest.skip("museval looks for ffmpeg when it is imported")
    pytest.importorskip("museval")


# ---- Scores ---------------------------------------------------------------------------------------------------------
def test_every_song_gets_the_model_and_the_five_anchors():
    one = song()
    scores = score_song(one, {name: 1.1 * stem for name, stem in one.references.items()})
    drums = scores["instruments"]["drums"]
    assert tuple(drums) == ("model", "mixture", "constant", "mixture / K", "zeros", "ideal ratio mask")
    assert drums[MODEL]["sdr_db"] == pytest.approx(20, abs=0.1)
    assert drums[MIXTURE]["sdr_db"] == pytest.approx(0, abs=0.3) and drums[MIXTURE]["sdr_improvement_db"] == 0
    assert drums[SHARED]["sdr_db"] == pytest.approx(3, abs=0.3)  # half of each of two equally loud stems
    assert drums[ZEROS]["sdr_db"] == pytest.approx(0, abs=1e-3)
    assert drums[IDEAL]["sdr_db"] > drums[SHARED]["sdr_db"] + 1
    assert scores["consistency"]["sum_sdr_db"] == pytest.approx(20, abs=0.1)


def test_the_constant_row_is_the_mixture_at_the_gain_that_suits_the_stem_where_it_plays():
    stems = {"drums": noise(seed=0), "bass": 0.5 * noise(seed=1)}
    stems["bass"][RATE:] = 0  # it plays in the first second
    one = Song(RATE, sum(stems.values()), stems)
    bass = score_song(one, one.references)["instruments"]["bass"]
    constant, every_gain = bass["constant"], np.linspace(0.1, 0.3, 21)
    tried = [score_song(one, {**stems, "bass": g * one.mixture})["instruments"]["bass"][MODEL] for g in every_gain]
    assert constant["sdr_db"] == pytest.approx(max(scores["sdr_db"] for scores in tried), abs=1e-3)
    assert constant["sdr_db"] == pytest.approx(10 * np.log10(1 / 0.8), abs=0.2)  # the gain is 1 / 5
    assert constant["gain_over_constant_db"] == pytest.approx(0, abs=1e-4)
    assert constant["residual_dbfs"] == pytest.approx(metrics.level_dbfs(0.2 * one.mixture[RATE:]), abs=0.5)
    assert bass["zeros"]["gain_over_constant_db"] == pytest.approx(-constant["sdr_db"], abs=1e-3)


def test_the_constant_of_a_stem_that_never_plays_is_silence():
    one = song()
    rests = {**one.references, "piano": np.zeros_like(one.mixture)}
    constant = score_song(one._replace(references=rests), rests)["instruments"]["piano"]["constant"]
    assert constant["residual_dbfs"] == metrics.LOWEST_DBFS and np.isnan(constant["gain_over_constant_db"])


def test_the_sum_of_estimates_is_not_judged_where_the_references_are_not_the_whole_mixture():
    one = song(mixture=song().mixture + noise(seed=9))
    assert np.isnan(score_song(one, one.references)["consistency"]["sum_sdr_db"])


def test_estimates_that_end_early_count_as_silent_there():
    one = song()
    early = {name: stem[: 2 * RATE] for name, stem in one.references.items()}
    scores = score_song(one, early)
    assert scores["consistency"]["extra_samples"] == -RATE
    assert scores["instruments"]["bass"]["model"]["sdr_db"] == pytest.approx(10 * np.log10(3), abs=0.1)


def test_the_summary_counts_only_songs_in_which_the_instrument_plays():
    loaded = [song(seed) for seed in range(3)]
    rests = loaded[2].references["bass"]
    references = {**loaded[2].references, "bass": 0 * rests}
    loaded[2] = loaded[2]._replace(mixture=loaded[2].mixture - rests, references=references)
    pieces = [{"condition": "c", **score_song(one, one.references)} for one in loaded]
    summary = summarise(pieces)["c"]
    assert summary["drums"][MODEL]["sdr_db"]["n"] == 3
    assert summary["bass"][MODEL]["sdr_db"]["n"] == 2
    assert summary["bass"][MODEL]["residual_dbfs"]["n"] == 1
    values = [piece["instruments"]["drums"][MIXTURE]["sdr_db"] for piece in pieces]
    statistics = summary["drums"][MIXTURE]["sdr_db"]
    assert statistics["mean"] == pytest.approx(np.mean(values))
    assert statistics["median"] == pytest.approx(np.median(values))
    assert statistics["mean_low"] <= statistics["mean"] <= statistics["mean_high"]


def test_the_page_says_where_each_instrument_goes(tmp_path):
    def confuse(some, advance):  # a quarter of the bass is taken for drums
        drums, bass = some.references["drums"], some.references["bass"]
        return {"drums": drums + 0.25 * bass, "bass": 0.75 * bass}

    without_bass = song(1)
    without_bass.references["bass"][:] = 0
    many = [LazySong("a", "c", song), LazySong("b", "c", lambda: without_bass)]
    result = evaluation.evaluate(many, tmp_path, "t", confuse)
    gains = result.figures["leakage"]["c"]
    assert gains["bass"] == pytest.approx({"drums": 0.25, "bass": 0.75}, abs=1e-3)  # the song without it does not count
    assert gains["drums"] == pytest.approx({"drums": 1.0, "bass": 0.0}, abs=1e-3)
    page = result.page.read_text()
    assert "where each instrument goes" in page and "25 %" in page and "75 %" in page


def test_a_new_measure_is_one_row_of_the_table_and_appears_everywhere(tmp_path, monkeypatch):
    peak = metrics.Measure("peak", metrics.ACTIVE, "dB", lambda part: 7.77, "new measure")
    monkeypatch.setattr(metrics, "MEASURES", (*metrics.MEASURES, peak))
    result = evaluation.evaluate([LazySong("one", "c", song)], tmp_path, "t", perfect)
    assert result.figures["pieces"][0]["instruments"]["bass"][MODEL]["peak"] == 7.77
    assert result.figures["summary"]["c"]["bass"][MODEL]["peak"]["median"] == 7.77
    assert "measure" in result.table and "7.8" in result.table
    assert "new measure, dB" in result.page.read_text() and "7.8" in result.page.read_text()


def test_bss_eval_agrees_with_sdr_on_noise_that_no_filter_can_take_away():
    needs_museval()
    one = song()
    estimates = {name: stem + noise(level=0.01, seed=9) for name, stem in one.references.items()}
    scores = score_song(one, estimates, with_museval=True)
    assert scores["museval"]["drums"]["sdr_db"] == pytest.approx(
        scores["instruments"]["drums"]["model"]["sdr_db"], abs=0.5
    )
    assert scores["museval"]["drums"]["frames"] == 3


def test_bss_eval_leaves_out_silent_stems_instead_of_failing():
    needs_museval()
    one = song()
    stems = {**one.references, "piano": np.zeros_like(one.mixture)}
    scores = score_by_museval(stems, stems, RATE)
    assert set(scores) == {"drums", "bass"}
    assert score_by_museval({"piano": stems["piano"]}, stems, RATE) == {}


def test_bss_eval_is_summarised_over_songs(tmp_path):
    needs_museval()
    many = [LazySong(str(seed), "c", lambda seed=seed: song(seed)) for seed in range(2)]
    result = evaluation.evaluate(many, tmp_path, "t", perfect, with_museval=True)
    assert result.figures["museval"]["c"]["bass"]["n"] == 2
    assert "c, BSSEval v4" in result.table and "BSSEval v4" in result.page.read_text()


def test_museval_is_named_where_it_is_missing_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "museval", None)
    with pytest.raises(InputError, match=r"pip install '\.\[museval\]'"):
        evaluation.evaluate([LazySong("one", "c", song)], tmp_path / "out", "t", perfect, with_museval=True)
    assert not (tmp_path / "out").exists()


# ---- The loop -------------------------------------------------------------------------------------------------------
def test_songs_are_let_go_before_the_next_is_loaded(tmp_path):
    alive = []

    def load():
        assert not any(reference() is not None for reference in alive)
        one = song()
        alive.append(weakref.ref(one.mixture))
        return one

    many = [LazySong(f"song {index}", "c", load) for index in range(4)]
    result = evaluation.evaluate(many, tmp_path, "t", perfect)
    assert len(result.figures["pieces"]) == len(alive) == 4


def test_a_song_that_cannot_be_loaded_is_left_out_by_name(tmp_path):
    def fails():
        raise RenderError("FluidSynth complained")

    many = [LazySong("bad", "c", fails), LazySong("good", "c", song)]
    many.append(LazySong("silent", "c", lambda: song(mixture=np.zeros_like(song().mixture))))
    result = evaluation.evaluate(many, tmp_path, "t", perfect)
    assert [piece["name"] for piece in result.figures["pieces"]] == ["good"]
    assert [piece["name"] for piece in result.figures["left_out"]] == ["bad", "silent"]
    assert "bad: FluidSynth complained" in result.table
    with pytest.raises(InputError, match="nothing could be scored: FluidSynth complained"):
        evaluation.evaluate(many[:1], tmp_path / "none", "t", perfect)


def test_the_json_holds_every_figure_config_seed_and_packages_and_no_nan(tmp_path, config):
    evaluation.evaluate([LazySong("one", "c", song)], tmp_path, "t", perfect, config)
    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored["config"]["instruments"] == ["drums", "bass"] and stored["seed"] == config.seed
    assert stored["packages"]["numpy"] == np.__version__
    scores = stored["pieces"][0]["instruments"]["drums"]["model"]
    assert list(scores) == [measure.key for measure in metrics.MEASURES]
    assert scores["residual_dbfs"] is None  # the drums never rest
    assert stored["protocol"]["active_dbfs"] == -60


# ---- Recorded stems -------------------------------------------------------------------------------------------------
def musdb(folder):
    stems = {name: noise(seed=seed, channels=2) for seed, name in enumerate(("drums", "bass", "other", "vocals"))}
    for name, samples in {**stems, "mixture": sum(stems.values())}.items():
        write(folder / f"{name}.wav", samples)
    return stems


def slakh(folder):
    stems = {f"S{index:02}": noise(seed=index) for index in range(5)}
    described = [(128, "Drums"), (33, "Bass"), (0, "Piano"), (38, "Bass"), (73, "Pipe")]
    metadata = {
        key: {"program_num": program, "inst_class": label, "is_drum": program == 128, "audio_rendered": key != "S04"}
        for key, (program, label) in zip(stems, described)
    }
    for key in list(stems)[:4]:
        write(folder / "stems" / f"{key}.wav", stems[key])
    write(folder / "mix.wav", sum(stems.values()))
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": metadata, "UUID": "x"}))
    return stems


def test_songs_are_found_at_any_depth_and_a_song_itself_is_one(tmp_path):
    musdb(tmp_path / "test" / "A - B")
    slakh(tmp_path / "Track00001")
    assert [song.name for song in find_songs(tmp_path)] == ["Track00001", "test/A - B"]
    (one,) = find_songs(tmp_path / "Track00001")
    assert one.name == "Track00001" and one.folder == tmp_path / "Track00001"


def test_musdb_stems_belong_to_instruments_by_name_and_the_rest_stays_out_of_the_mixture(tmp_path, config):
    stems = musdb(tmp_path / "song")
    (lazy,) = songs.list_recorded(config, str(tmp_path), 5, 0)
    one = lazy.load()
    np.testing.assert_allclose(one.references["bass"], stems["bass"], atol=1e-6)
    np.testing.assert_allclose(one.mixture, stems["drums"] + stems["bass"], atol=1e-6)
    assert one.mixture.shape[1] == 2
    assert one.notes == ("not in the mixture: other, vocals",)


def test_a_model_with_a_stem_for_the_rest_is_given_all_stems(tmp_path, config):
    stems = musdb(tmp_path / "song")
    instruments, targets = ("drums", "bass", "rest:0-31"), ("drums", "bass")
    config = dataclasses.replace(config, instruments=instruments, targets=targets, other=True)
    one = songs.list_recorded(config, str(tmp_path), 5, 0)[0].load()
    np.testing.assert_allclose(one.mixture, sum(stems.values()), atol=1e-6)
    np.testing.assert_allclose(one.references["other"], stems["other"] + stems["vocals"], atol=1e-6)


def test_an_instrument_that_may_sound_in_an_unnamed_stem_is_not_scored(tmp_path, config):
    musdb(tmp_path / "song")
    instruments, targets = ("drums", "piano", "rest:8-127"), ("drums", "piano")
    config = dataclasses.replace(config, instruments=instruments, targets=targets, other=True)
    one = songs.list_recorded(config, str(tmp_path), 5, 0)[0].load()
    assert set(one.references) == {"drums"}
    assert "not scored" in one.notes[0] and "piano" in one.notes[0]


def test_slakh_stems_belong_to_instruments_by_program(tmp_path, config):
    stems = slakh(tmp_path / "Track00001")
    one = songs.list_recorded(config, str(tmp_path), 5, 0)[0].load()
    np.testing.assert_allclose(one.references["bass"], stems["S01"] + stems["S03"], atol=1e-6)
    np.testing.assert_allclose(one.mixture, stems["S00"] + stems["S01"] + stems["S03"], atol=1e-6)
    assert one.notes == ("not in the mixture: Piano",)


def test_an_instrument_without_a_stem_is_silent(tmp_path, config):
    write(tmp_path / "song" / "Drums_1.wav", noise(seed=1))
    write(tmp_path / "song" / "drums 2.flac", noise(2, seed=2), subtype="PCM_16")
    one = songs.list_recorded(config, str(tmp_path), 5, 0)[0].load()
    assert not one.references["bass"].any()
    expected = noise(seed=1)
    expected[: 2 * RATE] += noise(2, seed=2)  # a shorter stem ends in silence
    np.testing.assert_allclose(one.references["drums"], expected, atol=1e-4)


def test_only_the_middle_is_read(tmp_path, config):
    write(tmp_path / "song" / "drums.wav", np.arange(3 * RATE) / (3 * RATE))
    one = songs.list_recorded(config, str(tmp_path), 5, 1.0)[0].load()
    assert one.mixture[:, 0] == pytest.approx(np.arange(RATE, 2 * RATE) / (3 * RATE), abs=1e-6)


@pytest.mark.parametrize("reader", ["tensorflow-io", "soundfile"])
@pytest.mark.parametrize(
    "name, subtype", [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("flac", "PCM_24")]
)
def test_every_format_is_read_as_soundfile_reads_it(tmp_path, monkeypatch, reader, name, subtype):
    if reader == "soundfile":
        monkeypatch.setattr(recordings, "_import_tfio", lambda: None)
    elif not recordings._import_tfio():
        pytest.skip("the native operations of tensorflow-io do not load here")
    write(tmp_path / f"a.{name}", noise(channels=2), subtype=subtype)
    expected, _ = soundfile.read(tmp_path / f"a.{name}", dtype="float32")
    file = open_stem(tmp_path / f"a.{name}")
    samples = recordings.read_window(file, 1_000, 5_000)
    assert file.sample_rate == RATE and samples.dtype == np.float32
    np.testing.assert_allclose(samples, expected[1_000:5_000], atol=1e-7)


def test_stems_of_several_rates_are_scored_at_the_highest(tmp_path, config):
    time_s = np.arange(3 * 11_025) / 11_025
    write(tmp_path / "song" / "drums.wav", noise())
    write(tmp_path / "song" / "bass.wav", np.sin(2 * np.pi * 100 * time_s), 11_025)
    one = songs.list_recorded(config, str(tmp_path), 5, 1.0)[0].load()
    assert one.sample_rate == 11_025 and one.mixture.shape == (11_025, 1)
    np.testing.assert_allclose(one.references["bass"][:, 0], np.sin(2 * np.pi * 100 * time_s[11_025:22_050]), atol=1e-6)
    np.testing.assert_array_equal(one.mixture, one.references["drums"] + one.references["bass"])


def bad_sound(folder):
    (folder / "song").mkdir()
    (folder / "song" / "drums.wav").write_text("hello")


def bad_number(folder):
    samples = noise()
    samples[5] = np.nan
    write(folder / "song" / "drums.wav", samples)


def bad_metadata(folder):
    slakh(folder / "song")
    (folder / "song" / "metadata.yaml").write_text("stems: [1")


def missing_stem(folder):
    slakh(folder / "song")
    (folder / "song" / "stems" / "S01.wav").unlink()


BAD = {
    "no sound": (bad_sound, "drums.wav: not a sound file"),
    "no number": (bad_number, "not finite"),
    "damaged metadata": (bad_metadata, "metadata.yaml: damaged"),
    "missing stem": (missing_stem, "stems/S01.wav is missing"),
    "other instruments": (lambda folder: write(folder / "song" / "harp.wav", noise()), "none of its stems .harp."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_recording_that_cannot_be_used_is_named(case, tmp_path, config):
    make, message = BAD[case]
    make(tmp_path)
    with pytest.raises(InputError, match=message):
        songs.list_recorded(config, str(tmp_path), 5, 0)[0].load()


def test_a_folder_without_songs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no stems"):
        find_songs(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_songs(tmp_path / "nowhere")


# ---- Finished separations -------------------------------------------------------------------------------------------
def test_a_finished_separation_is_scored_against_its_references(tmp_path):
    one = song()
    for name, stem in one.references.items():
        write(tmp_path / "song" / "reference" / f"{name}.wav", stem)
        write(tmp_path / "song" / f"{name}.wav", np.concatenate([1.1 * stem, stem[:100]]))
    write(tmp_path / "song" / "mixture.wav", one.mixture)
    many = songs.list_finished(str(tmp_path / "song" / "reference"), str(tmp_path / "song"), 5, 0)
    result = evaluation.evaluate(many, tmp_path / "out", "t")
    (piece,) = result.figures["pieces"]
    assert piece["name"] == "song"
    assert piece["instruments"]["bass"]["model"]["sdr_db"] == pytest.approx(20, abs=0.1)
    assert piece["consistency"]["extra_samples"] == 100


def test_finished_songs_are_matched_by_folder_and_an_absent_estimate_is_named(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "clean" / name / "drums.wav", noise())
    write(tmp_path / "out" / "a" / "drums.wav", noise())
    write(tmp_path / "out" / "b" / "bass.wav", noise())
    a, b = songs.list_finished(str(tmp_path / "clean"), str(tmp_path / "out"), 5, 0)
    assert a.load().notes == ("the mixture is the sum of the references",)
    with pytest.raises(InputError, match=r"out/b: holds no estimate for .*clean/b/drums.wav"):
        b.load()


# ---- Rendered pieces ------------------------------------------------------------------------------------------------
def test_held_out_pieces_are_played_through_each_soundfont_and_what_training_heard_of_it_is_said(
    tmp_path, config, caplog
):
    data = pathlib.Path(SOUNDFONT).read_bytes()
    copy, repacked, other = (tmp_path / f"{name}.sf2" for name in ("copy", "repacked", "other"))
    copy.write_bytes(data)
    repacked.write_bytes(data.replace(b"INAM", b"ICMT", 1))  # the same sounds in a file that training did not have
    write_sine_soundfont(other, [(0, 33), (128, 0)])
    many = songs.list_held_out(config, "", (str(copy), str(repacked), str(other)), 2, 2.0)
    assert [lazy.condition for lazy in many] == [
        *["copy.sf2 (heard in training)"] * 2,
        *["repacked.sf2 (shares 100% of its samples with TimGM6mb.sf2, heard in training)"] * 2,
        *["other.sf2 (not heard in training)"] * 2,
    ]
    caplog.clear()
    songs.list_held_out(config, "", (str(repacked),), 2, 2.0)
    assert "comparing" not in caplog.text  # that was done once
    elsewhere = dataclasses.replace(config, soundfonts=("/gone/repacked.sf2",))  # what is not here goes by its name
    conditions = [songs.list_held_out(elsewhere, "", (str(path),), 1, 2.0)[0].condition for path in (repacked, copy)]
    assert conditions == ["repacked.sf2 (heard in training)", "copy.sf2 (not heard in training)"]
    assert [lazy.name for lazy in many[:2]] == [lazy.name for lazy in many[2:4]]
    one = many[0].load()
    assert one.mixture.shape == (2 * RATE, 1) and one.mixture.any()
    np.testing.assert_allclose(sum(one.references.values()), one.mixture, atol=1e-6)


def test_the_stem_other_is_the_sum_of_the_rest(config):
    both = songs.list_held_out(config, "", (), 1, 2.0)[0].load()
    config = dataclasses.replace(config, targets=("drums",), other=True)
    one = songs.list_held_out(config, "", (), 1, 2.0)[0].load()
    assert list(one.references) == ["drums", "other"]
    np.testing.assert_allclose(one.references["other"], both.references["bass"], atol=1e-6)


def test_fewer_pieces_are_the_first_of_more(config):
    few, more = (songs.list_held_out(config, "", (), n, 2.0) for n in (2, 5))
    assert [lazy.name for lazy in more][:2] == [lazy.name for lazy in few]


def test_songs_that_were_used_in_training_are_left_out_of_another_folder(tmp_path, config, real_midi):
    for name in ("own", "copy"):
        (tmp_path / name).mkdir()
        for path in sorted(real_midi.rglob("*.mid"))[:40]:
            shutil.copy(path, tmp_path / name / f"{path.parent.name}-{path.name}")
    config = dataclasses.replace(config, midi_dir=str(tmp_path / "own"), require="any")
    copy = str(tmp_path / "copy")
    own = [lazy.name for lazy in songs.list_held_out(config, "", (), 1_000, 1.0)]
    again = [lazy.name for lazy in songs.list_held_out(config, copy, (), 1_000, 1.0)]
    assert own and again == own  # only the test split of the copy is left
    stranger = dataclasses.replace(config, midi_dir="")
    all_songs = [lazy.name for lazy in songs.list_held_out(stranger, copy, (), 1_000, 1.0)]
    assert all_songs[: len(own)] == own and len(all_songs) > len(own)  # the same songs first


def test_a_soundfont_that_is_missing_is_named_before_anything_is_scored(config):
    with pytest.raises(InputError, match=r"no such SoundFont: /no.sf2"):
        songs.list_held_out(config, "", (SOUNDFONT, "/no.sf2"), 1, 1.0)


# ---- What a blind model finds ---------------------------------------------------------------------------------------
def test_what_a_blind_model_finds_is_compared_with_what_is_there(tmp_path, config):
    def bass_too_often(some, advance):  # and drums never
        return {"drums": 0 * some.mixture, "bass": some.mixture}

    with_both, without_bass = song(), song(1)
    without_bass.references["bass"] *= 0.01  # 40 dB below the mixture
    many = [LazySong("a", "c", lambda: with_both), LazySong("b", "c", lambda: without_bass)]
    blind = dataclasses.replace(config, require="any", blind=True)
    result = evaluation.evaluate(many, tmp_path, "t", bass_too_often, blind)
    assert [piece["present"] for piece in result.figures["pieces"]] == [["drums", "bass"], ["drums"]]
    assert [piece["found"] for piece in result.figures["pieces"]] == [["bass"], ["bass"]]
    found = result.figures["found"]["c"]
    assert found["bass"] == {"n_present": 1, "n_found": 2, "precision": 0.5, "recall": 1.0}
    assert np.isnan(found["drums"].pop("precision"))
    assert found["drums"] == {"n_present": 2, "n_found": 0, "recall": 0.0}
    assert found["all together"] == {"n_present": 3, "n_found": 2, "precision": 0.5, "recall": 1 / 3}
    table, page = result.table, result.page.read_text()
    (line,) = [line.split() for line in table.splitlines() if line.startswith("all together")]
    assert line == ["all", "together", "3", "2", "50", "%", "33", "%"]
    assert "instruments found" in page and "33 %" in page
    seeing = evaluation.evaluate(many, tmp_path, "t", bass_too_often, config)
    assert not seeing.figures["found"] and "instruments found" not in seeing.table + seeing.page.read_text()


# ---- The command ----------------------------------------------------------------------------------------------------
def test_a_conditioned_model_is_given_what_each_song_contains(tmp_path, config):
    run_dir = make_run(dataclasses.replace(config, conditioning="binary"), tmp_path / "run")
    bass = noise()
    one = Song(RATE, bass, {"drums": 0 * bass, "bass": bass})
    found = evaluation.evaluate_run(run_dir.path, [LazySong("song", "here", lambda: one)])
    (piece,) = found.figures["pieces"]
    estimate = Separator.from_run(run_dir.path, present=("bass",)).separate(bass, RATE)["bass"]
    expected = metrics.score_stem(bass, estimate, bass, RATE)["sdr_db"]
    assert piece["instruments"]["bass"]["model"]["sdr_db"] == pytest.approx(expected, abs=1e-3)
    assert piece["instruments"]["drums"]["model"]["residual_dbfs"] == metrics.LOWEST_DBFS


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config):
    return pathlib.Path(make_run(config, tmp_path_factory.mktemp("runs") / "small").path)


def test_the_command_scores_a_run_on_held_out_pieces(trained):
    status, output, errors = run("evaluate.py", f"--run_dir={trained}", "--pieces=2", "--seconds=2")
    assert status == 0, errors
    assert "TimGM6mb.sf2 (heard in training), 2 songs" in output
    for row in ("drums", "bass", "mixture", "constant", "mixture / 2", "zeros", "ideal ratio mask"):
        assert any(line.split("  ")[0] == row or line.startswith(f"  {row} ") for line in output.splitlines()), row
    assert f"{trained}/evaluation/index.html" in output
    assert json.loads((trained / "evaluation" / "metrics.json").read_text())["pieces"][0]["seconds"] == 2.0
    assert "songs [" in errors  # the progress bar


def test_the_command_scores_recorded_stems_without_fluidsynth(trained, tmp_path):
    musdb(tmp_path / "stems" / "song")
    status, output, errors = run(
        "evaluate.py",
        f"--run_dir={trained}",
        f"--stems_dir={tmp_path}/stems",
        f"--output_dir={tmp_path}/out",
        **hide_fluidsynth(tmp_path),
    )
    assert status == 0, errors
    assert "recorded stems, 1 song" in output
    (piece,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["pieces"]
    assert piece["notes"] == ["not in the mixture: other, vocals"] and piece["channels"] == 2
    assert abs(piece["consistency"]["extra_samples"]) == 0


def test_the_command_scores_a_finished_separation_without_a_run_and_without_fluidsynth(tmp_path):
    write(tmp_path / "clean" / "drums.wav", noise())
    write(tmp_path / "out" / "drums.wav", 1.1 * noise())
    status, output, errors = run(
        "evaluate.py", f"--references={tmp_path}/clean", f"--estimates={tmp_path}/out", **hide_fluidsynth(tmp_path)
    )
    assert status == 0, errors
    assert "finished separation, 1 song" in output and "20.0" in output
    assert (tmp_path / "out" / "evaluation" / "index.html").exists()


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--references=a"], "--references and --estimates go together"),
        (["--stems_dir=a", "--midi_dir=b"], "--stems_dir and --midi_dir contradict"),
        (["--references=/nowhere", "--estimates=/nowhere"], "/nowhere: no such folder"),
        (["--run_dir=/nowhere"], "/nowhere: no run directory"),
        (["--run_dir={trained}", "--stems_dir=/nowhere"], "/nowhere: no such folder"),
        (["--run_dir={trained}", "--soundfonts=/no.sf2"], "no such SoundFont: /no.sf2"),
    ],
)
def test_bad_input_gets_one_line_and_status_1(trained, tmp_path, flags, expected):
    status, _, errors = run(
        "evaluate.py", *(flag.format(trained=trained) for flag in flags), f"--output_dir={tmp_path}/out"
    )
    assert status == 1
    lines = [line for line in errors.splitlines() if line.startswith("evaluate.py")]
    assert len(lines) == 1 and expected in lines[0], errors
    assert "Traceback" not in errors and not (tmp_path / "out").exists()
