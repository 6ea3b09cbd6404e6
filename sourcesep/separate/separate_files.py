"""Many recordings: which files there are to separate, and separating them, in processes, past those that fail."""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_gen import InputError, audio
from data_gen.midi import SUFFIXES as MIDI_SUFFIXES
from data_gen.midi import read_midi
from sourcesep.config import Config
from sourcesep.separate.blind import Finder
from sourcesep.separate.outputs import Outputs, Separated
from sourcesep.separate.stem_writer import StemWriter

SOUND_SUFFIXES = tuple(
    ".aif .aifc .aiff .au .avr .caf .flac .htk .ircam .mp3 .mpc .nist .oga .ogg .opus .paf .pvf .rf64 .sds .sf .snd "
    ".svx .voc .w64 .wav .wave .wve .xi".split()
)


class Track(NamedTuple):
    """A recording to separate: its file, its name in the paths of its stems, its length in seconds."""

    path: str
    name: str
    length_s: float


class Failure(NamedTuple):
    """A file or folder that gave no stems, and why, in one line that names it."""

    path: str
    reason: str


def find_tracks(paths: Sequence[str], output_dir: str) -> tuple[list[Track], list[Failure]]:
    """Looks into folders, recursively, and into the headers of files.

    A file that is named lends its name to the track, one found in a folder its path from there on. What lies hidden or
    in the output folder is passed over, and what is named twice is taken once.
    """
    tracks, failures, seen = [], [], set()
    for path in paths:
        found = _in_folder(path, output_dir) if os.path.isdir(path) else [(path, pathlib.Path(path).stem)]
        if not found:
            failures.append(Failure(path, f"{path}: holds no sound file"))
        for file, name in found:
            if os.path.realpath(file) in seen:
                continue
            seen.add(os.path.realpath(file))
            try:
                tracks.append(Track(file, name, _length_s(file)))
            except InputError as error:
                failures.append(Failure(file, str(error)))
    return tracks, failures


def check_paths(tracks: Sequence[Track], output_dir: str, outputs: Outputs, instruments: Sequence[str]) -> None:
    """Finds out beforehand what would go wrong in writing.

    Raises InputError if two files would get the same path, or one that of a recording that is read, or if the output
    folder cannot be written in.
    """
    existing = pathlib.Path(output_dir).absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--output_dir={output_dir}: {existing} is no folder that can be written in")
    sources = {os.path.realpath(track.path): track.path for track in tracks}
    owners: dict[str, str] = {}
    for track in tracks:
        for path in outputs.paths(output_dir, track.name, outputs.names(instruments)):
            real = os.path.realpath(path)
            if real in sources:
                raise InputError(f"{path}: would be written over {sources[real]}; change --output_dir or --filename")
            if real in owners:
                raise InputError(
                    f"{owners[real]} and {track.path} would both be written to {path}; rename one, "
                    "separate them into two folders, or put {track} into --filename"
                )
            owners[real] = track.path


def separate_tracks(
    tracks: Sequence[Track],
    load: Callable,
    config: Config | None,
    output_dir: str,
    outputs: Outputs,
    jobs: int = 1,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Separated | Failure]:
    """Separates recordings one after the other, or in processes, under one progress bar.

    Args:
        tracks: what to separate.
        load: makes the Separator; a function that can be pickled, since each process loads the model once.
        config: of the run, which MIDI files are played with; None where there is no run, and no MIDI file.
        output_dir: folder for the stems.
        outputs: what is written there.
        jobs: number of processes; 1 works in this one.
        is_stopped: asked again and again, whether to stop.

    Yields:
        For each recording, in the order in which they are done, what was written or why nothing was.

    Raises InputError if the model cannot be loaded, KeyboardInterrupt when it is to stop.
    """
    jobs = min(jobs, len(tracks))
    total_s = sum(track.length_s for track in tracks)
    columns = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}, {rate_fmt}]"
    with tqdm(total=total_s, unit="s", desc="separating", bar_format=columns, dynamic_ncols=True, leave=False) as bar:
        if jobs > 1:
            worker = _Worker(load, config, output_dir, outputs)
            yield from _in_processes(tracks, worker, jobs, bar.update, is_stopped)
        elif tracks:

            def report(seconds: float) -> None:
                bar.update(seconds)
                if is_stopped():
                    raise KeyboardInterrupt

            worker = _Worker(load, config, output_dir, outputs)
            for track in tracks:
                yield worker.separate(track, report)


def separate_file(
    separator,
    path: str,
    output_dir: str,
    outputs: Outputs | None = None,
    track: str | None = None,
    report: Callable[[float], None] | None = None,
    blind: bool = False,
) -> Separated:
    """Splits a sound file into files of its length, rate and channels.

    Args:
        separator: a Separator.
        path: of the sound file.
        output_dir: folder for the stems.
        outputs: what is written; by default a float WAV file for each instrument, OUTPUT_DIR/NAME/INSTRUMENT.wav.
        track: name of the recording in the paths; by default that of the file.
        report: called with the seconds of audio that were done since the last call.
        blind: whether only the stems of the instruments that are found in the recording are written.

    Raises InputError if the file cannot be read, or the stems not be written.
    """
    outputs = outputs or Outputs()
    names = outputs.names(separator.instruments)
    paths = outputs.paths(output_dir, track or pathlib.Path(path).stem, names)
    with audio.open_audio(path) as file:
        rate = file.samplerate
        writer = StemWriter(paths, rate, file.channels, outputs.encoding, file.frames)
        finder = Finder(separator.instruments, rate)
        with writer:
            for mixture, stems in _with_mixture(separator, audio.read_blocks(file), rate):
                finder.hear(mixture, stems)
                writer.write(outputs.select(mixture, stems, separator.instruments))
                if report:
                    report(len(mixture) / rate)
            if blind:
                writer.paths_kept = outputs.found(paths, names, separator.instruments, finder.found())
        notes = writer.notes()
        if blind:
            notes.insert(0, finder.note())
        if audio.is_cut_off(file):
            notes.insert(
                0, f"{path} is cut off, says its header; the {file.tell() / rate:.1f} s that are there were used"
            )
    return outputs.written(writer.paths_kept, {}, notes)


def _with_mixture(separator, blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (mixture [time, channel], stems [time, channel, instrument]) of the same samples."""
    waiting: collections.deque[np.ndarray] = collections.deque()

    def kept():
        for block in blocks:
            waiting.append(block)
            yield block

    for stems in separator.stream(kept(), rate):
        while len(stems):
            mixture = waiting.popleft()
            if len(mixture) > len(stems):
                waiting.appendleft(mixture[len(stems) :])
                mixture = mixture[: len(stems)]
            yield mixture, stems[: len(mixture)]
            stems = stems[len(mixture) :]


def _in_folder(folder: str, output_dir: str) -> list[tuple[str, str]]:
    """(path, name of the track) of every sound file below a folder."""
    found = []
    skipped = os.path.realpath(output_dir)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and os.path.realpath(os.path.join(place, name)) != skipped
        )
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(SOUND_SUFFIXES):
                path = os.path.join(place, name)
                found.append((path, str(pathlib.PurePath(os.path.relpath(path, folder)).with_suffix(""))))
    return found


def _length_s(path: str) -> float:
    if path.lower().endswith(MIDI_SUFFIXES):
        return read_midi(path).duration_s
    with audio.open_audio(path) as file:
        return file.frames / file.samplerate if file.frames < 2**62 else 0.0  # unknown to libsndfile


class _Worker:
    """Separates tracks with a model that is loaded when the first one comes."""

    def __init__(self, load: Callable, config: Config | None, output_dir: str, outputs: Outputs):
        self._load, self._config, self._output_dir, self._outputs = load, config, output_dir, outputs
        self._separator = None

    def separate(self, track: Track, report: Callable[[float], None]) -> Separated | Failure:
        """Raises InputError if the model cannot be loaded; what goes wrong with the track is a Failure."""
        self._separator = self._separator or self._load()
        reported_s = 0.0

        def reported(seconds: float) -> None:
            nonlocal reported_s
            seconds = min(seconds, track.length_s - reported_s)  # played MIDI fades out after its end
            reported_s += seconds
            report(seconds)

        rest = (self._output_dir, self._outputs, track.name, reported)
        try:
            if track.path.lower().endswith(MIDI_SUFFIXES):
                from sourcesep.separate.separate_pieces import (
                    separate_midi,  # needs FluidSynth, which sound files do not
                )

                return separate_midi(self._separator, self._config, track.path, *rest)
            return separate_file(
                self._separator, track.path, *rest, blind=self._config is not None and self._config.blind
            )
        except InputError as error:
            reason = str(error) if track.path in str(error) else f"{track.path}: {error}"
            return Failure(track.path, reason)
        finally:
            report(track.length_s - reported_s)


class _Process:
    """Separates one track at a time in a process, which is replaced when it dies: no other track pays for it."""

    def __init__(self, worker: _Worker, threads: int):
        self._worker, self._threads = worker, threads
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
        self._seconds = context.Queue()
        arguments = (self._worker, self._seconds, self._threads)
        self._pool = concurrent.futures.ProcessPoolExecutor(1, context, _begin, arguments)

    def submit(self, track: Track) -> concurrent.futures.Future:
        """Begins with a track."""
        self._track, self._left_s = track, track.length_s
        return self._pool.submit(_separate, track)

    def progress(self) -> float:
        """Seconds of audio done since the last call."""
        done_s = 0.0
        while not self._seconds.empty():
            done_s += self._seconds.get()
        self._left_s -= done_s
        return done_s

    def result(self, future: concurrent.futures.Future, report: Callable[[float], None]) -> Separated | Failure:
        """What came of the track. Raises InputError if the model cannot be loaded."""
        try:
            return future.result()
        except BrokenProcessPool:
            report(self.progress() + self._left_s)
            self.shutdown()
            self._start()
            path = self._track.path
            return Failure(
                path, f"{path}: its process died; if memory ran out, take fewer --jobs or a shorter --window_s"
            )

    def shutdown(self) -> None:
        """Waits for the track that is being separated, and ends."""
        self._pool.shutdown(cancel_futures=True)


def _in_processes(
    tracks: Sequence[Track],
    worker: _Worker,
    jobs: int,
    report: Callable[[float], None],
    is_stopped: Callable[[], bool],
) -> Iterator[Separated | Failure]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    processes = [_Process(worker, threads) for _ in range(jobs)]
    idle, waiting = list(processes), list(reversed(tracks))
    running: dict[concurrent.futures.Future, _Process] = {}
    try:
        while waiting or running:
            if is_stopped():
                raise KeyboardInterrupt
            while waiting and idle:  # nothing is queued, so that an interrupt leaves nothing behind
                process = idle.pop()
                running[process.submit(waiting.pop())] = process
            done, _ = concurrent.futures.wait(running, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED)
            for process in processes:
                report(process.progress())
            for future in done:
                process = running.pop(future)
                idle.append(process)
                yield process.result(future, report)
    finally:
        for process in processes:
            process.shutdown()


_worker: _Worker | None = None
_report: Callable[[float], None] | None = None


def _begin(worker: _Worker, seconds: multiprocessing.Queue, threads: int) -> None:
    """Runs first in each process."""
    global _worker, _report
    _worker, _report = worker, seconds.put
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (multiprocessing.connection.wait([parent]), os._exit(1)), daemon=True).start()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):  # which the processes share
        tf.config.experimental.set_memory_growth(gpu, True)


def _separate(track: Track) -> Separated | Failure:
    return _worker.separate(track, _report)
