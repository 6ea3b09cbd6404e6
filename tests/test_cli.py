"""The commands as a person meets them: in processes of their own."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SOUNDFONT
from helpers import hide_fluidsynth, run

from sourcesep import metrics
from sourcesep.evaluate import songs
from sourcesep.run_dir import PRETRAINED, PRETRAINED_BLIND, RunDir

SMALL = [
    "--instruments=drums,bass",
    f"--soundfonts={SOUNDFONT}",
    "--sample_rate=8000",
    "--stacks=1",
    "--blocks=3",
    "--filters=8",
    "--head_filters=8",
    "--pool_chunks=30",
    "--batch_size=4",
    "--workers=0",
    "--validate_every=0",
    "--steps=2",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "small"
    status, output, errors = run("train.py", f"--run_dir={run_dir}", *SMALL)
    assert status == 0, errors
    assert "step 2: loss" in output
    assert f"separate.py --run_dir={run_dir}" in output
    return run_dir


def test_separate_writes_the_stems_of_a_sound_file(trained, tmp_path):
    soundfile.write(tmp_path / "song.flac", 0.1 * np.random.default_rng(0).standard_normal((5_000, 2)), 22_050)
    status, output, errors = run(
        "separate.py", f"--run_dir={trained}", f"--output_dir={tmp_path}/out", tmp_path / "song.flac"
    )
    assert status == 0, errors
    assert f"{tmp_path}/out/song: drums.wav, bass.wav" in output
    assert soundfile.info(tmp_path / "out" / "song" / "bass.wav").frames == 5_000


TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}


@pytest.mark.parametrize("terminal", ["C", "utf-8"])
def test_names_that_a_terminal_cannot_show_stop_nothing(terminal, trained, tmp_path):
    (tmp_path / "in").mkdir()
    samples = 0.1 * np.random.default_rng(0).standard_normal(8_000)
    for name in (b"good.wav", b"caf\xe9.wav", "a \u00e9 \u6b4c.wav".encode()):
        soundfile.write(os.fsencode(tmp_path) + b"/in/" + name, samples, 8_000)
    (tmp_path / "in" / "bad \u00e9.wav").write_text("hello")
    status, output, errors = run(
        "separate.py", f"--run_dir={trained}", f"--output_dir={tmp_path}/out", tmp_path / "in", **TERMINALS[terminal]
    )
    assert status == 1 and "1 of 4 could not be separated" in errors and "Traceback" not in errors
    assert len(os.listdir(tmp_path / "out")) == 3
    assert output.count("drums.wav, bass.wav") == 3


@pytest.mark.parametrize("terminal", ["ascii"])
def test_evaluate_prints_its_table_on_any_terminal_and_takes_names_that_are_not_text(terminal, trained, tmp_path):
    song = os.fsencode(tmp_path) + b"/stems/caf\xe9"
    os.makedirs(song)
    rng = np.random.default_rng(0)
    for stem in (b"drums", b"bass"):
        soundfile.write(song + b"/" + stem + b".wav", 0.1 * rng.standard_normal(16_000), 8_000)
    os.symlink(".", tmp_path / "stems" / "loop")
    status, output, errors = run(
        *("evaluate.py", f"--run_dir={trained}", f"--stems_dir={tmp_path}/stems", f"--output_dir={tmp_path}/out"),
        **TERMINALS[terminal],
    )
    assert status == 0, errors
    assert (tmp_path / "out" / "index.html").exists()
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())["pieces"]) == 1


def test_a_run_remembers_its_folders_wherever_it_is_used_from(tmp_path):
    from data_helpers import song_bytes

    (tmp_path / "home" / "midi").mkdir(parents=True)
    (tmp_path / "home" / "midi" / "a.mid").write_bytes(song_bytes([36, 38, 40] * 30, programs=(33, 0)))
    flags = [flag for flag in SMALL if "instruments" not in flag]
    flags += ["--instruments=bass,piano", "--midi_dir=~/midi", "--run_dir=~/run"]
    status, _, errors = run("train.py", *flags, HOME=str(tmp_path / "home"))
    assert status == 0, errors
    config = json.loads((tmp_path / "home" / "run" / "config.json").read_text())
    assert config["midi_dir"] == f"{tmp_path}/home/midi"


def test_separate_takes_folders_past_a_bad_file_in_two_processes_and_writes_what_the_flags_ask_for(trained, tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal((30_000, 2))
    (tmp_path / "in" / "album").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a.wav", noise, 44_100)
    soundfile.write(tmp_path / "in" / "album" / "b.ogg", noise, 22_050)
    (tmp_path / "in" / "liar.wav").write_text("hello")
    status, output, errors = run(
        "separate.py",
        f"--run_dir={trained}",
        f"--output_dir={tmp_path}/out",
        "--stems=bass",
        "--residual",
        "--minus=drums",
        "--format=flac",
        "--subtype=int24",
        "--filename={stem}/{track}.{ext}",
        "--window_s=0.3",
        "--batch_windows=4",
        "--jobs=2",
        tmp_path / "in",
    )
    assert status == 1
    assert f"{tmp_path}/out: bass/a.flac, minus_drums/a.flac, residual/a.flac" in output
    (line,) = [line for line in errors.splitlines() if line.startswith("separate.py")]
    assert "in/liar.wav: not a sound file" in line
    assert "1 of 3 could not be separated." in errors
    assert "Traceback" not in errors
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    stems = ("bass", "minus_drums", "residual")
    assert written == sorted(f"{stem}/{track}.flac" for stem in stems for track in ("a", "album/b"))
    info = soundfile.info(tmp_path / "out" / "bass" / "a.flac")
    assert (info.subtype, info.samplerate, info.frames) == ("PCM_24", 44_100, 30_000)


def test_an_interrupt_stops_separation_and_leaves_only_what_is_complete(trained, tmp_path):
    soundfile.write(tmp_path / "song.wav", 0.1 * np.random.default_rng(0).standard_normal(8_000 * 300), 8_000)
    flags = [f"--run_dir={trained}", f"--output_dir={tmp_path}/out", "--window_s=0.02", tmp_path / "song.wav"]
    command = [sys.executable, str(ROOT / "separate.py"), *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").rglob(".*.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what is named above is complete" in errors and "Traceback" not in errors
    assert not list((tmp_path / "out" / "song").iterdir())


def test_separate_without_a_file_scores_a_song_that_training_has_not_used(trained, tmp_path):
    status, output, errors = run("separate.py", f"--run_dir={trained}", f"--output_dir={tmp_path}")
    assert status == 0, errors
    assert "SDR in dB" in output and "drums" in output
    (folder,) = tmp_path.iterdir()
    mixture, _ = soundfile.read(folder / "mixture.wav", dtype="float32")
    references = [
        soundfile.read(folder / "reference" / f"{name}.wav", dtype="float32")[0] for name in ("drums", "bass")
    ]
    np.testing.assert_allclose(sum(references), mixture, atol=1e-6)
    assert np.abs(mixture).max() > 0.05


def test_separate_without_a_run_uses_the_model_in_the_package(tmp_path):
    # A piece and a SoundFont that it has not heard, at another rate and in stereo; on a machine without FluidSynth.
    config = dataclasses.replace(RunDir(PRETRAINED).config(), sample_rate=48_000)
    (lazy,) = songs.list_held_out(config, "", (SOUNDFONT,), 1, 10.0)
    song = lazy.load()
    soundfile.write(tmp_path / "song.wav", song.mixture, 48_000)
    hidden = hide_fluidsynth(tmp_path)
    status, _, errors = run("separate.py", f"--output_dir={tmp_path}", tmp_path / "song.wav", **hidden)
    assert status == 0, errors
    for name in config.stem_names:
        estimate, _ = soundfile.read(tmp_path / "song" / f"{name}.wav", dtype="float32")
        assert estimate.shape == (480_000, 2)
        if name in ("drums", "bass"):  # how well it does with the others hangs on the piece
            # Any share of the mixture improves the SDR of a soft instrument, and none the SI-SDR.
            score = metrics.score_stem(song.references[name], estimate, song.mixture, 48_000)
            assert score["si_sdr_improvement_db"] > 5.0, name


def test_separate_blind_uses_the_model_that_finds_out_what_plays(tmp_path):
    config = RunDir(PRETRAINED_BLIND).config()
    *_, lazy = songs.list_held_out(config, "", (SOUNDFONT,), 4, 10.0)  # its bass is loud enough to be found
    song = lazy.load()
    some = ("drums", "bass")
    soundfile.write(tmp_path / "song.wav", sum(song.references[name] for name in some), config.sample_rate)
    status, output, errors = run("separate.py", "--blind", f"--output_dir={tmp_path}", tmp_path / "song.wav")
    assert status == 0, errors
    found = {path.stem for path in (tmp_path / "song").iterdir()}
    assert found >= set(some) and len(found) <= 4, found
    status, _, errors = run("separate.py", "--blind", "--tflite=model.tflite", tmp_path / "song.wav")
    assert status == 1 and "--blind names a model in the package" in errors


def test_separate_plays_a_midi_file(trained, tmp_path, real_midi):
    song = real_midi / "simutrans" / "01-Simutrans-Main-Theme.mid"
    status, output, errors = run("separate.py", f"--run_dir={trained}", f"--output_dir={tmp_path}", song)
    assert status == 0, errors
    assert "SDR in dB" in output
    assert abs(soundfile.info(tmp_path / song.stem / "mixture.wav").duration - 154.5) < 0.5


def test_export_writes_a_savedmodel_and_a_tflite_file_that_separate_takes(trained, tmp_path):
    status, output, errors = run(
        "export.py",
        f"--run_dir={trained}",
        f"--output_dir={tmp_path}/exported",
        "--formats=saved_model,tflite",
        "--tflite_types=dynamic",
        "--tflite_window_s=0.2",
    )
    assert status == 0, errors
    assert f"{tmp_path}/exported/small/1: SavedModel, within" in output
    assert f"{tmp_path}/exported/small-dynamic.tflite: within" in output
    assert "dB of SDR" in output
    asset = json.loads((tmp_path / "exported/small/1/assets/sourcesep.json").read_text())
    assert asset["instruments"] == ["drums", "bass"]

    soundfile.write(tmp_path / "song.wav", 0.1 * np.random.default_rng(0).standard_normal((5_000, 2)), 22_050)
    lite = tmp_path / "exported" / "small-dynamic.tflite"
    status, output, errors = run(
        "separate.py", f"--tflite={lite}", f"--output_dir={tmp_path}/out", tmp_path / "song.wav"
    )
    assert status == 0, errors
    assert soundfile.info(tmp_path / "out" / "song" / "bass.wav").frames == 5_000


def test_a_run_trains_on_a_folder_of_real_midi(tmp_path, real_midi):
    flags = [flag for flag in SMALL if "workers" not in flag]
    status, output, errors = run(
        "train.py", f"--run_dir={tmp_path}/run", *flags, f"--midi_dir={real_midi}", "--workers=2"
    )
    assert status == 0, errors
    assert "step 2: loss" in output
    assert "200 MIDI files" in errors


def no_piece(trained, tmp_path):
    import mido

    song = mido.MidiFile()
    song.add_track().append(mido.Message("note_on", note=60, velocity=60))
    (tmp_path / "midi").mkdir()
    song.save(tmp_path / "midi" / "piano.mid")
    return ["train.py", *SMALL, f"--midi_dir={tmp_path}/midi", "--instruments=drums,piano"]


def empty_folder(trained, tmp_path):
    (tmp_path / "midi").mkdir()
    return ["train.py", *SMALL, f"--midi_dir={tmp_path}/midi"]


def damaged_soundfont(trained, tmp_path):
    (tmp_path / "bad.sf2").write_bytes(pathlib.Path(SOUNDFONT).read_bytes()[:10_000])
    return ["train.py", *SMALL, f"--soundfonts={tmp_path}/bad.sf2"]


def text_for_sound(trained, tmp_path):
    (tmp_path / "song.wav").write_text("hello")
    return ["separate.py", f"--run_dir={trained}", tmp_path / "song.wav"]


def text_for_tflite(_, tmp_path):
    (tmp_path / "song.tflite").write_text("hello")
    return ["separate.py", f"--tflite={tmp_path}/song.tflite", "song.wav"]


def without_weights(trained, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return ["separate.py", f"--run_dir={tmp_path}", "song.wav"]


def of_another_version(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "heads": 8, "attention": "full"}))
    return ["separate.py", f"--run_dir={tmp_path}/copy", "song.wav"]


def damaged_config(trained, tmp_path):
    (tmp_path / "config.json").write_text('["not", "a", "run"]')
    return ["separate.py", f"--run_dir={tmp_path}", "song.wav"]


def separate(tmp_path, *flags):
    """A good recording and these flags."""
    soundfile.write(tmp_path / "song.wav", np.zeros(100), 8_000)
    return ["separate.py", *flags, tmp_path / "song.wav"]


def on_good(*flags):
    return lambda trained, tmp_path: separate(tmp_path, f"--run_dir={trained}", *flags)


def into_a_file(trained, tmp_path):
    (tmp_path / "file").write_text("x")
    return separate(tmp_path, f"--run_dir={trained}", f"--output_dir={tmp_path}/file/out")


def folder_without_sound(trained, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "song.txt").write_text("la la la")
    return ["separate.py", f"--run_dir={trained}", tmp_path / "texts"]


def same_names(trained, tmp_path):
    soundfile.write(tmp_path / "song.flac", np.zeros(100), 8_000)
    return [*separate(tmp_path, f"--run_dir={trained}"), tmp_path / "song.flac"]


BAD = {
    "unknown instrument": (lambda *_: ["train.py", *SMALL, "--instruments=drums,harp"], "for drums, bass, piano"),
    "unknown model": (lambda *_: ["train.py", *SMALL, "--model=resnet"], "known are wavenet"),
    "unknown loss": (lambda *_: ["train.py", *SMALL, "--loss=huber"], "known are mae, mse"),
    "short chunk": (lambda *_: ["train.py", *SMALL, "--loss=mae+spectrogram", "--chunk_ms=50"], "raise --chunk_ms"),
    "no MIDI folder": (lambda *_: ["train.py", *SMALL, "--midi_dir=/nowhere"], "--midi_dir=/nowhere: no such folder"),
    "empty MIDI folder": (empty_folder, "holds no MIDI file"),
    "no piece": (no_piece, "none of 1 readable MIDI files holds all of the instruments (drums in 0, piano in 1)"),
    "no SoundFont": (lambda *_: ["train.py", *SMALL, "--soundfonts=/no.sf2"], "no such SoundFont: /no.sf2"),
    "damaged SoundFont": (damaged_soundfont, "bad.sf2: FluidSynth cannot load"),
    "nothing to split": (lambda *_: ["separate.py"], "name a sound file to split"),
    "no run": (lambda *_: ["separate.py", "--run_dir=/nowhere", "song.wav"], "/nowhere: no run directory"),
    "no weights": (without_weights, "no weights there yet"),
    "no sound file for TFLite": (lambda *_: ["separate.py", "--tflite=x.tflite"], "--tflite splits sound files"),
    "MIDI for TFLite": (lambda *_: ["separate.py", "--tflite=x.tflite", "a.mid"], "--tflite splits sound files"),
    "no TFLite file": (text_for_tflite, "song.tflite: not a TFLite file written by export.py"),
    "nothing to export": (lambda *_: ["export.py", "--run_dir=/nowhere"], "/nowhere: no run directory"),
    "no such file": (lambda trained, _: ["separate.py", f"--run_dir={trained}", "/no.wav"], "/no.wav: no such file"),
    "no sound file": (text_for_sound, "song.wav: not a sound file"),
    "other version": (
        of_another_version,
        "copy/config.json: damaged, or written by another version of sourcesep (it has ",
    ),
    "no config": (damaged_config, "config.json: damaged"),
    "no such stem": (on_good("--stems=drums,piano"), "--stems: the model has no 'piano'; it separates drums, bass"),
    "no such minus": (on_good("--minus=piano"), "--minus: the model has no 'piano'"),
    "no stem in name": (on_good("--filename={track}.{ext}"), "must contain {stem}"),
    "float flac": (on_good("--format=flac", "--subtype=float32"), "--subtype=float32 does not go with --format=flac"),
    "short window": (on_good("--window_s=0.001"), "--window_s) is no longer than the model's receptive field"),
    "output in a file": (into_a_file, "/file is not a folder that can be written in"),
    "output in /proc": (on_good("--output_dir=/proc/sourcesep"), "/proc/sourcesep"),
    "no sound in folder": (folder_without_sound, "texts: holds no sound file"),
    "same names": (same_names, "song.flac would both be written to"),
    "no flag": (lambda *_: ["train.py", *SMALL, "steps=5"], "unexpected argument 'steps=5'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_status_1(case, trained, tmp_path):
    make, expected = BAD[case]
    program, *flags = map(str, make(trained, tmp_path))
    if program != "separate.py" and not any("--run_dir" in flag for flag in flags):
        flags.append(f"--run_dir={tmp_path}/run")
    if program != "train.py" and not any("--output_dir" in flag for flag in flags):
        flags.append(f"--output_dir={tmp_path}/out")
    status, output, errors = run(program, *flags)
    lines = [line for line in errors.splitlines() if line.startswith(program)]
    assert status == 1
    assert len(lines) == 1 and expected in lines[0], errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


def test_a_missing_fluidsynth_library_is_named_with_the_package_to_install(tmp_path):
    status, _, errors = run("train.py", *SMALL, f"--run_dir={tmp_path}/run", **hide_fluidsynth(tmp_path))
    assert status == 1
    assert "libfluidsynth3" in errors
    assert "Traceback" not in errors
