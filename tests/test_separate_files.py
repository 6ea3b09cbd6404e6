import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from data_helpers import song_bytes
from helpers import noise

from data_gen import InputError, RenderError
from data_gen.synth import Synthesizer
from sourcesep.models import build
from sourcesep.run_dir import RunDir
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import SoundFile
from sourcesep.separate.jobs import separate_tracks
from sourcesep.separate.separate_one import separate_one
from sourcesep.separate.separation import Separator
from sourcesep.separate.stem_writer import Encoding
from sourcesep.separate.tracks import Failure, check_paths, find_tracks

RATE = 8_000


@pytest.fixture
def run_dir(config, tmp_path):
    """A run whose model was not trained."""
    run = RunDir(tmp_path / "run")
    run.create_or_resume(config)
    run.save_weights(build(config))
    return str(run.path)


@pytest.fixture
def separator(run_dir):
    return Separator.from_run(run_dir, window_s=0.05)


def sound(path, samples=None, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(3_000, 2) if samples is None else samples, rate)
    return str(path)


def stored(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def separate_file(separator, path, output_dir, **plan):
    """Separates one sound file; `plan` are fields of the FilePlan."""
    plan = FilePlan(str(output_dir), **plan)
    return separate_one(separator, SoundFile(str(path)), plan, pathlib.Path(path).stem)


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def test_a_file_gives_float_files_of_its_length_rate_and_channels(separator, tmp_path):
    soundfile.write(tmp_path / "song.wav", noise(3_000, 2), 11_025, subtype="PCM_16")
    result = separate_file(separator, tmp_path / "song.wav", tmp_path / "out")
    assert result.files == ("drums.wav", "bass.wav") and result.notes == ()
    for name in result.files:
        info = soundfile.info(result.folder / name)
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (3_000, 11_025, 2, "FLOAT")
    expected = separator.separate(stored(tmp_path / "song.wav"), 11_025)["bass"]
    np.testing.assert_allclose(stored(result.folder / "bass.wav"), expected, atol=1e-6)
    assert files_below(tmp_path / "out") == ["song/bass.wav", "song/drums.wav"]


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("length", [0, 1, 200, 150_000])
def test_all_stems_and_the_residual_add_up_to_the_mixture(separator, rate, length, tmp_path):
    mixture = noise(length, 2)
    path = sound(tmp_path / "song.w64", mixture, rate)
    result = separate_file(separator, path, tmp_path, residual=True, minus=("drums",))
    assert result.files == ("drums.wav", "bass.wav", "minus_drums.wav", "residual.wav")
    drums, bass, minus_drums, residual = (stored(result.folder / name) for name in result.files)
    mixture = stored(path)
    assert len(drums) == length
    np.testing.assert_allclose(drums + bass + residual, mixture, atol=1e-6)
    np.testing.assert_allclose(minus_drums, mixture - drums, atol=1e-6)
    np.testing.assert_allclose(minus_drums, bass + residual, atol=1e-6)


def test_the_residual_holds_what_no_stem_holds_also_of_stems_that_are_not_written(separator, tmp_path):
    path = sound(tmp_path / "song.wav")
    result = separate_file(separator, path, tmp_path, stems=("bass",), residual=True, minus=("bass", "drums"))
    assert result.files == ("bass.wav", "minus_bass_drums.wav", "residual.wav")
    stems = separator.separate(stored(path), RATE)
    np.testing.assert_allclose(stored(result.folder / "bass.wav"), stems["bass"], atol=1e-6)
    expected = stored(path) - stems["bass"] - stems["drums"]
    np.testing.assert_allclose(stored(result.folder / "residual.wav"), expected, atol=1e-6)
    np.testing.assert_allclose(stored(result.folder / "minus_bass_drums.wav"), expected, atol=1e-6)


def test_one_gain_for_all_files_of_a_recording_is_reported(separator, tmp_path):
    mixture = np.full(3_000, 1.6, np.float32)
    soundfile.write(tmp_path / "song.wav", mixture, RATE, subtype="FLOAT")
    encoding = Encoding("flac", "int24")
    result = separate_file(separator, tmp_path / "song.wav", tmp_path, residual=True, encoding=encoding)
    (note,) = result.notes
    total = sum(stored(result.folder / name) for name in result.files)
    gain = 10 ** (-float(note.split(" dB")[0].split()[-1]) / 20)
    assert gain < 1
    np.testing.assert_allclose(total[:, 0], gain * mixture, rtol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 192_000])
@pytest.mark.parametrize("n_channels", [1, 6])
@pytest.mark.parametrize("subtype", ["PCM_U8", "DOUBLE"])
def test_odd_rates_channels_and_sample_types_give_right_stems(separator, rate, n_channels, subtype, tmp_path):
    soundfile.write(tmp_path / "song.wav", noise(10_000, n_channels), rate, subtype=subtype)
    result = separate_file(separator, tmp_path / "song.wav", tmp_path)
    mixture, bass = stored(tmp_path / "song.wav"), stored(result.folder / "bass.wav")
    assert bass.shape == mixture.shape and bass.any()
    last = separator.separate(mixture[:, -1], rate)["bass"]
    np.testing.assert_allclose(bass[:, -1], last, atol=1e-6)


@pytest.mark.parametrize("mixture", [np.zeros((5_000, 2)), np.sign(noise(5_000, 2))], ids=["silent", "clipped"])
def test_silent_and_clipped_recordings_are_separated(separator, mixture, tmp_path):
    path = sound(tmp_path / "song.wav", mixture)
    result = separate_file(separator, path, tmp_path)
    stems = [stored(result.folder / name) for name in result.files]
    assert all(stem.shape == mixture.shape and np.isfinite(stem).all() for stem in stems)
    if not mixture.any():
        assert not np.any(stems)  # this model has no bias


def test_of_a_file_that_is_cut_off_what_is_there_is_separated_and_this_is_reported(separator, tmp_path):
    path = pathlib.Path(sound(tmp_path / "song.wav"))
    whole = stored(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = separate_file(separator, path, tmp_path, residual=True)
    assert "song.wav: its header states 0.38 s, but it holds 0.19 s (it is cut off" in result.notes[0]
    total = sum(stored(result.folder / name) for name in result.files)
    assert 1_450 < len(total) < 1_500
    np.testing.assert_allclose(total, whole[: len(total)], atol=1e-6)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{track}.{ext}", r"must contain \{stem\}"),
        ("{track}/{stme}.{ext}", r"\{stme\} is unknown"),
        ("{track}/{stem!r}.wav", "unknown"),
        ("{track}/{stem.wav", "not a template"),
        ("{}/{stem}.wav", r"\{\} is unknown"),
        ("/etc/{stem}.wav", "relative path"),
        ("../{stem}.wav", "relative path"),
        ("{track}/{stem}/", "relative path"),
        ("", r"must contain \{stem\}"),
    ],
)
def test_a_text_that_is_not_a_template_is_refused(template, message):
    with pytest.raises(InputError, match=f"--filename=.*{message}"):
        FilePlan(filename=template)


@pytest.mark.parametrize("flag", ["stems", "minus"])
def test_an_instrument_that_the_model_does_not_separate_is_refused(flag):
    with pytest.raises(InputError, match=f"--{flag}: the model has no 'piano'; it separates drums, bass"):
        FilePlan(**{flag: ("piano",)}).check(("drums", "bass"))
    with pytest.raises(InputError, match=f"--{flag}: 'bass' is named twice"):
        FilePlan(**{flag: ("bass", "bass")}).check(("drums", "bass"))


def test_the_template_decides_where_files_lie(separator, tmp_path):
    path = sound(tmp_path / "my {song}.v2.wav")
    filename = "all/{stem}/{track}_{stem}.{ext}"
    separate_file(separator, path, tmp_path / "out", stems=("bass",), filename=filename, encoding=Encoding("ogg"))
    assert files_below(tmp_path / "out") == ["all/bass/my {song}.v2_bass.ogg"]


def test_folders_are_searched_recursively_and_lend_their_structure(tmp_path):
    for name in ("a.wav", "album/b.FLAC", "album/cd 2/c.mp3", ".hidden/d.wav", "._a.wav", "out/a/drums.wav"):
        sound(tmp_path / name, noise(100))
    (tmp_path / "notes.txt").write_text("x")
    tracks, failures = find_tracks([str(tmp_path)], str(tmp_path / "out"))
    assert [track.name for track in tracks] == ["a", "album/b", "album/cd 2/c"]
    wav, flac, mp3 = (track.length_s for track in tracks)
    assert wav == flac == 100 / RATE
    assert mp3 == pytest.approx(100 / RATE, abs=0.3)  # an estimate, which includes the padding of the codec
    assert failures == []


def test_linked_folders_are_searched_once_and_loops_end(tmp_path):
    sound(tmp_path / "in" / "a.wav", noise(100))
    sound(tmp_path / "album" / "b.wav", noise(100))
    os.symlink(".", tmp_path / "in" / "loop")
    for name in ("album", "album again"):
        os.symlink(tmp_path / "album", tmp_path / "in" / name)
    tracks, failures = find_tracks([str(tmp_path / "in")], str(tmp_path / "out"))
    assert [track.name for track in tracks] == ["a", "album/b"] and not failures


def test_files_in_a_folder_that_look_like_sound_but_cannot_be_read_are_named(tmp_path):
    sound(tmp_path / "a.wav", noise(100))
    for name in ("b.m4a", "c.wma", "d.mp4", "e.bwf"):
        (tmp_path / name).write_bytes(b"nothing that plays" * 100)
    os.mkfifo(tmp_path / "f.mp3")
    (tmp_path / "g.flac").write_text("<html><body>404</body></html>")
    (tmp_path / "cover.jpg").write_bytes(b"x")
    tracks, failures = find_tracks([str(tmp_path)], str(tmp_path / "out"))
    assert [track.name for track in tracks] == ["a"]
    assert [pathlib.Path(failure.path).name for failure in failures] == [
        *("b.m4a", "c.wma", "d.mp4", "e.bwf", "f.mp3", "g.flac")
    ]
    assert "a pipe or a device" in failures[-2].reason and "a web page" in failures[-1].reason


AWKWARD = [
    *(
        b"...wav",
        b"..wav",
        b"....wav",
        b".. .wav",
        b"caf\xe9.wav",
        b"\xff\xfe.wav",
        b"new\nline.wav",
        b"\x1b[31mred.wav",
    ),
    *(b"x" * 240 + b".wav", "語".encode() * 80 + b".wav", b"{stem}.wav", b"{0}.wav", b"a b%s.wav", b"back\\slash.wav"),
]


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("template", ["{track}/{stem}.{ext}", "{track}_{stem}.{ext}"])
def test_awkward_names_stay_within_the_output_folder(separator, name, template, tmp_path):
    sound(tmp_path / "x.wav")
    (tmp_path / "in").mkdir()
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"in", name))
    os.rename(tmp_path / "x.wav", path)
    (track,), failures = find_tracks([path], str(tmp_path / "out"))
    assert not failures
    for encoding in (Encoding("wav"), Encoding("flac")):
        plan = FilePlan(str(tmp_path / "out"), filename=template, encoding=encoding)
        check_paths([track], plan, separator.stem_names)
        result = separate_one(separator, SoundFile(track.path), plan, track.name)
        for file in result.files:
            written = (result.folder / file).resolve()
            assert written.is_file() and written.is_relative_to(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "run"]


def test_a_name_that_would_be_too_long_is_refused_before_the_work(tmp_path):
    tracks, _ = find_tracks([sound(tmp_path / ("x" * 251 + ".wav"))], str(tmp_path / "out"))
    with pytest.raises(InputError, match="rename the recording, or shorten --filename"):
        check_paths(tracks, FilePlan(str(tmp_path / "out"), filename="{track}_{stem}.{ext}"), ("drums", "bass"))
    check_paths(tracks, FilePlan(str(tmp_path / "out")), ("drums", "bass"))


def test_stems_of_a_recording_of_unknown_length_are_wav_files(separator, tmp_path):
    samples = noise(3_000, 2)
    path = sound(tmp_path / "song.flac", samples)
    data = bytearray(pathlib.Path(path).read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples: unknown, as in a stream
    pathlib.Path(path).write_bytes(data)
    assert SoundFile(path).n_samples is None
    result = separate_file(separator, path, tmp_path / "out")
    assert (result.folder / "bass.wav").read_bytes()[:4] == b"RIFF"
    assert len(stored(result.folder / "bass.wav")) == 3_000
    tracks, _ = find_tracks([path], "out")
    assert tracks[0].length_s == 0


def test_what_is_named_twice_is_taken_once(tmp_path):
    path = sound(tmp_path / "a.wav")
    tracks, failures = find_tracks([path, str(tmp_path), path], str(tmp_path / "out"))
    assert [track.path for track in tracks] == [path] and not failures


def test_folders_without_sound_and_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.wav").write_text("hello")
    inputs = [str(tmp_path / "empty"), str(tmp_path / "text.wav"), "/no.wav", sound(tmp_path / "good.wav")]
    tracks, failures = find_tracks(inputs, str(tmp_path / "out"))
    assert [track.name for track in tracks] == ["good"]
    reasons = [failure.reason for failure in failures]
    assert reasons[0].startswith(f"{tmp_path}/empty: holds no sound file")
    assert "text.wav: not a sound file" in reasons[1]
    assert reasons[2] == "/no.wav: no such file"


def test_recordings_that_would_be_written_to_the_same_path_are_refused_by_name(tmp_path):
    inputs = [sound(tmp_path / "x" / "song.wav"), sound(tmp_path / "y" / "song.flac")]
    tracks, _ = find_tracks(inputs, str(tmp_path))
    with pytest.raises(InputError, match=r"x/song.wav and .*y/song.flac would both be written to .*song/drums.wav"):
        check_paths(tracks, FilePlan(str(tmp_path)), ("drums", "bass"))
    tracks, _ = find_tracks([sound(tmp_path / "a.wav"), sound(tmp_path / "b.wav")], str(tmp_path))
    with pytest.raises(InputError, match=r"a.wav and .*b.wav would both .*put \{track\} into --filename"):
        check_paths(tracks, FilePlan(str(tmp_path), filename="{stem}.{ext}"), ("drums", "bass"))
    check_paths(tracks, FilePlan(str(tmp_path)), ("drums", "bass"))


def test_a_recording_is_never_overwritten_by_its_stems(tmp_path):
    tracks, _ = find_tracks([sound(tmp_path / "song" / "drums.wav")], str(tmp_path))
    with pytest.raises(InputError, match="would replace .*drums.wav"):
        check_paths(tracks, FilePlan(str(tmp_path / "song"), filename="{stem}.{ext}"), ("drums", "bass"))


def test_a_recording_is_never_overwritten_by_the_mixture_that_is_written_for_a_midi_file(tmp_path):
    (tmp_path / "song.mid").write_bytes(song_bytes([60, 62]))
    inputs = [str(tmp_path / "song.mid"), sound(tmp_path / "out" / "song" / "mixture.wav")]
    tracks, _ = find_tracks(inputs, str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="would replace .*mixture.wav"):
        check_paths(tracks, FilePlan(str(tmp_path / "out")), ("drums", "bass"))


@pytest.fixture
def three(tmp_path):
    """Tracks of which the second has a sample that is not a number."""
    samples = noise(3_000)
    samples[2_000] = np.nan
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "b.wav", samples, RATE, subtype="FLOAT")
    for name in ("a.wav", "c.wav"):
        sound(tmp_path / "in" / name)
    return find_tracks([str(tmp_path / "in")], "out")[0]


def test_one_bad_file_does_not_stop_the_rest(run_dir, config, three, tmp_path):
    load = functools.partial(Separator.from_run, run_dir)
    results = list(separate_tracks(three, load, config, FilePlan(str(tmp_path / "out"))))
    (failure,) = [result for result in results if isinstance(result, Failure)]
    assert failure.path == three[1].path
    assert failure.reason.startswith(f"{three[1].path}: holds samples that are not finite")
    assert files_below(tmp_path / "out") == ["a/bass.wav", "a/drums.wav", "c/bass.wav", "c/drums.wav"]
    expected = load().separate(stored(three[2].path), RATE)
    np.testing.assert_allclose(stored(tmp_path / "out" / "c" / "bass.wav"), expected["bass"], atol=1e-6)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_model_that_cannot_be_loaded_is_reported_once(config, three, jobs, tmp_path):
    load = functools.partial(Separator.from_run, "/nowhere")
    with pytest.raises(InputError, match="/nowhere: no run directory"):
        list(separate_tracks(three, load, config, FilePlan(str(tmp_path / "out")), jobs))


def separator_that_kills_its_process(run_dir):
    """A full-scale sample kills it."""
    separator = Separator.from_run(run_dir)
    stream = separator.stream

    def killing(blocks, rate):
        def seen():
            for block in blocks:
                if np.abs(block).max() > 0.9:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield block

        yield from stream(seen(), rate)

    separator.stream = killing
    return separator


def test_of_two_processes_one_that_dies_costs_only_its_file(run_dir, config, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abcde":
        sound(tmp_path / "in" / f"{name}.wav")
    soundfile.write(tmp_path / "in" / "b.wav", np.ones(3_000), RATE, subtype="FLOAT")  # kills
    soundfile.write(tmp_path / "in" / "d.wav", np.full(3_000, np.nan), RATE, subtype="FLOAT")
    tracks, _ = find_tracks([str(tmp_path / "in")], "out")
    load = functools.partial(separator_that_kills_its_process, run_dir)
    seconds: list[float] = []
    plan = FilePlan(str(tmp_path / "out"))
    results = list(separate_tracks(tracks, load, config, plan, jobs=2, report=seconds.append))
    died, damaged = sorted((result for result in results if isinstance(result, Failure)), key=lambda one: one.path)
    assert died.reason.startswith(f"{tmp_path}/in/b.wav: its process died; if memory ran out")
    assert damaged.reason.startswith(f"{tmp_path}/in/d.wav: holds samples that are not finite")
    complete = [path for path in files_below(tmp_path / "out") if not path.endswith(".partial")]
    assert complete == [f"{name}/{stem}.wav" for name in "ace" for stem in ("bass", "drums")]
    expected = Separator.from_run(run_dir).separate(stored(tmp_path / "in" / "c.wav"), RATE)
    np.testing.assert_allclose(stored(tmp_path / "out" / "c" / "bass.wav"), expected["bass"], atol=1e-6)
    assert sum(seconds) == pytest.approx(sum(track.length_s for track in tracks))


SEPARATE = """
import pathlib, re, sys
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import SoundFile
from sourcesep.separate.separate_one import separate_one
from sourcesep.separate.separation import Separator
from sourcesep.separate.stem_writer import Encoding
run_dir, path, output_dir, window_s, format_ = sys.argv[1:]
plan = FilePlan(output_dir, residual=format_ == "flac", encoding=Encoding(format_))
separator = Separator.from_run(run_dir, float(window_s))
separate_one(separator, SoundFile(path), plan, pathlib.Path(path).stem)
# ru_maxrss would count the process that started this one too.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_recording(run_dir, tmp_path):
    peaks_mib = []
    for seconds in (10, 60):
        path = sound(tmp_path / f"{seconds}.wav", np.tile(noise(44_100, 2), (seconds, 1)), 44_100)
        command = [sys.executable, "-c", SEPARATE, run_dir, path, str(tmp_path), "1", "flac"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks_mib.append(float(done.stdout.split()[-1]))
    assert peaks_mib[1] < peaks_mib[0] + 20  # 50 s of the three files, held at once, are 50 MiB as floats
    assert peaks_mib[1] < 1_500


def test_a_kill_leaves_no_half_file_under_the_final_name_and_the_next_run_clears_up(run_dir, tmp_path):
    path = sound(tmp_path / "song.wav", noise(RATE * 60))
    out = tmp_path / "out"
    command = [sys.executable, "-c", SEPARATE, run_dir, path, str(out)]
    process = subprocess.Popen([*command, "0.02", "wav"], cwd=ROOT)  # short windows, to be slow enough
    deadline = time.monotonic() + 60
    while not any(partial.stat().st_size > 100_000 for partial in out.rglob(".*.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    left = files_below(out)
    assert len(left) == 2 and all(name.startswith("song/.") and name.endswith(".partial") for name in left)
    subprocess.run([*command, "3", "wav"], cwd=ROOT, check=True)
    assert files_below(out) == ["song/bass.wav", "song/drums.wav"]
    assert soundfile.info(out / "song" / "bass.wav").frames == RATE * 60


def test_the_progress_ends_at_the_length_of_the_recordings_whatever_comes_of_them(run_dir, config, tmp_path):
    # A played song lasts longer than its last event, and a recording that fails ends early.
    (tmp_path / "song.mid").write_bytes(song_bytes([40, 45] * 4, programs=(33,)))
    damaged = noise(3_000)
    damaged[2_000] = np.nan
    soundfile.write(tmp_path / "damaged.wav", damaged, RATE, subtype="FLOAT")
    inputs = [str(tmp_path / "song.mid"), sound(tmp_path / "good.wav", noise(30_000)), str(tmp_path / "damaged.wav")]
    tracks, _ = find_tracks(inputs, str(tmp_path / "out"))
    seconds = []
    load = functools.partial(Separator.from_run, run_dir)
    results = list(separate_tracks(tracks, load, config, FilePlan(str(tmp_path / "out")), 1, seconds.append))
    assert sum(isinstance(result, Failure) for result in results) == 1
    total_s = sum(track.length_s for track in tracks)
    assert max(np.cumsum(seconds)) <= total_s + 1e-6
    assert sum(seconds) == pytest.approx(total_s)


def test_a_song_that_cannot_be_rendered_does_not_stop_the_rest(run_dir, config, tmp_path, monkeypatch):
    def fail(*_):
        raise RenderError("FluidSynth: ringbuffer full")

    monkeypatch.setattr(Synthesizer, "render", fail)
    (tmp_path / "song.mid").write_bytes(song_bytes([40], programs=(33,)))
    tracks, _ = find_tracks([str(tmp_path / "song.mid"), sound(tmp_path / "good.wav")], "out")
    load = functools.partial(Separator.from_run, run_dir)
    results = list(separate_tracks(tracks, load, config, FilePlan(str(tmp_path / "out"))))
    assert results[0] == Failure(tracks[0].path, f"{tracks[0].path}: FluidSynth: ringbuffer full")
    assert files_below(tmp_path / "out") == ["good/bass.wav", "good/drums.wav"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_work_that_is_stopped_ends_soon_and_leaves_only_what_is_complete(run_dir, config, jobs, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abc":
        sound(tmp_path / "in" / f"{name}.wav", noise(RATE * 600))
    tracks, _ = find_tracks([str(tmp_path / "in")], "out")

    def stop_after_the_first_block(seconds):
        if seconds:
            raise KeyboardInterrupt

    load = functools.partial(Separator.from_run, run_dir, 0.02)  # short windows, to be slow enough
    plan = FilePlan(str(tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        list(separate_tracks(tracks, load, config, plan, jobs, stop_after_the_first_block))
    assert files_below(tmp_path / "out") == []
