"""A pool of chunks in the memory of a JAX device, from which each step draws its batch.

However often a chunk is used, it is sent there once.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np

from data_gen.workers import Visits
from sourcesep.config import Config

READY_BLOCKS = 4  # blocks that wait for a place in the pool

Array = Any  # of JAX


class Pool:
    """Chunks on the device: a thread reads visits; what was received last takes the place of what came first.

    Use it as a context manager: leaving it ends the thread and the visits.

    Args:
        visits: where the chunks come from.
        config: its sizes are used; chunks are received in blocks of one batch.

    Attributes:
        arrays: mixtures float32 [chunk, time, channel] and stems float32 [chunk, time, channel * target].
        n_received: number of blocks received.
        n_filled: chunks in the pool.
        failure: the error that ended the visits; None so far.
    """

    def __init__(self, visits: Visits, config: Config) -> None:
        import jax

        self._visits, self._block_size = visits, config.batch_size
        self._block_s = config.batch_size * config.chunk_ms / 1_000
        self._size = max(1, config.pool_chunks // config.batch_size) * config.batch_size
        shape, n_columns = (self._size, visits.chunker.time_samples), config.channels * len(config.stem_names)
        self.arrays = tuple(jax.numpy.zeros((*shape, n)) for n in (config.channels, n_columns))
        self.n_received = self.n_filled = 0
        self.failure: Exception | None = None
        update = jax.lax.dynamic_update_slice_in_dim
        self._update = jax.jit(
            lambda arrays, block, first: tuple(update(*both, first, axis=0) for both in zip(arrays, block)),
            donate_argnums=0,
        )
        self._ready: queue.Queue[tuple[Array, ...]] = queue.Queue(READY_BLOCKS)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Pool:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._visits.close()
        while self._thread.is_alive():  # it may wait for a place in the queue
            self._take(wait_s=0.1)

    @property
    def rendered_s(self) -> float:
        """Seconds of audio received."""
        return self.n_received * self._block_s

    @property
    def is_full(self) -> bool:
        """Whether the next block will take the place of another."""
        return self.n_filled == self._size

    @property
    def has_ended(self) -> bool:
        """Whether no more chunks will come."""
        return not self._thread.is_alive() and self._ready.empty()

    def receive(self, wait_s: float) -> bool:
        """Puts a block into the pool, if there is one within this time, and returns whether there was one."""
        block = self._take(wait_s)
        if block is None:
            return False
        self.arrays = self._update(self.arrays, block, self.n_received * self._block_size % self._size)
        self.n_received += 1
        self.n_filled = min(self._size, self.n_received * self._block_size)
        return True

    def _take(self, wait_s: float) -> tuple[Array, ...] | None:
        try:
            return self._ready.get(wait_s > 0, wait_s)
        except queue.Empty:
            return None

    def _read(self) -> None:
        import jax

        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        n_waiting = 0
        try:
            for visit in self._visits:
                waiting.append((visit.mixture, visit.stems))
                n_waiting += len(visit.mixture)
                while n_waiting >= self._block_size:
                    both = [np.concatenate(parts) for parts in zip(*waiting)]
                    self._ready.put(tuple(jax.device_put([part[: self._block_size] for part in both])))
                    waiting = [(both[0][self._block_size :], both[1][self._block_size :])]
                    n_waiting -= self._block_size
        except Exception as error:  # raised where training ends
            self.failure = error
