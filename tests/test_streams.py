"""Separation of what comes through a pipe."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from helpers import noise

from data_gen import InputError
from sourcesep.separate.separation import Separator
from sourcesep.separate.standard_streams import StandardInput, StandardOutput
from sourcesep.separate.tflite_model import PACKAGED, read_file

RATE = read_file(PACKAGED)[1]["sample_rate_hz"]
WAV_TYPES = {"PCM_16": 1e-4, "PCM_24": 1e-6, "PCM_32": 1e-6, "FLOAT": 0}


@pytest.fixture(scope="module")
def lite():
    return Separator.from_tflite()


def start(*flags):
    pytest.importorskip("ai_edge_litert")
    return subprocess.Popen(
        [sys.executable, str(ROOT / "separate.py"), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def pipe(data):
    return io.BufferedReader(io.BytesIO(data))


@pytest.mark.parametrize("subtype", WAV_TYPES)
@pytest.mark.parametrize("length", ["stated", "unknown"])
def test_wav_files_come_through_a_pipe(subtype, length):
    samples, file = noise(5_000, 2), io.BytesIO()
    soundfile.write(file, samples, RATE, subtype, format="WAV")
    data = file.getvalue()
    if length == "unknown":  # as ffmpeg writes it into a pipe
        at = data.index(b"data") + 4
        data = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    source = StandardInput(pipe(data))
    assert (source.sample_rate, source.n_channels) == (RATE, 2)
    got = np.concatenate(list(source.blocks()))[:5_000]
    np.testing.assert_allclose(got, samples, atol=WAV_TYPES[subtype])


def test_samples_without_a_header_are_what_the_flag_says():
    samples = np.int16([[1, -2], [32_767, -32_768]])
    source = StandardInput(pipe(samples.tobytes() + b"\0"), "8000,2,s16")  # the last sample is cut
    np.testing.assert_array_equal(np.concatenate(list(source.blocks())), samples / np.float32(32_768))


@pytest.mark.parametrize("raw", ["", "44100", "44100,2,u8", "x,2,s16"])
def test_what_cannot_be_read_is_refused_in_one_line(raw):
    with pytest.raises(InputError, match="44100,2,s16"):
        StandardInput(pipe(b"no WAV file, but longer than its header would be"), raw)


def test_the_output_has_the_channels_of_one_stem_after_those_of_the_other(tmp_path):
    block = noise(100, 2, 3)
    with open(tmp_path / "out.wav", "wb") as file:
        output = StandardOutput(file, ["drums", "bass", "other"], RATE, 2)
        output.write(block[:60])
        output.write(block[60:])
    assert output.layout.endswith("channels drums 1-2, bass 3-4, other 5-6")
    got = np.concatenate(list(StandardInput(open(tmp_path / "out.wav", "rb")).blocks()))
    np.testing.assert_array_equal(got.reshape(100, 3, 2).transpose(0, 2, 1), block)


def test_stems_leave_the_command_while_samples_still_come_in(lite):
    samples = noise(2 * lite.window_samples, 1)
    process = start("--stream=stdout", f"--raw={RATE},1,f32", "--stems=drums,bass")
    ahead = round(lite.latency_ms * RATE / 1_000) + 16_000  # more than the latency that is printed
    process.stdin.write(samples[:ahead].tobytes())
    process.stdin.flush()
    source = StandardInput(process.stdout)  # waits until the header is there
    first = next(source.blocks())
    assert len(first) and process.poll() is None
    rest = threading.Thread(target=lambda: (process.stdin.write(samples[ahead:].tobytes()), process.stdin.close()))
    rest.start()
    got = np.concatenate([first, *source.blocks()])
    expected = lite.separate(samples, RATE)
    np.testing.assert_allclose(got, np.concatenate([expected["drums"], expected["bass"]], axis=1), atol=1e-5)
    errors = process.stderr.read().decode()
    assert f"{lite.latency_ms:.0f} ms behind" in errors
    assert "channels drums 1-1, bass 2-2" in errors
    assert process.wait() == 0


def test_ctrl_c_ends_a_stream_whose_files_are_complete(tmp_path):
    process = start("--stream=files", f"--raw={RATE},1,s16", f"--output_dir={tmp_path}", "--stems=bass")
    process.stdin.write(np.int16(3_000 * noise(20_000)).tobytes())
    process.stdin.flush()
    while not list((tmp_path / "stream").glob(".*")) if (tmp_path / "stream").exists() else True:
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert len(soundfile.read(tmp_path / "stream" / "bass.wav")[0]) >= 16_000
    assert b"stream: bass.wav" in output
