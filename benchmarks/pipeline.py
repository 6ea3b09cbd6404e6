"""Measures the way from visits to batches: `python -m benchmarks.pipeline`. Prints Markdown.

The measurements are the cost of tf.data, the gain of --reuse=auto while training waits for data, the time to the first
batch, and the memory of a worker over many visits.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

import mido
import numpy as np
from absl import app, flags
from tqdm import tqdm

from benchmarks.machine import ROOT
from data_gen import corpus, midi
from data_gen.chunks import Chunker, Visit
from data_gen.instruments import parse_instruments
from data_gen.played import PlayedStems
from data_gen.synth import default_soundfont
from data_gen.workers import Workers

INSTRUMENTS = parse_instruments(["drums", "piano", "strings", "bass"])
RATE, CHUNK, BATCH = 44_100, 4_410, 12


def chunker(midi_dir: str | None = None) -> Chunker:
    """Returns the chunker of the published experiment."""
    pieces = corpus.open_corpus(flags.FLAGS.midi_dir if midi_dir is None else midi_dir, INSTRUMENTS, "all", 0)
    source = PlayedStems(pieces, INSTRUMENTS, (default_soundfont(),), RATE)
    return Chunker(source, "train", source.names, CHUNK)


def batches_of(visits: Iterable[Visit], reuse: int = 1) -> tuple[Iterator, Any]:
    """Returns (iterator of batches, the reuse variable).

    TensorFlow is imported here, since worker processes import this module.
    """
    import tensorflow as tf

    from sourcesep.train.dataset import make_dataset

    variable = tf.Variable(reuse, dtype=tf.int64)
    dataset = make_dataset(
        visits,
        time_samples=CHUNK,
        n_targets=len(INSTRUMENTS),
        reuse=variable,
        pool_chunks=1_000,
        batch_size=BATCH,
        seed=0,
    )
    return iter(dataset), variable


def rate_of_workers(n_workers: int, seconds: float) -> float:
    """Measures chunks per second directly from the worker processes."""
    with Workers(chunker(), n_workers) as workers:
        next(workers)
        began_s, n_chunks = time.monotonic(), 0
        while time.monotonic() < began_s + seconds:
            n_chunks += len(next(workers).starts_s)
        return n_chunks / (time.monotonic() - began_s)


def rate_of_dataset(n_workers: int, seconds: float) -> float:
    """Measures chunks per second from tf.data, after the pool is full."""
    with Workers(chunker(), n_workers) as workers:
        batches, _ = batches_of(workers)
        for _ in range(10):
            next(batches)
        began_s, n_chunks = time.monotonic(), 0
        while time.monotonic() < began_s + seconds:
            n_chunks += len(next(batches)[0])
        return n_chunks / (time.monotonic() - began_s)


def training(mode: str, step_s: float, seconds: float, per_visit_s: float) -> tuple[float, int]:
    """Measures a trainer that takes `step_s` per step, with workers that are slowed down by `per_visit_s` per visit.

    Returns:
        (steps per second, reuse at the end)
    """

    def slow_down(workers: Workers) -> Iterator[Visit]:
        for visit in workers:
            time.sleep(per_visit_s)
            yield visit

    with Workers(chunker(), 1) as workers:
        from sourcesep.train.dataset import ReuseController

        batches, reuse = batches_of(slow_down(workers))
        controller = ReuseController(reuse, mode)
        next(batches)
        steps, rate_from = 0, time.monotonic() + seconds / 2
        began_s = time.monotonic()
        while (now := time.monotonic()) < began_s + seconds:
            next(batches)
            waited_s = time.monotonic() - now
            time.sleep(step_s)
            controller.update(waited_s, time.monotonic() - now, workers.ready_share)
            steps += now > rate_from
        return steps / (seconds / 2), int(reuse.numpy())


def seconds_to_first_batch(midi_dir: str, cache: str) -> float:
    """Measures a new process from its start to its first batch: imports, index, SoundFont, workers and pool."""
    command = [sys.executable, "-m", "benchmarks.pipeline", f"--first_batch={midi_dir or 'composed'}"]
    began_s = time.time()
    child = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": cache}, stdout=subprocess.PIPE, check=True
    )
    return float(child.stdout) - began_s


def write_midi(piece: midi.Piece, path: pathlib.Path) -> None:
    """Writes notes and programs of the first part of a piece as a MIDI file."""
    song = mido.MidiFile(ticks_per_beat=480)
    track = song.add_track()
    tick, programs = 0, {}
    for event in piece.events[:1500]:
        if event["kind"] not in (midi.NOTE_ON, midi.NOTE_OFF):
            continue
        at, channel = round(float(event["time_s"]) * 960), int(event["channel"])
        if event["kind"] == midi.NOTE_ON and programs.get(channel) != event["program"]:
            programs[channel] = int(event["program"])
            track.append(mido.Message("program_change", channel=channel, program=programs[channel], time=at - tick))
            tick = at
        kind = "note_on" if event["kind"] == midi.NOTE_ON else "note_off"
        message = mido.Message(kind, channel=channel, note=int(event["number"]), velocity=int(event["value"]))
        track.append(message.copy(time=at - tick))
        tick = at
    song.save(path)


def memory_mb(pid: int) -> float:
    """Returns the resident memory of a process, in MiB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_song(job: tuple[int, str]) -> None:
    """Composes one piece and writes it into a folder."""
    index, folder = job
    write_midi(corpus.ComposedCorpus(1, INSTRUMENTS).load("train", index), pathlib.Path(folder, f"{index}.mid"))


def main(_) -> None:
    """Measures and prints the results."""
    if flags.FLAGS.first_batch:
        folder = flags.FLAGS.first_batch.replace("composed", "")
        with Workers(chunker(folder), max(1, (os.cpu_count() or 2) - 1)) as workers:
            workers.start()  # before TensorFlow is imported, as in train.py
            next(batches_of(workers)[0])
            print(time.time())
        return

    with tempfile.TemporaryDirectory() as folder:
        songs = pathlib.Path(folder, "songs")
        songs.mkdir()
        n_files = flags.FLAGS.files
        with concurrent.futures.ProcessPoolExecutor() as executor:
            jobs = ((index, str(songs)) for index in range(n_files))
            list(tqdm(executor.map(write_song, jobs, chunksize=20), total=n_files, desc="writing MIDI"))
        seconds_to_first_batch("", folder)  # not counted: matplotlib writes its font cache into the new cache folder
        print("| from the start of a process, imports included | seconds to the first batch |\n|---|---|")
        print(f"| composed pieces | {seconds_to_first_batch('', folder):.1f} |")
        for state in ("read for the first time", "indexed"):
            print(f"| {n_files} MIDI files, {state} | {seconds_to_first_batch(str(songs), folder):.1f} |")
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
    print(f"| only `import tensorflow` | {time.perf_counter() - began_s:.1f} |\n")

    print("| two worker processes | chunks of 100 ms per second |\n|---|---|")
    rates = [
        (rate_of_workers(2, 10.0), rate_of_dataset(2, 10.0)) for _ in range(3)
    ]  # alternating, since the speed of the machine drifts
    straight, through = np.median(rates, axis=0)
    print(f"| directly from the workers | {straight:.0f} |")
    print(f"| from tf.data, with pool and batches | {through:.0f} ({through / straight:.0%}) |\n")

    print("| trainer of 50 steps per second, renderer slowed to 300 chunks per second | steps per second | reuse |")
    print("|---|---|---|")
    for mode in ("1", "auto"):
        rate, reuse = training(mode, 0.02, 40.0, 50 / 300)
        print(f"| --reuse={mode} | {rate:.1f} | {reuse} |")
    rate, reuse = training("auto", 0.2, 40.0, 0.0)
    print(f"| --reuse=auto, a trainer of 5 steps per second, renderer not slowed | {rate:.1f} | {reuse} |\n")

    with Workers(dataclasses.replace(chunker(), chunks_per_song=10), 1) as workers:  # many short renders
        next(workers)
        (process,) = multiprocessing.active_children()
        marks = {}
        for index in range(flags.FLAGS.renders + 1):
            next(workers)
            if index in (0, flags.FLAGS.renders // 4, flags.FLAGS.renders // 2, flags.FLAGS.renders):
                marks[index] = memory_mb(process.pid)
    soundfont_mb = os.path.getsize(default_soundfont()) / 2**20
    print(f"Memory of a worker after N visits (its SoundFont has {soundfont_mb:.0f} MB): ", end="")
    print(", ".join(f"{index}: {mb:.0f} MB" for index, mb in marks.items()))


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", "", "Folder of MIDI files; empty for composed pieces.")
    flags.DEFINE_integer(
        "files", 10_000, "Number of MIDI files in the folder for which the time to the first batch is measured."
    )
    flags.DEFINE_integer("renders", 10_000, "Number of visits over which a worker's memory is measured.")
    flags.DEFINE_string("first_batch", None, "Internal: prints the time of the first batch of this folder, and ends.")
    app.run(main)
