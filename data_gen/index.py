"""The index of a folder of MIDI files: what each file holds, kept in the user's cache folder with its events.

A second start reads no MIDI. Files that hold the same music (also transposed, at another tempo, or slightly edited)
belong to one song.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import platformdirs
from absl import logging
from tqdm import tqdm

from data_gen import InputError, midi
from data_gen.files import replacing, walk, write_atomically
from data_gen.instruments import DRUM_BANK, Instrument
from data_gen.songs import music_signature, name_songs

INDEX_VERSION = 2  # raise it when the reader or the index changes: older caches are then read again
MIN_FILES_FOR_PROCESSES = 50  # below it, starting processes takes longer than reading the files


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the index holds about one file.

    Attributes:
        path: relative to the folder.
        size, mtime_ns: size in bytes and time of change when the file was read; the entry is stale if they differ.
        error: why the file cannot be used, or "".
        digest: hash of the file, under which its events are stored.
        duration_s: in seconds.
        notes: "bank:program" with bank 0, or 128 for drums -> number of notes and their summed length in seconds.
        signature: from `songs.music_signature`; the share of equal entries measures how alike two files are.
        song: number of the song; files of the same music share it.
    """

    path: str
    size: int
    mtime_ns: int
    error: str = ""
    digest: str = ""
    duration_s: float = 0.0
    notes: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    signature: tuple[int, ...] = ()
    song: int = 0

    def holds(self, instrument: Instrument) -> bool:
        """Returns whether any note belongs to the instrument."""
        return any(instrument.plays(*map(int, key.split(":"))) for key in self.notes)


def scan(midi_dir: str, progress: bool = True) -> list[Entry]:
    """Reads a folder of MIDI files recursively; files that have not changed since the last time come from the cache.

    Returns:
        One Entry per file, sorted by path.

    Raises:
        InputError: the folder is missing or holds no file named *.mid, *.midi, *.kar or *.rmi.
    """
    root = pathlib.Path(midi_dir)
    if not root.is_dir():
        raise InputError(f"--midi_dir={midi_dir}: no such folder")
    found = {}
    for folder, _, files in walk(root):
        for file in files:
            if file.lower().endswith(midi.SUFFIXES):
                path = os.path.join(folder, file)
                try:
                    stat = os.stat(path)
                except OSError:
                    continue  # a link to nowhere, or a file just deleted
                found[os.path.relpath(path, root)] = (stat.st_size, stat.st_mtime_ns)
    if not found:
        raise InputError(f"--midi_dir={midi_dir}: holds no MIDI file (*.mid, *.midi, *.kar, *.rmi)")

    index_path = cache_dir() / f"index-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"
    known = {entry.path: entry for entry in _read_index(index_path)}
    fresh = {path: e for path, e in known.items() if found.get(path) == (e.size, e.mtime_ns)}
    todo = sorted(set(found) - set(fresh))
    if todo:
        for entry in _examine_all(root, todo, found, progress):
            fresh[entry.path] = entry
        readable = [entry for entry in fresh.values() if not entry.error]
        songs = name_songs([entry.signature for entry in readable], [entry.song for entry in readable])
        fresh.update({entry.path: dataclasses.replace(entry, song=song) for entry, song in zip(readable, songs)})
        entries = [fresh[path] for path in sorted(fresh)]
        _write_index(index_path, entries)
        return entries
    return [fresh[path] for path in sorted(fresh)]


def _examine_all(root: pathlib.Path, paths: list[str], found: dict, progress: bool) -> Iterable[Entry]:
    """Reads files, on all cores if there are many."""
    jobs = [(str(root / path), path, *found[path]) for path in paths]
    bar = functools.partial(tqdm, total=len(jobs), desc="reading MIDI", unit="file", disable=not progress)
    if len(jobs) < MIN_FILES_FOR_PROCESSES:
        yield from bar(map(_examine, jobs))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context) as executor:
        yield from bar(executor.map(_examine, jobs, chunksize=16))


def _examine(job: tuple[str, str, int, int]) -> Entry:
    """Reads one file, stores its events and returns its Entry."""
    full_path, path, size, mtime_ns = job
    try:
        data = pathlib.Path(full_path).read_bytes()
        piece = midi.parse_midi(data, full_path)
    except InputError as error:
        return Entry(path, size, mtime_ns, error=str(error))
    except OSError as error:
        return Entry(path, size, mtime_ns, error=f"{full_path}: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()[:32]
    _store(digest, piece)
    notes = piece.notes
    banks = np.where(notes["bank"] == DRUM_BANK, DRUM_BANK, 0)
    voices, voice = np.unique(banks * 128 + notes["program"], return_inverse=True)
    counts, lengths_s = np.bincount(voice), np.bincount(voice, notes["end_s"] - notes["time_s"])
    usage = zip(voices.tolist(), counts.tolist(), lengths_s.tolist())
    return Entry(
        path,
        size,
        mtime_ns,
        digest=digest,
        duration_s=piece.duration_s,
        notes={f"{key // 128}:{key % 128}": (count, round(length_s, 3)) for key, count, length_s in usage},
        signature=music_signature(piece),
    )


def cache_dir() -> pathlib.Path:
    """Returns the folder of the cache, which may not be there and may not be writable."""
    return pathlib.Path(platformdirs.user_cache_dir("sourcesep", appauthor=False))


def _write_index(path: pathlib.Path, entries: list[Entry]) -> None:
    """Writes the index, which only saves time: an error is logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps([INDEX_VERSION, [dataclasses.astuple(entry) for entry in entries]]).encode())
    except OSError as error:
        logging.warning(
            "%s: cannot be written to (%s), so MIDI files are read again each time; make room, change its permissions, "
            "or set XDG_CACHE_HOME",
            path.parent,
            error.strerror,
        )


def _read_index(path: pathlib.Path) -> list[Entry]:
    try:
        version, rows = json.loads(path.read_text())
        return [_entry(*row) for row in rows] if version == INDEX_VERSION else []
    except (OSError, ValueError, TypeError, AttributeError):
        return []  # missing, of another version, or damaged: the folder is read again


def _entry(*values: Any) -> Entry:
    """Makes an Entry of its fields as JSON keeps them, with lists for tuples."""
    entry = Entry(*values)
    notes = {key: (count, length_s) for key, (count, length_s) in entry.notes.items()}
    return dataclasses.replace(entry, notes=notes, signature=tuple(entry.signature))


def _piece_path(digest: str) -> pathlib.Path:
    return cache_dir() / f"events-{INDEX_VERSION}" / digest[:2] / f"{digest}.npz"


def _store(digest: str, piece: midi.Piece) -> None:
    path = _piece_path(digest)
    with contextlib.suppress(OSError):  # `scan` says when the cache cannot be written to
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                # As np.savez_compressed does, at the level of compression that takes half the time.
                with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                    with archive.open("events.npy", "w") as file:
                        np.lib.format.write_array(file, piece.events)


@functools.lru_cache(maxsize=256)
def load_piece(digest: str, path: str) -> midi.Piece:
    """Returns the piece of a file: from the cache, or read again where that is damaged.

    Args:
        digest: of the file, from its Entry.
        path: of the file.

    Raises InputError if it is in neither place any more.
    """
    try:
        with np.load(_piece_path(digest)) as stored:
            events = stored["events"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return midi.read_midi(path)
    return midi.Piece(path, events, float(events["time_s"][-1]))
