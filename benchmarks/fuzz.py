"""The MIDI reader against mutated real files: `python -m benchmarks.fuzz --midi_dir=DIR`. Prints Markdown.

Each file is damaged by a few random edits. The reader must give a sound Piece or one line that says why not.
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
    """Damages a file: bytes changed, cut out, doubled or made high, or its end cut off."""
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


def assert_sound(piece: Piece) -> None:
    """What every Piece must hold, however odd its file."""
    events = piece.events
    assert np.isfinite(events["time_s"]).all() and (np.diff(events["time_s"]) >= 0).all()
    assert (events["end_s"] >= events["time_s"]).all() and (events["end_s"] <= piece.duration_s).all()
    assert (events["kind"] == NOTE_ON).any() and events["channel"].max() < 16 and events["number"].max() < 128


def read(job: tuple[str, int]) -> tuple[str, float]:
    """(what became of one mutated file, seconds that it took)."""
    path, seed = job
    data = mutate(pathlib.Path(path).read_bytes(), np.random.default_rng(seed))
    began_s = time.perf_counter()
    try:
        assert_sound(parse_midi(data, "file"))
        outcome = "read"
    except InputError as error:
        outcome = re.sub(r"\d+|0x\w+", "N", str(error).removeprefix("file: "))
    return outcome, time.perf_counter() - began_s


def main(_) -> None:
    """Reads them all and prints what became of them; any other exception ends it."""
    paths = sorted(map(str, pathlib.Path(flags.FLAGS.midi_dir).rglob("*.mid")))
    jobs = [(paths[seed % len(paths)], seed) for seed in range(flags.FLAGS.files)]
    with concurrent.futures.ProcessPoolExecutor() as executor:
        outcomes, seconds = zip(*executor.map(read, jobs, chunksize=50))
    print(f"{len(jobs)} mutated files; the slowest took {max(seconds):.2f} s.\n")
    print("| what became of them | files |\n|---|---|")
    for outcome, n in collections.Counter(outcomes).most_common(12):
        print(f"| {outcome} | {n} |")


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", "../shared/midi", "Folder of MIDI files.")
    flags.DEFINE_integer("files", 10_000, "Mutated files to read.")
    app.run(main)
