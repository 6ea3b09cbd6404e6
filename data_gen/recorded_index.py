"""The index of recorded songs: what their files hold, kept in the user's cache folder.

A song is examined by windows spread over it: whether its files can be read, which are silent, what it sounds like. A
second start reads no sound.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from data_gen import InputError
from data_gen.files import write_atomically
from data_gen.fingerprint import RATE_HZ, fingerprint
from data_gen.index import cache_dir
from data_gen.layouts import RecordedSong
from data_gen.recorded_take import RecordedTake
from data_gen.stems import SILENCE_DBFS
from data_gen.windows import StemFile, open_stem

INDEX_VERSION = 1  # raise it when what is examined changes: older indexes are then made again
MIN_SONGS_FOR_PROCESSES = 10  # below it, starting processes takes longer than examining the songs
MIXTURE_DB = -20.0  # a mixture that differs by more than this from the sum of the stems is told

_LENGTHS_S = 0.1  # stems whose lengths differ by less are not told


@dataclasses.dataclass(frozen=True)
class Examined:
    """What the index holds about a song.

    Attributes:
        stamps: (path, size in bytes, time of change in ns) of each of its files; it is stale if they differ.
        files: its stems, in the order of `RecordedSong.places`.
        is_silent: for each of them, whether it is.
        signature: from `fingerprint.fingerprint`.
        notes: what the user should know, in words.
        problem: why it cannot be used, or "".
    """

    stamps: tuple[tuple[str, int, int], ...]
    files: tuple[StemFile, ...] = ()
    is_silent: tuple[bool, ...] = ()
    signature: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


def examine_songs(
    folder: str, songs: Sequence[RecordedSong], progress: bool = True
) -> list[tuple[RecordedSong, Examined]]:
    """Examines songs of a folder; those that have not changed since the last time come from the index."""
    root = pathlib.Path(folder).resolve()
    path = cache_dir() / f"stems-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known = _read_index(path)
    fresh: dict[str, Examined] = {}
    todo = []
    for song in songs:
        stamps = _stamps(song)
        before = known.get(song.name)
        if song.problem:
            fresh[song.name] = Examined((), problem=song.problem)
        elif before and before.stamps == stamps:
            fresh[song.name] = before
        else:
            todo.append((song, stamps))
    if todo:
        for (song, _), examined in zip(todo, _examine_all(todo, progress)):
            fresh[song.name] = examined
        _write_index(path, {**known, **fresh})
    return [(song, fresh[song.name]) for song in songs]


def _stamps(song: RecordedSong) -> tuple[tuple[str, int, int], ...]:
    stamps = []
    for place in (*song.places, *([song.mixture] if song.mixture else [])):
        try:
            status = os.stat(place.path)
            stamps.append((str(place.path), status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((str(place.path), -1, 0))
    return tuple(stamps)


def _examine_all(jobs: Sequence[tuple[RecordedSong, tuple]], progress: bool) -> Iterable[Examined]:
    """Examines songs, on all cores if there are many."""
    bar = functools.partial(tqdm, total=len(jobs), desc="reading stems", unit="song", disable=not progress)
    if len(jobs) < MIN_SONGS_FOR_PROCESSES:
        yield from bar(map(_examine, jobs))
        return
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as executor:
        yield from bar(executor.map(_examine, jobs))


def _examine(job: tuple[RecordedSong, tuple[tuple[str, int, int], ...]]) -> Examined:
    """Examines one song."""
    song, stamps = job
    try:
        return _examine_song(song, stamps)
    except InputError as error:
        return Examined(stamps, problem=str(error))
    except OSError as error:
        return Examined(stamps, problem=f"{song.folder}: cannot be read ({error.strerror or error})")


def _examine_song(song: RecordedSong, stamps: tuple[tuple[str, int, int], ...]) -> Examined:
    files = tuple(open_stem(place.path, place.track) for place in song.places)
    mixture = open_stem(song.mixture.path, song.mixture.track) if song.mixture else None
    for file in files:
        if file.may_hold_nan:
            for begin in range(0, file.n_samples, 1 << 20):
                file.read(begin, begin + (1 << 20))  # raises InputError for samples that are not finite
    rows = [(file,) for file in files] + ([(mixture,)] if mixture else [])
    take = RecordedTake(song.name, rows, RATE_HZ)
    energies = np.zeros(len(files))
    differences = np.zeros(2)  # energies of the mixture minus the sum of the stems, and of the mixture
    n_read = 0

    def read(start: int, n_samples: int) -> np.ndarray:
        nonlocal energies, differences, n_read
        stems = take.stems(start, n_samples)[:, 0]
        total = stems[: len(files)].sum(axis=0)
        energies += np.square(stems[: len(files)]).sum(axis=1)
        n_read += n_samples
        if mixture:
            differences += np.square([stems[-1] - total, stems[-1]]).sum(axis=1)
        return total

    signature = fingerprint(read, take.n_samples)
    is_quiet = energies <= n_read * 10 ** (SILENCE_DBFS / 10)
    is_silent = tuple(bool(quiet) and _is_silent(file) for quiet, file in zip(is_quiet, files))
    return Examined(stamps, files, is_silent, signature, tuple(_notes(song, files, is_silent, differences)))


def _is_silent(file: StemFile) -> bool:
    """Returns whether a whole file is silent: no second of it is above SILENCE_DBFS."""
    for begin in range(0, file.n_samples, 60 * file.sample_rate):
        samples = file.read(begin, begin + 60 * file.sample_rate, mono=True)[:, 0]
        for start in range(0, len(samples), file.sample_rate):
            if np.mean(np.square(samples[start : start + file.sample_rate])) > 10 ** (SILENCE_DBFS / 10):
                return False
    return True


def _notes(
    song: RecordedSong, files: Sequence[StemFile], is_silent: Sequence[bool], differences: np.ndarray
) -> Iterable[str]:
    """Yields what the user should know about a song."""
    rates = sorted({file.sample_rate for file in files})
    if len(rates) > 1:
        yield f"{song.folder}: its stems have rates of {', '.join(map(str, rates))} Hz; all are resampled to one"
    lengths_s = [file.n_samples / file.sample_rate for file in files]
    if max(lengths_s) - min(lengths_s) > _LENGTHS_S:
        yield (
            f"{song.folder}: its stems have lengths of {min(lengths_s):.1f} to {max(lengths_s):.1f} s; the shorter "
            "ones end in silence"
        )
    for place, silent in zip(song.places, is_silent):
        if silent:
            track = f", track {place.track}" if place.track else ""
            yield f"{place.path}{track}: is silent"
    if song.mixture and differences[0] > differences[1] * 10 ** (MIXTURE_DB / 10):
        level_db = 10 * np.log10(differences[0] / max(differences[1], 1e-20))
        yield (
            f"{song.mixture.path}: is not the sum of the stems: the difference is {level_db:.1f} dB relative to it; "
            "the sum is used as the mixture"
        )


def _write_index(path: pathlib.Path, examined: Mapping[str, Examined]) -> None:
    """Writes the index, which only saves time: an error is logged."""
    rows = {name: dataclasses.astuple(one) for name, one in examined.items() if one.stamps}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps([INDEX_VERSION, rows]).encode())
    except OSError as error:
        logging.warning(
            "%s: cannot be written to (%s), so stems are examined again each time; make room, change its permissions, "
            "or set XDG_CACHE_HOME",
            path.parent,
            error.strerror,
        )


def _read_index(path: pathlib.Path) -> dict[str, Examined]:
    try:
        version, rows = json.loads(path.read_text())
        return {name: _examined(*row) for name, row in rows.items()} if version == INDEX_VERSION else {}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # missing, of another version, or damaged: songs are examined again


def _examined(stamps: Any, files: Any, is_silent: Any, signature: Any, notes: Any, problem: str) -> Examined:
    """Makes an Examined of its fields as JSON keeps them, with lists for tuples."""
    return Examined(
        tuple((path, size, time_ns) for path, size, time_ns in stamps),
        tuple(StemFile(*file) for file in files),
        tuple(is_silent),
        tuple(signature),
        tuple(notes),
        problem,
    )
