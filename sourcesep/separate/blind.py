"""The blind setting: which of the stems that a model gives are there in the recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FOUND_DB = -20.0  # 99 of 100 instruments in pieces found in the wild are louder; below it leakage gains on them
FRAME_S = 1.0


class Finder:
    """Listens to a mixture and its stems, block by block.

    An instrument is found if the loudest second of its stem is at most FOUND_DB below the loudest second of the
    mixture; in stereo the loudest channel counts.

    Args:
        instruments: names of the stems.
        sample_rate: of mixture and stems, in Hz.
    """

    def __init__(self, instruments: Sequence[str], sample_rate: int):
        self._instruments = tuple(instruments)
        self._frame_samples = max(1, round(FRAME_S * sample_rate))
        self._n_summed = 0
        self._sums = self._loudest = None

    def hear(self, mixture: np.ndarray, stems: np.ndarray) -> None:
        """Takes note of a block: mixture [time, channel], stems [time, channel, instrument]."""
        block = np.concatenate([mixture[:, :, None], stems], axis=2)
        begin = 0
        while begin < len(block):
            part = block[begin : begin + self._frame_samples - self._n_summed]
            energies = np.square(part, dtype=np.float64).sum(axis=0)
            self._sums = energies if self._sums is None else self._sums + energies
            self._n_summed += len(part)
            begin += len(part)
            if self._n_summed == self._frame_samples:
                self._close_frame()

    def found(self) -> tuple[str, ...]:
        """Names of the instruments that are there in what was heard; none if the mixture is silent."""
        if self._n_summed:
            self._close_frame()
        if self._loudest is None:
            return ()
        mixture, *stems = self._loudest.max(axis=0)  # over channels
        is_found = [mixture > 0 and stem >= mixture * 10 ** (FOUND_DB / 10) for stem in stems]
        return tuple(name for name, is_there in zip(self._instruments, is_found) if is_there)

    def note(self) -> str:
        """What was found, in words."""
        return f"found: {', '.join(self.found()) or 'none of the instruments that the model knows'}"

    def _close_frame(self) -> None:
        self._loudest = self._sums if self._loudest is None else np.maximum(self._loudest, self._sums)
        self._sums, self._n_summed = None, 0
