"""Whatever a header states, all that a file holds is read, and a wrong length is told."""

import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from data_gen import InputError, audio
from data_gen.headers import find_samples

RATE = 8_000
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg makes the inputs")


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def sine(path, seconds, *options, rate=44_100, hz=440):
    """Has ffmpeg write a sine."""
    ffmpeg("-f", "lavfi", "-i", f"sine=f={hz}:d={seconds}:r={rate}", *options, path)
    return path


def read(path):
    """(samples, notes) of a file."""
    with audio.open_audio(path) as file:
        samples = np.concatenate([np.zeros((0, file.n_channels), np.float32), *file.blocks()])
        return samples, file.notes()


def noise(length, n_channels=2):
    samples = np.random.default_rng(0).integers(-8_000, 8_000, (length, n_channels))
    return (samples / 2.0**15).astype(np.float32)


def wav(data, size=None, riff_size=None, form=b"RIFF", extra=b""):
    """The bytes of a 16-bit stereo WAV file whose header states `size` bytes of samples."""
    size = len(data) if size is None else size
    riff_size = 36 + size if riff_size is None else riff_size
    layout = struct.pack("<IHHIIHH", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    header = form + struct.pack("<I", riff_size & 0xFFFFFFFF) + b"WAVE" + extra + b"fmt " + layout
    return header + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + data


PCM = (noise(3_000) * 2**15).astype("<i2").tobytes()
LIST = b"LIST" + struct.pack("<I", 10) + b"INFOabcdef"


def ds64(n_bytes):
    return b"ds64" + struct.pack("<IQQQI", 28, n_bytes + 72, n_bytes, n_bytes // 4, 0)


# Name: (bytes of the file, whether a note is due). All hold the 3,000 samples of PCM.
WRONG_LENGTHS = {
    "no length": (wav(PCM, 0), True),
    "no length, RIFF size 0": (wav(PCM, 0, 0), True),
    "unknown length": (wav(PCM, 0xFFFFFFFF, 0xFFFFFFFF), False),
    "unknown length by sox": (wav(PCM, 0x7FFFFFFF - 36), False),
    "unknown length by a player": (wav(PCM, 0x80000000), False),
    "a length that was not updated": (wav(PCM, 4_000), True),
    "a length that wrapped": (wav(PCM, len(PCM) // 3), True),
    "cut off": (wav(PCM, 2 * len(PCM)), True),
    "cut off in the middle of a sample": (wav(PCM + b"x", 2 * len(PCM)), True),
    "RF64 without a length": (wav(PCM, 0xFFFFFFFF, 0xFFFFFFFF, b"RF64", ds64(0)), True),
    "RF64 with a short length": (wav(PCM, 0xFFFFFFFF, 0xFFFFFFFF, b"RF64", ds64(400)), True),
    "RF64 with a long length": (wav(PCM, 0xFFFFFFFF, 0xFFFFFFFF, b"RF64", ds64(10**12)), True),
    "a chunk behind": (wav(PCM) + LIST, False),
    "a chunk behind, cut off": (wav(PCM) + LIST[:-5], False),
    "a tag behind": (wav(PCM) + b"TAG" + b"x" * 125, False),
    "a tag behind samples of unknown length": (wav(PCM, 0xFFFFFFFF) + b"TAG" + b"x" * 125, False),
    "padding behind": (wav(PCM) + bytes(500), False),
    "joined": (wav(PCM[:4_000]) + wav(PCM[4_000:]), True),
}


@pytest.mark.parametrize("case", WRONG_LENGTHS)
def test_a_wav_file_is_read_to_its_last_sample(case, tmp_path):
    data, is_noted = WRONG_LENGTHS[case]
    (tmp_path / "song.wav").write_bytes(data)
    samples, notes = read(tmp_path / "song.wav")
    np.testing.assert_array_equal(samples, noise(3_000))
    assert len(notes) == is_noted
    if is_noted:
        assert "its header states" in notes[0] and "it holds 0.38 s" in notes[0]
    measures = audio.measure(tmp_path / "song.wav")
    assert measures == (RATE, 2, 3_000)
    np.testing.assert_array_equal(audio.read_part(tmp_path / "song.wav", 1_000, 2_999), noise(3_000)[1_000:2_999])


@pytest.mark.parametrize("tail", [b"", LIST])
def test_a_wav_file_that_is_really_empty_is_empty(tail, tmp_path):
    (tmp_path / "song.wav").write_bytes(wav(b"") + tail)
    samples, notes = read(tmp_path / "song.wav")
    assert samples.shape == (0, 2) and not notes


@pytest.mark.parametrize("size", [0, 2**20, 0xFFFFFFFF, 2**31 - 1])
def test_a_wav_file_over_4_gib_is_as_long_as_the_file(size, tmp_path):
    path, n_bytes = tmp_path / "song.wav", 2**32 + 2**20
    path.write_bytes(wav(PCM, size))
    os.truncate(path, 44 + n_bytes)  # a sparse file: it takes no room
    with audio.open_audio(path) as file:
        assert file.n_samples == n_bytes // 4
        np.testing.assert_array_equal(next(iter(file.blocks()))[:3_000], noise(3_000))
    part = audio.read_part(path, n_bytes // 4 - 10, n_bytes // 4 + 10)
    assert part.shape == (10, 2)


# Format: what finds the size of the samples in a file of 3,000 stereo samples, and how it is stored.
SIZES = {"AIFF": ">I", "AU": ">I", "CAF": ">q", "W64": "<Q"}


@pytest.mark.parametrize("format_", SIZES)
@pytest.mark.parametrize("size", [0, -1, 400, 10**6])
def test_other_containers_are_read_to_their_last_sample(format_, size, tmp_path):
    path = tmp_path / f"song.{format_.lower()}"
    soundfile.write(path, noise(3_000), RATE, subtype="PCM_16", format=format_)
    data = bytearray(path.read_bytes())
    with open(path, "rb") as file:
        begin = find_samples(file, 0, len(data)).begin
    place = {"AIFF": begin - 12, "AU": 8, "CAF": begin - 12, "W64": begin - 8}[format_]
    width = struct.calcsize(SIZES[format_])
    data[place : place + width] = struct.pack(
        SIZES[format_],
        size % 2 ** (8 * width - 1)
        if size > 0
        else (0 if size == 0 else (-1 if "q" in SIZES[format_] else 2 ** (8 * width) - 1)),
    )
    if format_ == "AIFF":
        data[22:26] = struct.pack(">I", 0 if size <= 0 else size // 4)
    path.write_bytes(data)
    samples, notes = read(path)
    np.testing.assert_array_equal(samples[:3_000], noise(3_000))
    assert len(samples) == 3_000
    assert len(notes) <= 1


@needs_ffmpeg
def test_an_mp3_file_of_variable_rate_without_a_xing_header_is_read_to_its_end(tmp_path):
    path = tmp_path / "song.mp3"
    loud_then_soft = "[0][1]concat=v=0:a=1"
    ffmpeg(
        *("-f", "lavfi", "-i", "anoisesrc=d=3:r=44100:a=0.5", "-f", "lavfi", "-i", "sine=d=17:r=44100"),
        *("-filter_complex", loud_then_soft, "-q:a", 4, "-write_xing", 0, path),
    )
    with audio.open_audio(path) as file:
        assert file.n_samples is None  # any estimate may be several times too long or short
    samples, notes = read(path)
    assert abs(len(samples) / 44_100 - 20) < 0.1 and not notes
    assert np.abs(samples[-20_000:-10_000]).max() > 0.1


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant.mp3", ("-b:a", "128k", "-write_xing", 0)),
        ("low.mp3", ("-ar", 16_000, "-q:a", 9, "-write_xing", 0)),
        ("layer2.mp2", ()),
        ("stream.aac", ()),
        ("cover.mp3", ("-id3v2_version", 3, "-metadata", "title=x")),
    ],
)
def test_a_whole_file_is_not_called_cut_off(name, options, tmp_path):
    samples, notes = read(sine(tmp_path / name, 5, *options))
    rate = 16_000 if name == "low.mp3" else 44_100
    assert abs(len(samples) / rate - 5) < 0.15 and not notes


@needs_ffmpeg
@pytest.mark.parametrize(
    "name", ["a.mp3", "a.flac", "a.ogg", "a.opus", "a.mp2", "a.aac", "a.wav", "a.aiff", "a.caf", "a.au"]
)
def test_joined_files_are_read_to_the_end_of_the_last(name, tmp_path):
    one, two = (sine(tmp_path / f"{hz}-{name}", 2, rate=48_000, hz=hz) for hz in (440, 880))
    path = tmp_path / name
    path.write_bytes(one.read_bytes() + two.read_bytes())
    samples, notes = read(path)
    assert abs(len(samples) / 48_000 - 4) < 0.15
    spectrum = np.abs(np.fft.rfft(samples[-60_000:-12_000, 0]))
    assert abs(int(spectrum.argmax()) - 880) < 3
    assert all("its header states" in note for note in notes)


@needs_ffmpeg
@pytest.mark.parametrize("extension", ["mp3", "ogg", "flac", "wav"])
def test_joined_files_of_other_rates_and_channels_keep_their_time_and_pitch(extension, tmp_path):
    one = sine(tmp_path / f"1.{extension}", 2)
    two = sine(tmp_path / f"2.{extension}", 2, "-ac", 2, rate=22_050, hz=880)
    path = tmp_path / f"song.{extension}"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    samples, notes = read(path)
    assert samples.shape[1] == 1 and abs(len(samples) / 44_100 - 4) < 0.2
    spectrum = np.abs(np.fft.rfft(samples[-54_100:-10_000, 0]))
    assert abs(int(spectrum.argmax()) - 880) < 3
    assert any("changes to" in note and "22050 Hz, 2 channel" in note for note in notes)


@needs_ffmpeg
def test_a_streamed_flac_file_is_read_and_measured(tmp_path):
    path = tmp_path / "song.flac"
    with open(path, "wb") as file:
        command = "ffmpeg -v error -f lavfi -i sine=d=3 -f flac -"
        subprocess.run(command.split(), stdout=subprocess.PIPE, check=True)
        file.write(subprocess.run(command.split(), stdout=subprocess.PIPE, check=True).stdout)
    samples, notes = read(path)
    assert len(samples) == 3 * 44_100 and not notes
    assert audio.measure(path) == (44_100, 1, 3 * 44_100)
    np.testing.assert_array_equal(audio.read_part(path, 50_000, 60_000), samples[50_000:60_000])


@needs_ffmpeg
@pytest.mark.parametrize("extension", ["flac", "mp3", "ogg", "wv", "aac"])
def test_damage_in_the_middle_costs_only_the_damaged_part_and_is_told(extension, tmp_path):
    path = tmp_path / f"song.{extension}"
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=20:r=44100:a=0.3", path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    try:
        samples, notes = read(path)
    except InputError as error:
        assert extension == "wv" and "not finite" in str(error)
        return
    assert 15 < len(samples) / 44_100 < 20.5
    if extension != "aac":  # whose header states no length
        assert any("its header states" in note or "damaged" in note for note in notes)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("song.m4a", ()),
        ("alac.m4a", ("-c:a", "alac")),
        ("song.wma", ()),
        ("opus.mp4", ("-c:a", "libopus", "-ar", 48_000)),
        ("song.mka", ()),
        ("song.webm", ()),
        ("song.wv", ()),
        ("song.tta", ()),
        ("song.ac3", ()),
        ("coded.caf", ("-c:a", "alac")),
        ("mp3.wav", ("-c:a", "libmp3lame")),
        ("adpcm.wav", ("-c:a", "adpcm_ms")),
        ("six.wav", ("-ac", 6, "-c:a", "pcm_s24le")),
    ],
)
def test_many_formats_are_read(name, options, tmp_path):
    path = sine(tmp_path / name, 3, *options)
    with audio.open_audio(path) as file:
        samples = np.concatenate(list(file.blocks()))
        assert abs(len(samples) / file.sample_rate - 3) < 0.15
        spectrum = np.abs(np.fft.rfft(samples[: 2 * file.sample_rate].sum(axis=1)))
        assert abs(int(spectrum.argmax()) - 880) < 3  # 440 Hz over two seconds


@needs_ffmpeg
def test_the_sound_of_a_video_is_read_and_a_video_without_is_refused(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1", "-f", "lavfi", "-i", "sine=d=1", "-shortest", tmp_path / "sound.mp4")
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1", tmp_path / "silent.mp4")
    assert abs(len(read(tmp_path / "sound.mp4")[0]) / 44_100 - 1) < 0.1
    with pytest.raises(InputError, match=r"silent\.mp4: holds no sound"):
        audio.open_audio(tmp_path / "silent.mp4")


def test_a_playlist_does_not_open_other_files(tmp_path):
    soundfile.write(tmp_path / "secret.wav", noise(3_000), RATE)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    (tmp_path / "song.mp3").write_text(playlist)
    with pytest.raises(InputError, match="not a sound file"):
        audio.open_audio(tmp_path / "song.mp3")


def test_a_name_that_is_not_text_is_opened(tmp_path):
    for extension in ("wav", "flac", "ogg"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + extension.encode())
        soundfile.write(tmp_path / f"x.{extension}", noise(3_000), RATE, subtype=None)
        os.rename(tmp_path / f"x.{extension}", path)
        assert len(read(path)[0]) == 3_000
