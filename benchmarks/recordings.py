"""Measures how fast recorded stems are read: `python -m benchmarks.recordings`. Prints Markdown.

The songs are made here: four stems of noisy tones, 16 bit, stereo, 44.1 kHz, as WAV and as FLAC. With --torch_python
the readers of open-unmix and demucs are measured too, where that Python has them and torchaudio below 2.9, whose
functions they call.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile
from absl import app, flags

from benchmarks.machine import ROOT
from data_gen.chunks import Chunker
from data_gen.instruments import parse_instruments
from data_gen.recorded import RecordedStems
from data_gen.recorded_corpus import RecordedCorpus
from data_gen.variation import Variation
from data_gen.workers import Workers

STEMS = ("drums", "bass", "vocals", "other")
RATE, SONG_S, N_SONGS = 44_100, 120.0, 4
CHUNK_MS, CHUNKS_PER_VISIT = 1_000, 10

# Measured in a Python of its own: open-unmix and demucs read a stretch of each stem like this in training.
PEERS = """
import json, sys, time
import numpy as np
folder, suffix, seconds = sys.argv[1], sys.argv[2], 10.0
import pathlib
songs = sorted(p for p in pathlib.Path(folder).iterdir())
stems = ["drums", "bass", "vocals", "other"]
rng = np.random.default_rng(0)
rates = {}
def measure(name, read):
    read(songs[0], 0.0)
    began_s, n = time.process_time(), 0
    while time.process_time() < began_s + 5:
        read(songs[n % len(songs)], float(rng.uniform(0, 100)))
        n += 1
    rates[name] = n * seconds / (time.process_time() - began_s)
try:
    from openunmix.data import load_audio
    measure("open-unmix", lambda song, at: [load_audio(str(song / (s + suffix)), start=at, dur=seconds) for s in stems])
except Exception as error:
    print("open-unmix:", repr(error), file=sys.stderr)
try:
    from demucs.wav import Wavset, build_metadata
    metadata = build_metadata(pathlib.Path(folder), stems, normalize=False)
    data = Wavset(pathlib.Path(folder), metadata, stems, segment=seconds, shift=seconds, normalize=False, ext=suffix)
    numbers = {song.name: i for i, song in enumerate(songs)}
    measure("demucs", lambda song, at: data[int(at // seconds) + numbers[song.name] * 11])
except Exception as error:
    print("demucs:", repr(error), file=sys.stderr)
print(json.dumps(rates))
"""


def write_songs(folder: pathlib.Path, suffix: str) -> None:
    """Writes songs of four stems."""
    time_s = np.arange(round(SONG_S * RATE)) / RATE
    rng = np.random.default_rng(0)
    for song in range(N_SONGS):
        for stem in STEMS:
            tones = sum(0.05 * np.sin(2 * np.pi * hz * time_s) for hz in rng.uniform(60, 2_000, 4))
            samples = np.stack([tones, 0.8 * tones], axis=1) + 0.003 * rng.standard_normal((len(time_s), 2))
            path = folder / f"song {song}" / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE, subtype="PCM_16")


def make_chunker(folder: pathlib.Path, sample_rate: int = RATE, variation: Variation | None = None) -> Chunker:
    """Returns what cuts chunks of a second, ten from a visit."""
    instruments = parse_instruments(STEMS, recorded=True)
    source = RecordedStems(RecordedCorpus([str(folder)], instruments), sample_rate, variation or Variation())
    chunk_samples = sample_rate * CHUNK_MS // 1_000
    return Chunker(source, "train", STEMS, chunk_samples, chunks_per_song=CHUNKS_PER_VISIT)


def rate_of_source(chunker: Chunker, seconds: float = 5.0) -> tuple[float, float]:
    """Returns seconds of audio of four stems per second of processor time: (read, cut into chunks as well)."""
    rates = []
    for is_cut in (False, True):
        rng, n_samples = np.random.default_rng(0), 0
        began_s = time.process_time()
        while time.process_time() < began_s + seconds:
            if is_cut:
                n_samples += chunker.chunk_samples * len(chunker.visit(int(rng.integers(2**31))).starts_s)
            else:
                take = chunker.source.draw("train", rng)
                length = chunker.chunk_samples * CHUNKS_PER_VISIT
                take.stems(int(rng.integers(take.n_samples - length)), length)
                n_samples += length
        rates.append(n_samples / chunker.source.sample_rate / (time.process_time() - began_s))
    return rates[0], rates[1]


def rate_of_soundfile(folder: pathlib.Path, suffix: str, seconds: float = 5.0) -> float:
    """Returns the same for soundfile alone, which is what the readers of open-unmix and demucs call underneath."""
    rng, n_windows, window_s = np.random.default_rng(0), 0, CHUNK_MS * CHUNKS_PER_VISIT / 1_000
    began_s = time.process_time()
    while time.process_time() < began_s + seconds:
        song, start = n_windows % N_SONGS, int(rng.integers((SONG_S - window_s) * RATE))
        for stem in STEMS:
            path = folder / f"song {song}" / f"{stem}{suffix}"
            soundfile.read(path, start=start, frames=round(window_s * RATE), dtype="float32")
        n_windows += 1
    return n_windows * window_s / (time.process_time() - began_s)


def rates_of_pipeline(chunker: Chunker, seconds: float = 8.0) -> tuple[float, float]:
    """Returns seconds of audio per second of time from one worker process: (directly, through tf.data)."""
    import tensorflow as tf

    from sourcesep.train.dataset import make_dataset

    rates = []
    for is_dataset in (False, True):
        with Workers(chunker, 1) as workers:
            if is_dataset:
                dataset = make_dataset(
                    workers,
                    time_samples=chunker.chunk_samples,
                    n_targets=len(STEMS),
                    reuse=tf.Variable(1, dtype=tf.int64),
                    pool_chunks=100,
                    batch_size=8,
                    seed=0,
                )
                counts = (len(batch[0]) for batch in dataset)
            else:
                counts = (len(visit.starts_s) for visit in workers)
            for _ in range(5):
                next(counts)
            began_s, n_chunks = time.monotonic(), 0
            while time.monotonic() < began_s + seconds:
                n_chunks += next(counts)
            rates.append(n_chunks * CHUNK_MS / 1_000 / (time.monotonic() - began_s))
    return rates[0], rates[1]


def main(_: list[str]) -> None:
    """Measures and prints the results."""
    print("Seconds of audio of four stems (stereo, 16 bit, 44.1 kHz) per second of one core, in windows of 10 s.\n")
    print("| | WAV | FLAC |\n|---|---|---|")
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".wav", ".flac"):
            place = pathlib.Path(folder, suffix[1:])
            write_songs(place, suffix)
            varied = Variation(transpose=3, tempo=0.1)
            for name, chunker in {
                "44.1 kHz": make_chunker(place),
                "44.1 kHz, random speed": make_chunker(place, RATE, varied),
                "16 kHz": make_chunker(place, 16_000),
                "16 kHz, random speed": make_chunker(place, 16_000, varied),
            }.items():
                for what, rate in zip(("read", "read and cut into chunks"), rate_of_source(chunker)):
                    rows.setdefault(f"sourcesep, {what}, {name}", []).append(f"{rate:.0f}")
            direct, through = rates_of_pipeline(make_chunker(place))
            rows.setdefault("sourcesep, from one worker process (time, not processor time)", []).append(f"{direct:.0f}")
            rows.setdefault("sourcesep, the same through tf.data", []).append(f"{through:.0f} ({through / direct:.0%})")
            rows.setdefault("soundfile alone, 44.1 kHz", []).append(f"{rate_of_soundfile(place, suffix):.0f}")
            if flags.FLAGS.torch_python:
                command = [flags.FLAGS.torch_python, "-c", PEERS, str(place), suffix]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(
                    command, cwd=ROOT.parent, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                for name, rate in json.loads(done.stdout.splitlines()[-1]).items():
                    rows.setdefault(f"{name}, its reader", []).append(f"{rate:.0f}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.flush()


if __name__ == "__main__":
    flags.DEFINE_string("torch_python", "", "Python of an environment with open-unmix and demucs; empty for none.")
    app.run(main)
