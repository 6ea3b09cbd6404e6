"""Makes visits in supervised processes -> an endless iterator of visits, in order.

When a process dies, all are replaced and what they were working on is asked for again; a visit that fails is logged and
left out; training ends only when no visit succeeds any more.
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from absl import logging

from data_gen import InputError, RenderError
from data_gen.chunks import Chunker, Visit
from data_gen.processes import ProcessPool

AHEAD = 3  # visits asked for beyond the one awaited, for each process
MAX_TRIES = 3  # a visit during which the processes died this often is left out
MAX_VISIT_S = 120.0  # a visit takes well under a second; one that takes this long hangs
MAX_FAILURES = 50  # visits in a row without a chunk, after which training ends


class Visits(abc.ABC):
    """Iterates over the visits of a chunker, from `first_visit` on.

    Use it as a context manager: leaving it ends what works for it. `next()` raises InputError when many visits in a row
    gave nothing.

    Attributes:
        chunker: makes the visits.
        next_visit: number of the visit that comes next; it may be set until the first is taken. Another iterator that
            starts there continues where this one stopped.
        lost: number of visits left out because they failed.
    """

    def __init__(self, chunker: Chunker, first_visit: int = 0):
        self.chunker = chunker
        self.next_visit = first_visit
        self.lost = 0
        self._logged_reasons: set[str] = set()
        self._closed = False

    def __enter__(self) -> Visits:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Visit]:
        return self

    def __next__(self) -> Visit:
        failures = 0
        reason = "every chunk was silent or had one instrument playing alone"
        while not self._closed:
            try:
                visit = self._take_visit()
                if len(visit.starts_s):
                    return visit
            except (RenderError, InputError, OSError, MemoryError, BrokenProcessPool) as error:
                if self._closed:  # by another thread, which ended the processes
                    break
                reason = str(error) or repr(error)
                self.lost += 1
                if reason not in self._logged_reasons:
                    self._logged_reasons.add(reason)
                    logging.warning("a visit is left out: %s", reason)
            failures += 1
            if failures == MAX_FAILURES:
                raise InputError(f"no training data: {failures} visits in a row gave no chunk; the last: {reason}")
        raise StopIteration

    @property
    @abc.abstractmethod
    def ready_share(self) -> float:
        """Share of the visits asked for that are finished and wait to be taken, 0 to 1."""

    @abc.abstractmethod
    def start(self) -> None:
        """Starts what makes the visits, which loads SoundFonts while the caller does something else."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends it at once. May be called again, and from another thread."""

    @abc.abstractmethod
    def _take_visit(self) -> Visit:
        """Returns visit number `next_visit`, or raises what it ended in, and counts `next_visit` up."""


class Workers(Visits):
    """Visits made by processes of this machine; with `n_workers` = 0, in this process."""

    def __init__(self, chunker: Chunker, n_workers: int, first_visit: int = 0):
        super().__init__(chunker, first_visit)
        self.n_workers = n_workers
        self._pending: collections.deque[tuple[int, concurrent.futures.Future]] = collections.deque()
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()  # the thread that reads may start processes while another closes

    @property
    def ready_share(self) -> float:
        """Share of the visits asked for that are finished, 0 to 1."""
        pending = list(self._pending)
        return sum(future.done() for _, future in pending) / max(1, len(pending))

    def start(self) -> None:
        """Starts the processes, which load the SoundFonts; visits are asked for later."""
        with self._lock:
            if self.n_workers and not self._closed:
                pool = self._start_pool()
                for _ in range(self.n_workers):
                    pool.submit(_prepare)

    def close(self) -> None:
        """Ends the processes at once."""
        with self._lock:
            self._closed = True
        self._end_processes()

    def _take_visit(self) -> Visit:
        index = self.next_visit
        if not self.n_workers:
            self.next_visit += 1
            return self.chunker.visit(index)
        for _ in range(MAX_TRIES):
            try:
                self._ask_ahead()
                visit = self._pending[0][1].result(MAX_VISIT_S)
            except (BrokenProcessPool, concurrent.futures.TimeoutError) as error:
                if self._closed:
                    break
                logging.warning("a render process died or hangs (%r); starting new ones", error)
                self._end_processes()
                continue
            except BaseException:
                self._drop_first()
                raise
            self._drop_first()
            return visit
        self.next_visit += 1
        raise BrokenProcessPool(f"visit {index}: the render processes died {MAX_TRIES} times")

    def _drop_first(self) -> None:
        self._pending.popleft()
        self.next_visit += 1

    def _ask_ahead(self) -> None:
        """Keeps enough visits asked for, starting the processes if there are none."""
        with self._lock:
            if self._closed:
                raise BrokenProcessPool("closed")
            pool = self._start_pool()
            while len(self._pending) < self.n_workers * (1 + AHEAD):
                index = self.next_visit + len(self._pending)
                self._pending.append((index, pool.submit(Chunker.visit, index)))

    def _start_pool(self) -> ProcessPool:
        if self._pool is None:
            # Each process receives the chunker once: an index of many songs takes longer to send than to render.
            self._pool = ProcessPool(self.n_workers, self.chunker)
        return self._pool

    def _end_processes(self) -> None:
        pool, self._pool = self._pool, None
        self._pending.clear()
        if pool:
            pool.kill()


def _prepare(chunker: Chunker) -> None:
    chunker.source.prepare()
