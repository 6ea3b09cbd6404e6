"""A pool of supervised processes: for what renders training data, and for what separates recordings side by side.

The processes are those of concurrent.futures, started by "spawn" on every system, since libraries such as TensorFlow
hang in a process that was forked. When one dies, the futures of all raise BrokenProcessPool, and the pool is of no more
use: its owner makes another one.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")

_MAX_WINDOWS_PROCESSES = 61  # Windows waits for at most 63 handles, of which concurrent.futures needs two


class ProcessPool:
    """Runs functions in processes that end when this process ends, however it ends.

    Ctrl-C reaches only this process, which decides when its pool ends.

    Args:
        n_processes: number of processes. They start as work is submitted.
        shared: object that each process receives once, as it starts; anything large belongs here.
        set_up: called with `shared` in each process before all else.
    """

    def __init__(self, n_processes: int, shared: Any, set_up: Callable[[Any], None] | None = None):
        if sys.platform == "win32":
            n_processes = min(n_processes, _MAX_WINDOWS_PROCESSES)
        self._executor = concurrent.futures.ProcessPoolExecutor(n_processes, CONTEXT, _start, (shared, set_up))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Calls `function(shared, *arguments)` in one of the processes.

        Raises BrokenProcessPool if a process has died.
        """
        return self._executor.submit(_call, function, arguments)

    @property
    def process_ids(self) -> list[int]:
        """The ids of the processes that have been started."""
        return list(self._executor._processes or {})

    def kill(self) -> None:
        """Ends the processes at once, also one that hangs. Futures that are not done never will be."""
        processes = list((self._executor._processes or {}).values())  # before Python 3.14 there is no public way
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.join()

    def shut_down(self) -> None:
        """Waits until the functions that are running return, cancels all others, and ends the processes."""
        self._executor.shutdown(cancel_futures=True)


_shared: Any = None  # in the processes of a pool: the object that it was given


def _start(shared: Any, set_up: Callable[[Any], None] | None) -> None:
    """Runs first in each process of a pool."""
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if set_up:
        set_up(shared)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in processes of a pool only
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_shared, *arguments)
