"""Makes visits on the processors of a Ray cluster: Ray Data streams them to the trainer, nothing is kept on disk.

Visits are the same as those of `workers.Workers`, and failed ones are treated in the same way. Ray replaces processes
and machines that die, and repeats their visits.
"""

from __future__ import annotations

import collections
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from data_gen import InputError
from data_gen.chunks import Chunker, Visit
from data_gen.workers import Visits

VISITS = 20_000  # visits in one pass of Ray Data, which plans a pass as a whole; then the next pass begins
VISITS_PER_TASK = 20  # visits that a process is given at a time, and that are repeated if it dies
BLOCK_BYTES = 1 << 23  # visits are sent as soon as there are this many bytes of them
VISITS_AHEAD = 8  # finished visits buffered in the training process
RECENT = 20  # number of visits over which `ready_share` is counted
READY_S = 0.005  # a visit that arrives within this time, in seconds, was ready
CLOSE_S = 30.0  # longest wait for running tasks in `close`, in seconds
THREADS = ("iter_threaded", "map_tp_")  # name prefixes of the threads that fetch data, in Ray Data up to 2.60


class RayWorkers(Visits):
    """Visits made by the Ray cluster in RAY_ADDRESS, or by Ray on this machine.

    Each machine needs this package, the SoundFonts and the MIDI folder under the same paths.
    """

    def __init__(self, chunker: Chunker, first_visit: int = 0):
        super().__init__(chunker, first_visit)
        self._rows: Iterator[dict] = iter(())
        self._reading = threading.Lock()
        self._was_ready = collections.deque([True], RECENT)

    def start(self) -> None:
        """Joins the cluster. Raises InputError if Ray is not installed."""
        try:
            import ray
            import ray.data
        except ImportError:
            raise InputError("--render=ray needs Ray: pip install 'sourcesep[ray]'") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.target_max_block_size = BLOCK_BYTES
        self._shared_chunker = ray.put(self.chunker)  # kept: a process that Ray restarts needs it

    @property
    def ready_share(self) -> float:
        """Share of the last visits that were ready when they were asked for, 0 to 1."""
        return sum(self._was_ready) / len(self._was_ready)

    def close(self) -> None:
        """Ends the stream of visits; the cluster keeps running.

        Ray Data asks its threads to end but does not wait. One that still asks for data after `ray.shutdown()`,
        which comes with the end of the program, would end the process with exit status 1, so `close` waits for them.
        """
        self._closed = True
        if self._reading.acquire(timeout=CLOSE_S):
            rows, self._rows = self._rows, iter(())
            self._reading.release()
            del rows
            for thread in threading.enumerate():
                if thread.name.startswith(THREADS):
                    thread.join(CLOSE_S)

    def _take_visit(self) -> Visit:
        began_s = time.monotonic()
        with self._reading:
            if self._closed:
                raise BrokenProcessPool("closed")
            row = next(self._rows, None)
            if row is None:
                self._rows = self._start_pass(self.next_visit)
                row = next(self._rows)
        self._was_ready.append(time.monotonic() - began_s < READY_S)
        self.next_visit += 1
        result = pickle.loads(row["visit"][0])
        if isinstance(result, Exception):
            raise result
        return result

    def _start_pass(self, first_visit: int) -> Iterator[dict]:
        """Returns an iterator over VISITS rows of Ray Data."""
        import ray

        n_processes = max(1, int(ray.cluster_resources().get("CPU", 1)))
        rows = ray.data.range(VISITS, override_num_blocks=VISITS // VISITS_PER_TASK).map(
            _RenderVisit,
            fn_constructor_args=(self._shared_chunker, first_visit),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=n_processes),
            num_cpus=0.9,  # leaves room for the tasks that hand out the numbers
        )
        return iter(rows.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=VISITS_AHEAD))


class _RenderVisit:
    """Runs on the cluster: row {"id"} -> row {"visit": the pickled Visit, or the error it ended in}."""

    def __init__(self, chunker: Any, first_visit: int):
        import ray

        self._chunker = ray.get(chunker)
        self._first_visit = first_visit

    def __call__(self, row: dict) -> dict:
        try:
            result = self._chunker.visit(self._first_visit + int(row["id"]))
        except Exception as error:  # the trainer counts and logs it, as for `Workers`
            result = error
        return {"visit": pickle.dumps(result, protocol=5)}
