import contextlib
import os
import re
import resource

import numpy as np
import pytest
import soundfile
import soxr
from helpers import noise

from data_gen import InputError, audio
from data_gen.files import short_name
from sourcesep.separate.stem_writer import Encoding, StemWriter

EVERY = [
    Encoding("wav"),
    Encoding("wav", "int16"),
    Encoding("wav", "int24"),
    Encoding("flac"),
    Encoding("flac", "int24"),
]
EVERY += [Encoding("ogg"), Encoding("mp3")]
ENCODINGS = {f"{encoding.format}-{encoding.subtype}": encoding for encoding in EVERY}


@pytest.fixture(params=ENCODINGS)
def encoding(request):
    return ENCODINGS[request.param]


def tones(length, rate, *frequencies):
    """[time, frequency]: tones that swell and fade, which lossy formats keep well."""
    time = np.arange(length)[:, None] / rate
    return (np.hanning(length)[:, None] * np.sin(2 * np.pi * np.array(frequencies) * time)).astype(np.float32)


def write(paths, stems, rate, encoding=ENCODINGS["wav-float32"], block=10_000):
    """Writes stems [time, channel, stem]; returns the writer."""
    writer = StemWriter(paths, rate, stems.shape[1], encoding, len(stems))
    with writer:
        for start in range(0, len(stems), block):
            writer.write(stems[start : start + block])
    return writer


def read(path):
    with audio.open_audio(path) as file:
        return np.concatenate(list(file.blocks()))


@pytest.mark.parametrize("rates", [(44_100, 8_000), (8_000, 44_100), (44_100, 48_000), (192_000, 44_100)])
@pytest.mark.parametrize("block", [1_000, 7, 65_536])
def test_resampling_in_blocks_gives_what_resampling_at_once_gives(rates, block):
    samples = noise(20_000, 2)
    blocks = (samples[start : start + block] for start in range(0, len(samples), block))
    resampled = np.concatenate(list(audio.resample(blocks, *rates)))
    expected = soxr.resample(samples, *rates)
    assert abs(len(resampled) - len(samples) * rates[1] / rates[0]) <= 2
    shorter = min(len(resampled), len(expected))
    np.testing.assert_allclose(resampled[:shorter], expected[:shorter], atol=1e-6)


def test_every_format_keeps_length_rate_channels_and_place(encoding, tmp_path):
    stems = 0.5 * tones(30_011, 44_100, 300, 700, 1_100, 500).reshape(-1, 2, 2)
    paths = [tmp_path / "song" / f"{name}.{encoding.format}" for name in ("drums", "bass")]
    assert write(paths, stems, 44_100, encoding).notes() == []
    for position, path in enumerate(paths):
        info = soundfile.info(path)
        assert (info.frames, info.samplerate, info.channels) == (30_011, 44_100, 2)
        error = read(path) - stems[:, :, position]
        is_lossy = encoding.format in ("ogg", "mp3")
        assert np.abs(error).max() < (0.02 if is_lossy else 2.0**-15)
    assert sorted(path.parent.iterdir()) == sorted(paths)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_integer_samples_are_the_nearest_ones(container, bits, tmp_path):
    step = 2.0 ** (1 - bits)
    samples = np.array([0.3, 0.7, -0.3, -0.7, 1.6, 1000.2, -1 / step, 1 / step]) * step
    path = tmp_path / "x.any"
    write([path], samples.astype(np.float32)[:, None, None], 8_000, Encoding(container, f"int{bits}"))
    stored = soundfile.read(path)[0] / step
    np.testing.assert_array_equal(stored, [0, 1, 0, -1, 2, 1000, -1 / step, 1 / step - 1])


def test_stems_that_would_clip_get_one_gain_so_that_their_balance_and_sum_stay(encoding, tmp_path):
    stems = tones(30_000, 44_100, 300, 700)[:, None, :] * np.array([1.6, 0.4], np.float32)
    paths = [tmp_path / "loud.x", tmp_path / "soft.x"]
    writer = write(paths, stems, 44_100, encoding)
    gain = np.float32(10 ** (writer.gain_db / 20))
    if encoding.subtype == "float32":
        assert gain == 1.0 and not writer.notes()
    else:
        np.testing.assert_allclose(gain, 1 / 1.6, rtol=1e-3)
        assert "all of them are written 4.08 dB quieter" in writer.notes()[0]
    for position, path in enumerate(paths):
        np.testing.assert_allclose(read(path), gain * stems[:, :, position], atol=0.03)


def test_a_gain_is_not_applied_where_nothing_clips(tmp_path):
    stems = tones(1_000, 8_000, 300)[:, None, :]
    assert write([tmp_path / "x.flac"], stems, 8_000, Encoding("flac")).gain_db == 0.0


def test_mp3_has_no_192_khz_and_is_written_at_48(tmp_path):
    tone = 0.5 * tones(96_000, 192_000, 300)[:, None, :]
    writer = write([tmp_path / "x.mp3"], tone, 192_000, Encoding("mp3"))
    assert writer.notes() == ["mp3 has no 192000 Hz: the stems are written at 48000 Hz"]
    assert soundfile.info(tmp_path / "x.mp3").samplerate == 48_000
    np.testing.assert_allclose(read(tmp_path / "x.mp3")[:, 0], tone[::4, 0, 0], atol=0.02)


def test_what_a_format_cannot_hold_is_refused_before_anything_is_separated(tmp_path):
    with pytest.raises(InputError, match="mp3 cannot hold 6 channels.*--format"):
        with StemWriter([tmp_path / "x.mp3"], 44_100, 6, Encoding("mp3")):
            pytest.fail("too late")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", ["flac", "mp3"])
def test_an_empty_recording_in_a_format_that_has_none_is_refused(format_, tmp_path):
    with pytest.raises(InputError, match=f"{format_} cannot hold an empty recording"):
        write([tmp_path / "x.y"], np.zeros((0, 1, 1), np.float32), 8_000, Encoding(format_))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", ["wav", "ogg"])
def test_an_empty_recording_is_written_where_the_format_has_it(format_, tmp_path):
    write([tmp_path / "x.y"], np.zeros((0, 1, 1), np.float32), 8_000, Encoding(format_))
    assert soundfile.info(tmp_path / "x.y").frames == 0


def test_a_wav_file_over_4_gib_is_an_rf64_file(tmp_path):
    with StemWriter([tmp_path / "x.wav"], 44_100, 2, n_samples=2**30) as writer:
        writer.write(noise(100, 2, 1))
    assert soundfile.info(tmp_path / "x.wav").format == "RF64"
    assert read(tmp_path / "x.wav").shape == (100, 2)


@contextlib.contextmanager
def largest_file(n_bytes):
    """Does what a full disk does, to this process only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [0, 20, 5_000, 100_000])
def test_a_full_disk_is_named_and_leaves_nothing(encoding, n_bytes, tmp_path):
    with pytest.raises(InputError, match=r"(drums\.x.*disk full|cannot write|cannot hold)"), largest_file(n_bytes):
        write([tmp_path / "drums.x"], noise(100_000, 2, 1), 44_100, encoding)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_stems_of_an_earlier_run(tmp_path):
    (tmp_path / "drums.wav").write_bytes(b"old")
    with pytest.raises(InputError), largest_file(5_000):
        write([tmp_path / "drums.wav"], noise(100_000, 2, 1), 44_100)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file/song: cannot write in this folder"):
        write([tmp_path / "file" / "song" / "x.wav"], noise(10, 1, 1), 8_000)


def test_partial_files_that_a_kill_left_are_overwritten(encoding, tmp_path):
    for suffix in ("partial", "float"):
        (tmp_path / f".{short_name('x.y')}.{suffix}").write_bytes(b"half" * 100_000)
    write([tmp_path / "x.y"], noise(100, 1, 1), 8_000, encoding)
    assert [path.name for path in tmp_path.iterdir()] == ["x.y"]
    assert len(read(tmp_path / "x.y")) == 100


@pytest.mark.parametrize(
    ("format_", "subtype", "message"),
    [("wav", "int8", "choose from float32"), ("flac", "float32", "choose from int16"), ("mp3", "int16", "has none")],
)
def test_subtypes_that_a_format_does_not_have_are_refused(format_, subtype, message):
    with pytest.raises(InputError, match=f"--subtype={subtype} does not go with --format={format_}: .*{message}"):
        Encoding(format_, subtype)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_samples_of_8_to_64_bits_are_read(subtype, tmp_path):
    samples = 0.5 * tones(1_000, 8_000, 300, 500)
    soundfile.write(tmp_path / "x.wav", samples, 8_000, subtype=subtype)
    np.testing.assert_allclose(read(tmp_path / "x.wav"), samples, atol=0.02)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_the_common_formats_are_read(extension, tmp_path):
    samples = 0.5 * tones(20_000, 44_100, 300, 500)
    soundfile.write(tmp_path / f"x.{extension}", samples, 44_100)
    np.testing.assert_allclose(read(tmp_path / f"x.{extension}"), samples, atol=0.02)


@pytest.mark.parametrize("extension", ["wav", "aiff", "w64", "caf", "au", "mp3", "ogg", "flac"])
def test_of_a_truncated_file_all_that_is_there_is_read(extension, tmp_path):
    path = tmp_path / f"song.{extension}"
    soundfile.write(path, noise(100_000), 44_100)
    with audio.open_audio(path) as file:
        whole = np.concatenate(list(file.blocks()))
        assert file.notes() == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with audio.open_audio(path) as file:
        there = np.concatenate(list(file.blocks()))
        if extension != "ogg":  # whose header does not state a length
            note = rf"its header states 2\.(27|3.) s, but it holds {len(there) / 44_100:.2f} s"  # MP3 adds padding
            assert re.search(note, file.notes()[0])
    assert 30_000 < len(there) < 70_000
    np.testing.assert_allclose(there[:30_000], whole[:30_000], atol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_with_their_place(value, tmp_path):
    samples = noise(80_000)
    samples[70_000] = value
    soundfile.write(tmp_path / "song.wav", samples, 8_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"song.wav: holds samples that are not finite numbers after 8\.0 s"):
        read(tmp_path / "song.wav")


def text(path):
    path.write_text("hello, this is no sound at all\n" * 100)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("song.wav", text, "not a sound file that can be read"),
        ("song.flac", text, "not a sound file that can be read"),
        ("song.mp3", text, "not a sound file that can be read"),
        ("song.wav", lambda path: path.touch(), "an empty file"),
        ("song.raw", text, "without a header"),
        ("song.wav", lambda path: path.mkdir(), "a folder, not a file"),
        ("song.mp3", os.mkfifo, "not a file but a pipe"),
        ("song.mp3", lambda path: path.write_text("\n<!DOCTYPE HTML><html>404</html>"), "a web page"),
        ("song.wav", lambda path: None, "no such file"),
    ],
)
def test_what_is_no_sound_file_is_refused_by_name(name, make, message, tmp_path):
    make(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        audio.open_audio(tmp_path / name)
