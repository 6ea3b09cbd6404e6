"""Tests the MIDI reader on damaged real files: `python -m benchmarks.fuzz --midi_dir=DIR`. Prints Markdown.

Each file is damaged by a few random edits. The reader must return a valid Piece or raise InputError with the reason.
"""

from __future__ import annotations

import collections
import concurrent.futures
import pathlib
import re
import time

import numpy as np
from absl import app, flags

from data_gen import InputError
from data_gen.midi import NOTE_ON, Piece, parse_midi


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages a file: changes, removes, repeats or sets bytes to 255, or cuts off its end."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(damaged)))
        length = int(rng.integers(1, 65))
        edits = (
            (at, at + 1, bytes([rng.integers(256)])),
            (at, at + length, rng.bytes(length)),
            (at, at + length, b""),
            (at, at, bytes(damaged[at : at + length])),
            (at, at + length, b"\xff" * length),
            (max(14, at), len(damaged), b""),
        )
        begin, end, replacement = edits[rng.integers(len(edits))]
        damaged[begin:end] = replacement
    return bytes(damaged)


def assert_valid(piece: Piece) -> None:
    """Asserts what is true of every Piece."""
    events = piece.events
    assert np.isfinite(events["time_s"]).all() and (np.diff(events["time_s"]) >= 0).all()
    assert (events["end_s"] >= events["time_s"]).all() and (events["end_s"] <= piece.duration_s).all()
    assert (events["kind"] == NOTE_ON).any() and events["channel"].max() < 16 and events["number"].max() < 128


def read(job: tuple[str, int]) -> tuple[str, float]:
    """Reads one damaged file, (path, seed); returns (the outcome, the seconds that it took)."""
    path, seed = job
    data = mutate(pathlib.Path(path).read_bytes(), np.random.default_rng(seed))
    began_s = time.perf_counter()
    try:
        assert_valid(parse_midi(data, "file"))
        outcome = "read"
    except InputError as error:
        outcome = re.sub(r"\d+|0x\w+", "N", str(error).removeprefix("file: "))
    return outcome, time.perf_counter() - began_s


def main(_) -> None:
    """Reads all files and prints the outcomes; an exception other than InputError ends the program."""
    paths = sorted(map(str, pathlib.Path(flags.FLAGS.midi_dir).rglob("*.mid")))
    jobs = [(paths[seed % len(paths)], seed) for seed in range(flags.FLAGS.files)]
    with concurrent.futures.ProcessPoolExecutor() as executor:
        outcomes, seconds = zip(*executor.map(read, jobs, chunksize=50))
    print(f"{len(jobs)} damaged files; the slowest took {max(seconds):.2f} s.\n")
    print("| outcome | files |\n|---|---|")
    for outcome, n in collections.Counter(outcomes).most_common(12):
        print(f"| {outcome} | {n} |")


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", None, "Folder of MIDI files.", required=True)
    flags.DEFINE_integer("files", 10_000, "Number of damaged files to read.")
    app.run(main)
