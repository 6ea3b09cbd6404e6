"""A pool of chunks in the memory of a JAX device, from which each step draws its batch.

However often a chunk is used, it is sent there once.
"""

from __future__ import annotations

import math
import queue
import threading
from typing import Any

import numpy as np

from data_gen.workers import Visits
from sourcesep.config import Config

READY_BLOCKS = 4  # blocks that wait for a place in the pool
MAX_NUMBERS = 2**31 - 1  # of an array whose numbers JAX counts in 32 bits

Array = Any  # of JAX


class Pool:
    """Chunks on the device: a thread reads visits; what was received last takes the place of what came first.

    Use it as a context manager: leaving it ends the thread and the visits.

    Args:
        visits: where the chunks come from.
        config: its sizes are used; chunks are received in blocks of one batch.

    Attributes:
        parts: one or more pairs of arrays in the format of the chunks, mixtures [chunk, time, channel] and stems
            [chunk, time, channel * target]; all of one size. More are needed where one array would be too large.
        n_received: number of blocks received, each in the next part.
        failure: the error that ended the visits; None so far.
    """

    def __init__(self, visits: Visits, config: Config) -> None:
        import jax

        self._visits, self._block_size = visits, config.batch_size
        self._block_s = config.batch_size * config.chunk_ms / 1_000
        time, n_columns = visits.chunker.time_samples, config.channels * len(config.stem_names)
        n_blocks = max(1, config.pool_chunks // config.batch_size)
        n_parts = math.ceil(n_blocks / max(1, MAX_NUMBERS // (config.batch_size * time * n_columns)))
        self._part_blocks = math.ceil(n_blocks / n_parts)
        shape, dtype = (self._part_blocks * config.batch_size, time), visits.chunker.dtype
        self.parts = [
            tuple(jax.numpy.zeros((*shape, n), dtype) for n in (config.channels, n_columns)) for _ in range(n_parts)
        ]
        self.n_received = 0
        self.failure: Exception | None = None
        update = jax.lax.dynamic_update_slice_in_dim
        self._update = jax.jit(
            lambda part, block, first: tuple(update(*both, first, axis=0) for both in zip(part, block)),
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
        return self.n_received >= len(self.parts) * self._part_blocks

    @property
    def has_ended(self) -> bool:
        """Whether no more chunks will come."""
        return not self._thread.is_alive() and self._ready.empty()

    def receive(self, wait_s: float) -> bool:
        """Puts a block into the pool, if there is one within this time, and returns whether there was one."""
        block = self._take(wait_s)
        if block is None:
            return False
        number, part = divmod(self.n_received, len(self.parts))
        first = number % self._part_blocks * self._block_size
        self.parts[part] = self._update(self.parts[part], block, first)
        self.n_received += 1
        return True

    def draw(self, rng: np.random.Generator) -> tuple[tuple[Array, ...], np.ndarray]:
        """Returns a part, and which of its chunks make up a random batch, int32 [batch]; a block must have come."""
        number = int(rng.integers(min(len(self.parts), max(1, self.n_received))))
        n_blocks = (self.n_received + len(self.parts) - 1 - number) // len(self.parts)
        n_filled = self._block_size * min(self._part_blocks, max(1, n_blocks))
        return self.parts[number], rng.choice(n_filled, self._block_size, replace=False).astype(np.int32)

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
