"""Ctrl-C that is noticed between two pieces of work, rather than raised inside a library that may swallow it."""

from __future__ import annotations

import signal
from types import FrameType


class Interruption:
    """While active, the first SIGINT or SIGTERM only sets `stop_requested`; a second one acts as usual."""

    stop_requested = False

    def __enter__(self) -> Interruption:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._request_stop)
        return self

    def _request_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stop_requested = True
        signal.signal(number, self._before[signal.Signals(number)])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
