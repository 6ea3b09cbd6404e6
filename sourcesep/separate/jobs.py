"""Separates many recordings, in this process or in several; one that fails does not stop the others."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from data_gen import InputError, RenderError
from data_gen.processes import CONTEXT, ProcessPool
from sourcesep.config import Config
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import Input, MidiPlayer, SoundFile
from sourcesep.separate.separate_one import Separated, separate_one
from sourcesep.separate.separation import Separator
from sourcesep.separate.tracks import Failure, Track

REPORT_S = 0.2  # time between two reports of the progress of processes, in seconds


def separate_tracks(
    tracks: Sequence[Track],
    load: Callable[[], Separator],
    config: Config | None,
    plan: FilePlan,
    jobs: int = 1,
    report: Callable[[float], None] = lambda _: None,
) -> Iterator[Separated | Failure]:
    """Separates recordings one after the other, or side by side in processes.

    Args:
        tracks: what to separate.
        load: makes the Separator; a function that can be pickled, since each process loads the model once.
        config: of the run, with whose instruments MIDI files are played; None without a run and MIDI files.
        plan: which files are written.
        jobs: number of processes; 1 works in this one.
        report: called again and again with the seconds of audio done since the last call, `length_s` in all for each
            track where this is known. A KeyboardInterrupt that it raises stops the work; recordings that are not
            complete leave nothing.

    Yields:
        For each recording, in the order in which they end, what was written or why nothing was.

    Raises InputError if the model cannot be loaded.
    """
    jobs = min(jobs, len(tracks))
    worker = TrackWorker(load, config, plan)
    if jobs > 1:
        yield from _separate_in_processes(tracks, worker, jobs, report)
    else:
        for track in tracks:
            yield worker.separate(track, report)


class TrackWorker:
    """Separates tracks with a model that is loaded for the first of them. Arguments are those of `separate_tracks`."""

    def __init__(self, load: Callable[[], Separator], config: Config | None, plan: FilePlan):
        self._load, self._config, self._plan = load, config, plan
        self._separator: Separator | None = None
        self._player: MidiPlayer | None = None

    def separate(self, track: Track, report: Callable[[float], None]) -> Separated | Failure:
        """Separates a track; what goes wrong with it is a Failure. Raises InputError if the model cannot be loaded."""
        if self._separator is None:
            self._separator = self._load()
        reported_s = 0.0

        def report_up_to_length(seconds: float) -> None:
            nonlocal reported_s
            if track.length_s:
                seconds = min(seconds, track.length_s - reported_s)  # its length is an estimate
            reported_s += seconds
            report(seconds)

        blind = self._config is not None and self._config.blind
        try:
            recording = self._open(track, self._separator.stem_names)
            result: Separated | Failure = separate_one(
                self._separator, recording, self._plan, track.name, report_up_to_length, blind
            )
        except (InputError, RenderError) as error:
            reason = str(error) if track.path in str(error) else f"{track.path}: {error}"
            result = Failure(track.path, reason)
        report(max(0.0, track.length_s - reported_s))
        return result

    def _open(self, track: Track, stem_names: tuple[str, ...]) -> Input:
        if not track.is_midi:
            return SoundFile(track.path)
        if self._player is None:
            if self._config is None:
                raise InputError("MIDI files need a run, with whose instruments they are played")
            self._player = MidiPlayer(self._config, stem_names)
        return self._player.play(track.path)


class _Progress:
    """How far a process is with its track, in memory that it shares with the process that started it.

    Attributes:
        done_s: seconds of audio done since the process started; only written by the process.
        is_stopped: whether it has to stop; only written by the one that started it.
    """

    def __init__(self) -> None:
        self.done_s = CONTEXT.RawValue(ctypes.c_double, 0.0)
        self.is_stopped = CONTEXT.RawValue(ctypes.c_bool, False)

    def report(self, seconds: float) -> None:
        """Adds seconds of audio; raises KeyboardInterrupt if the process has to stop."""
        self.done_s.value += seconds
        if self.is_stopped.value:
            raise KeyboardInterrupt


class _Shared:
    """What each process receives as it starts."""

    def __init__(self, worker: TrackWorker, progress: _Progress, n_threads: int):
        self.worker, self.progress, self.n_threads = worker, progress, n_threads


class _Process:
    """Separates one track at a time in a process, which is replaced when it dies: this costs no other track."""

    def __init__(self, worker: TrackWorker, n_threads: int):
        self._worker, self._n_threads = worker, n_threads
        self._start()

    def _start(self) -> None:
        self._progress, self._reported_s = _Progress(), 0.0
        self._pool = ProcessPool(1, _Shared(self._worker, self._progress, self._n_threads), _share_the_machine)

    def submit(self, track: Track) -> concurrent.futures.Future[Separated | Failure]:
        """Begins with a track."""
        self._track, self._began_s = track, self._reported_s
        return self._pool.submit(_separate, track)

    def progress_s(self) -> float:
        """Returns the seconds of audio done since the last call."""
        seconds = self._progress.done_s.value - self._reported_s
        self._reported_s += seconds
        return seconds

    def result(
        self, future: concurrent.futures.Future[Separated | Failure], report: Callable[[float], None]
    ) -> Separated | Failure:
        """Returns what came of the track. Raises InputError if the model cannot be loaded."""
        try:
            return future.result()
        except BrokenProcessPool:
            report(max(0.0, self._began_s + self._track.length_s - self._reported_s))
            self._pool.kill()
            self._start()
            path = self._track.path
            return Failure(
                path, f"{path}: its process died; if memory ran out, take fewer --jobs or a shorter --window_s"
            )

    def stop(self) -> None:
        """Tells the process to stop at the next block."""
        self._progress.is_stopped.value = True

    def shut_down(self) -> None:
        """Waits until the process has ended."""
        self._pool.shut_down()


def _separate_in_processes(
    tracks: Sequence[Track], worker: TrackWorker, jobs: int, report: Callable[[float], None]
) -> Iterator[Separated | Failure]:
    n_threads = max(1, (os.cpu_count() or 1) // jobs)
    processes = [_Process(worker, n_threads) for _ in range(jobs)]
    idle, waiting = list(processes), list(reversed(tracks))
    running: dict[concurrent.futures.Future[Separated | Failure], _Process] = {}
    try:
        while waiting or running:
            while waiting and idle:
                process = idle.pop()
                running[process.submit(waiting.pop())] = process
            done, _ = concurrent.futures.wait(running, REPORT_S, concurrent.futures.FIRST_COMPLETED)
            report(sum(process.progress_s() for process in processes))
            for future in done:
                process = running.pop(future)
                idle.append(process)
                yield process.result(future, report)
    finally:
        for process in processes:
            process.stop()
        for process in processes:
            process.shut_down()


def _share_the_machine(shared: _Shared) -> None:
    """Runs first in each process. TensorFlow, if the model needs it, reads these when it starts."""
    os.environ.update(
        TF_NUM_INTRAOP_THREADS=str(shared.n_threads),
        TF_NUM_INTEROP_THREADS=str(shared.n_threads),
        TF_FORCE_GPU_ALLOW_GROWTH="true",
    )


def _separate(shared: _Shared, track: Track) -> Separated | Failure:
    return shared.worker.separate(track, shared.progress.report)
